// Dictionaries and tuples to a plan; what they mean is told in src/bptt/_core.pyi and in ../online.h.
#include "plan.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "reader.h"

namespace bptt {

using namespace online;

namespace {

Op op_of(const std::string& name) {
    for (int i = 0; i < op_count; ++i)
        if (name == op_name(static_cast<Op>(i))) return static_cast<Op>(i);
    wrong("there is no instruction '" + name + "'");
}

View view_of(nb::handle object) {
    View v;
    if (object.is_none()) return v;
    Reader in(object);
    v.buffer = in.next<int>();
    v.offset = in.next<int64_t>();
    v.rows = in.next<int64_t>(), v.columns = in.next<int64_t>();
    v.row_stride = in.next<int64_t>(), v.column_stride = in.next<int64_t>();
    return v;
}

// None, a number, ("array", index, shift, offset, width) or ("buffer", index, 0, offset, width).
Place place_of(nb::handle object) {
    Place p;
    if (object.is_none()) return p;
    if (PyFloat_Check(object.ptr())) {
        p.kind = Place::constant;
        p.value = nb::cast<double>(object);
        return p;
    }
    Reader in(object);
    p.kind = in.next<std::string>() == "array" ? Place::array : Place::buffer;
    p.index = in.next<int>();
    p.shift = in.next<int>();
    p.offset = in.next<int64_t>();
    p.width = in.next<int64_t>();
    return p;
}

Domain domain_of(const std::string& name) {
    return name == "window" ? Domain::window : name == "step" ? Domain::step : Domain::counted;
}

// (opcode, dst, a, b, c, matrix, needed at first)
std::vector<RowOp> row_ops(nb::handle list) {
    std::vector<RowOp> found;
    for (nb::handle item : list) {
        Reader in(item);
        RowOp op;
        op.op = op_of(in.next<std::string>());
        op.dst = place_of(in.object());
        op.a = place_of(in.object());
        op.b = place_of(in.object());
        op.c = place_of(in.object());
        op.matrix = in.next<int>();
        op.needed_at_first = in.next<bool>();
        found.push_back(op);
    }
    return found;
}

// ("pointwise" | "sum" | "product", opcode, dst, [operands]) or ("cross", rows, dst, left, right, scaled, accumulate)
FixedOp fixed_op(nb::handle item) {
    Reader in(item);
    FixedOp op;
    const auto kind = in.next<std::string>();
    if (kind == "cross") {
        op.kind = FixedOp::cross;
        op.rows = domain_of(in.next<std::string>());
        op.dst = view_of(in.object());
        op.left = place_of(in.object());
        op.right = place_of(in.object());
        op.scaled = in.next<bool>();
        op.accumulate = in.next<bool>();
        return op;
    }
    op.kind = kind == "sum" ? FixedOp::sum : kind == "product" ? FixedOp::product : FixedOp::pointwise;
    const auto name = in.next<std::string>();
    if (op.kind != FixedOp::product) op.op = op_of(name);
    op.dst = view_of(in.object());
    View* views[] = {&op.a, &op.b, &op.c};
    size_t i = 0;
    for (nb::handle operand : in.object()) {
        if (i >= 3) wrong("online plan: more than three operands");
        if (PyFloat_Check(operand.ptr())) op.constants[i] = nb::cast<double>(operand);
        else *views[i] = view_of(operand);
        ++i;
    }
    const size_t expected = op.kind == FixedOp::product ? 2 : op.kind == FixedOp::sum ? 1 : static_cast<size_t>(op_operands(op.op));
    if (i != expected || (op.kind == FixedOp::pointwise && (op_is_reduction(op.op) || op.op == Op::matmul)))
        wrong("online plan: operands of " + kind + " " + name);
    return op;
}

std::vector<FixedOp> fixed_ops(nb::handle list) {
    std::vector<FixedOp> found;
    for (nb::handle item : list) found.push_back(fixed_op(item));
    return found;
}

Leaf leaf_of(nb::handle item) {
    Reader in(item);
    Leaf leaf;
    leaf.width = in.next<int64_t>();
    leaf.states = in.next<int>(), leaf.entered = in.next<int>(), leaf.carries = in.next<int>();
    leaf.initial = in.next<int>();
    leaf.initial_is_shared = in.next<bool>();
    leaf.initial_gradient = in.next<int>();
    return leaf;
}

}  // namespace

Plan plan_of(const nb::dict& d) {
    Plan plan;
    const auto dtype = nb::cast<std::string>(d["dtype"]);
    if (dtype != "float32" && dtype != "float64") wrong("dtype is '" + dtype + "', expected 'float32' or 'float64'");
    plan.dtype = dtype == "float32" ? Dtype::float32 : Dtype::float64;
    plan.steps = nb::cast<int64_t>(d["steps"]);
    plan.lanes = nb::cast<int64_t>(d["lanes"]);
    plan.sources = nb::cast<int>(d["sources"]);
    plan.buffers = nb::cast<std::vector<int64_t>>(d["buffers"]);
    for (nb::handle item : d["arrays"]) {
        Reader in(item);
        Array array;
        array.width = in.next<int64_t>();
        array.domain = domain_of(in.next<std::string>());
        plan.arrays.push_back(array);
    }
    for (nb::handle item : d["matrices"]) {
        Reader in(item);
        Matrix matrix;
        matrix.view = view_of(in.object());
        matrix.changes = in.next<bool>();
        plan.matrices.push_back(matrix);
    }
    for (nb::handle item : d["leaves"]) plan.leaves.push_back(leaf_of(item));
    plan.prepare = fixed_ops(d["prepare"]);
    plan.after = fixed_ops(d["after"]);
    plan.ahead = row_ops(d["ahead"]);
    plan.forward = row_ops(d["forward"]);
    plan.back_ahead = row_ops(d["back_ahead"]);
    plan.backward = row_ops(d["backward"]);
    plan.behind = row_ops(d["behind"]);
    plan.read_forward = row_ops(d["read_forward"]);
    plan.read_backward = row_ops(d["read_backward"]);
    plan.deltas = nb::cast<std::vector<int>>(d["deltas"]);
    Reader special(d["special"]);
    plan.inputs = special.next<int>();
    plan.output = special.next<int>();
    plan.outputs = special.next<int>(), plan.prediction = special.next<int>();
    plan.slope = special.next<int>(), plan.upstream = special.next<int>();
    const std::vector<std::string> losses{"mse", "mae", "huber", "indices", "shares"};
    const auto loss = nb::cast<std::string>(d["loss"]);
    for (size_t i = 0; i < losses.size(); ++i)
        if (losses[i] == loss) plan.loss = static_cast<LossKind>(i);
    plan.clip_state = nb::cast<double>(d["clip_state"]);
    return plan;
}

}  // namespace bptt
