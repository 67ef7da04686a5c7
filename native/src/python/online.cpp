// Python to the online loop: a plan out of dictionaries and tuples, arrays checked. What the arguments mean is told in
// src/bptt/_core.pyi.
#include "../online.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <cstring>

#include "arrays.h"
#include "online.h"

namespace bptt {
namespace {

using namespace nb::literals;
using namespace online;

[[noreturn]] void wrong(const std::string& message) { throw nb::value_error(message.c_str()); }

// Numbered entries of a tuple.
class Reader {
public:
    explicit Reader(nb::handle object) : tuple_(nb::cast<nb::tuple>(object)) {}
    template <class V>
    V next() {
        return nb::cast<V>(object());
    }
    nb::object object() {
        if (at_ >= nb::len(tuple_)) wrong("online plan: a tuple is too short");
        return tuple_[at_++];
    }

private:
    nb::tuple tuple_;
    size_t at_ = 0;
};

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

// Contiguous memory of one kind.
class Taken {
public:
    // `longer`: what comes after the first `count` elements is not looked at.
    void* take(nb::handle object, const char* name, dlpack::DataType dtype, int64_t count, bool longer = false) {
        const dlpack::Tensor x = import_quickly(object, {name}, kept_);
        if (x.device.type != dlpack::device_cpu) wrong(std::string(name) + ": not in the CPU's memory");
        if (x.dtype.code != dtype.code || x.dtype.bits != dtype.bits)
            throw nb::type_error((std::string(name) + ": of another dtype").c_str());
        int64_t size = 1;
        for (int i = 0; i < x.ndim; ++i) size *= x.shape[i];
        if (size < count || (size > count && !longer))
            wrong(std::string(name) + ": has " + std::to_string(size) + " elements, expected " + std::to_string(count));
        int64_t step = 1;
        for (int i = x.ndim - 1; i >= 0; --i) {
            if (size > 0 && x.strides != nullptr && x.shape[i] > 1 && x.strides[i] != step)
                wrong(std::string(name) + ": is not contiguous");
            step *= x.shape[i];
        }
        return static_cast<char*>(x.data) + x.byte_offset;
    }

private:
    std::vector<nb::ndarray<nb::ro>> kept_;
};

// to[index] = row, without the lane where there is one; whether its numbers are finite.
bool put_row(nb::handle to, int64_t index, nb::handle row) {
    std::vector<nb::ndarray<nb::ro>> kept;
    const dlpack::Tensor a = import_quickly(to, {"to"}, kept), b = import_quickly(row, {"row"}, kept);
    if (a.device.type != dlpack::device_cpu || b.device.type != dlpack::device_cpu) wrong("not in the CPU's memory");
    if (a.dtype.code != b.dtype.code || a.dtype.bits != b.dtype.bits) throw nb::type_error("row: of another dtype");
    const int first = b.ndim == a.ndim - 1 ? 1 : b.ndim == a.ndim - 2 && a.shape[1] == 1 ? 2 : -1;
    if (first < 0 || index < 0 || index >= a.shape[0]) wrong("row: does not fit");
    int64_t count = 1, step_a = 1, step_b = 1;
    for (int i = a.ndim - 1; i >= 1; --i) {
        const int j = i - first;
        if (j >= 0 && a.shape[i] != b.shape[j]) wrong("row: does not fit");
        if (a.strides != nullptr && a.shape[i] > 1 && a.strides[i] != step_a) wrong("to: is not contiguous");
        if (j >= 0 && b.strides != nullptr && b.shape[j] > 1 && b.strides[j] != step_b) wrong("row: is not contiguous");
        count *= a.shape[i], step_a *= a.shape[i];
        if (j >= 0) step_b *= b.shape[j];
    }
    const auto bytes = static_cast<size_t>(count) * (a.dtype.bits / 8);
    char* into = static_cast<char*>(a.data) + a.byte_offset + static_cast<size_t>(index) * bytes;
    const char* from = static_cast<const char*>(b.data) + b.byte_offset;
    const auto finite = [&](auto zero) {
        const auto* x = reinterpret_cast<const decltype(zero)*>(from);
        for (int64_t i = 0; i < count; ++i)
            if (!std::isfinite(x[i])) return false;
        return true;
    };
    if (a.dtype.code == dlpack::code_float && !(a.dtype.bits == 32 ? finite(0.0f) : finite(0.0))) return false;
    std::memcpy(into, from, bytes);
    return true;
}

class CoreLearner {
public:
    explicit CoreLearner(const nb::dict& d) {
        plan_ = plan_of(d);
        learner_ = make_learner(plan_);
        for (const Leaf& leaf : plan_.leaves) state_.push_back(leaf.width * plan_.lanes);
    }

    // Held until the next call: their memory is used in between.
    void bind(const nb::list& sources) {
        if (static_cast<int>(nb::len(sources)) != plan_.sources) wrong("sources: another number of arrays is expected");
        std::vector<void*> found;
        Taken taken;
        for (size_t i = 0; i < nb::len(sources); ++i) found.push_back(taken.take(sources[i], "sources", real(), plan_.buffers[i]));
        learner_->bind(found);
        sources_ = nb::list(sources);
        bound_ = true;
    }

    void set_buffer(int index, nb::handle values) {
        if (index < plan_.sources || static_cast<size_t>(index) >= plan_.buffers.size()) wrong("there is no such buffer");
        Taken taken;
        learner_->set_buffer(index, taken.take(values, "buffer", real(), plan_.buffers[static_cast<size_t>(index)]));
    }

    void configure(int64_t depth, int64_t stride, const std::string& counted, bool recomputed, bool mean, double clip,
                   const nb::list& slots) {
        if (depth < 1 || stride < 1 || depth > plan_.steps) wrong("depth or stride is out of range");
        Method method{depth, stride, counted == "new" ? 0 : counted == "last" ? 1 : 2, recomputed, mean, clip};
        std::vector<online::Slot> found;
        nb::list held;
        for (nb::handle item : slots) found.push_back(slot_of(nb::cast<nb::dict>(item), held));
        learner_->configure(method, found);
        states_ = held;
        configured_ = true;
    }

    void enter(nb::handle context, int64_t length, int64_t start, int64_t reached, nb::handle pending) {
        std::vector<const void*> found;
        Taken taken;
        if (!context.is_none()) {
            size_t j = 0;
            for (nb::handle item : context) {
                if (j >= state_.size()) wrong("context: too many leaves");
                found.push_back(taken.take(item, "context", real(), state_[j++]));
            }
            if (j != state_.size()) wrong("context: too few leaves");
        }
        Span span{0, 0, 0, -1};
        if (!pending.is_none()) {
            Reader in(pending);
            span.start = in.next<int64_t>(), span.stop = in.next<int64_t>();
            span.first = in.next<int64_t>(), span.follow = in.next<int64_t>();
            if (span.start < 0 || span.follow < span.start) wrong("pending: out of range");
        }
        if (length < 0 || start < 0 || reached < 0) wrong("length, start or reached is negative");
        learner_->enter(found, length, start, reached, span);
    }

    nb::tuple run(nb::handle inputs, nb::handle targets, nb::handle mask, nb::handle reset, nb::handle lengths, int64_t base,
                  int64_t steps, double seconds, nb::handle losses, nb::handle norms, nb::handle counts, int64_t most) {
        if (!bound_ || !configured_) wrong("bind and configure come first");
        if (base < 0 || steps < 0 || most < 1) wrong("base, steps or most is out of range");
        Taken taken;
        const Data data = data_of(taken, inputs, targets, mask, reset, lengths, base, steps);
        auto* loss = static_cast<double*>(taken.take(losses, "losses", {dlpack::code_float, 64, 1}, most, true));
        auto* norm = static_cast<double*>(taken.take(norms, "norms", {dlpack::code_float, 64, 1}, most, true));
        auto* count = static_cast<int64_t*>(taken.take(counts, "counts", {dlpack::code_int, 64, 1}, most, true));
        report_ = Report{};
        {
            nb::gil_scoped_release unlocked;
            report_ = learner_->run(data, most, seconds, loss, norm, count);
        }
        return report();
    }

    nb::tuple report() const {
        static const char* names[] = {"done", "updates", "time", "data", "nonfinite"};
        const auto tuple = [](const Span& s) { return nb::make_tuple(s.start, s.stop, s.first, s.follow); };
        return nb::make_tuple(names[static_cast<int>(report_.halt)], report_.updates, tuple(report_.last));
    }

    bool state(const std::string& what, const nb::list& to) const {
        if (nb::len(to) != state_.size()) wrong("to: another number of leaves is expected");
        std::vector<void*> found;
        Taken taken;
        for (size_t j = 0; j < state_.size(); ++j) found.push_back(taken.take(to[j], "to", real(), state_[j]));
        static const std::string names[] = {"entry", "context", "end", "present"};
        for (int i = 0; i < 4; ++i)
            if (names[i] == what) return learner_->copy_state(static_cast<Learner::What>(i), found);
        wrong("there is no state '" + what + "'");
    }

    void predict(nb::handle inputs, nb::handle reset, int64_t base, int64_t steps, int64_t first, nb::handle to) {
        if (!bound_ || !configured_) wrong("bind and configure come first");
        if (base < 0 || first < base || first >= base + steps) wrong("base, steps or first is out of range");
        Taken taken;
        Data data;
        data.base = base, data.steps = steps;
        const int64_t rows = steps * plan_.lanes;
        data.inputs = taken.take(inputs, "inputs", real(), rows * width(plan_.inputs), true);
        if (!reset.is_none()) data.reset = static_cast<uint8_t*>(taken.take(reset, "reset", flag(), rows, true));
        void* out = taken.take(to, "to", real(), plan_.lanes * width(plan_.prediction));
        nb::gil_scoped_release unlocked;
        learner_->predict(data, first, out);
    }

    // See _core.pyi.
    nb::object step(nb::handle inputs, nb::handle targets, nb::handle mask, int64_t base, int64_t number, int64_t horizon,
                    nb::handle input, nb::handle target, bool due, nb::handle to) {
        if (!bound_ || !configured_) wrong("bind and configure come first");
        const int64_t row = number - base, compared = row - horizon;
        if (compared < 0 || horizon < 0 || !put_row(inputs, row, input) || !put_row(targets, compared, target)) return nb::none();
        Taken taken;
        Data data = data_of(taken, inputs, targets, mask, nb::none(), nb::none(), base, row + 1);
        std::memset(const_cast<uint8_t*>(data.mask) + compared * plan_.lanes, 1, static_cast<size_t>(plan_.lanes));
        void* out = taken.take(to, "to", real(), plan_.lanes * width(plan_.prediction));
        double loss = 0, norm = 0;
        int64_t count = 0;
        {
            nb::gil_scoped_release unlocked;
            report_ = Report{};
            if (horizon == 0) learner_->predict(data, learner_->position().start, out);
            if (due) report_ = learner_->run(data, 1, 0.0, &loss, &norm, &count);
            if (horizon > 0 && report_.halt != Halt::nonfinite) learner_->predict(data, learner_->position().start, out);
        }
        if (report_.halt == Halt::nonfinite) return nb::none();
        return nb::make_tuple(report_.updates, loss, norm);
    }

    void extend(int64_t length) {
        if (length < 0) wrong("length is negative");
        learner_->extend(length);
    }
    std::vector<bool> fresh() const { return learner_->fresh(); }
    int64_t needed() const { return learner_->needed(); }
    nb::tuple position() const {
        const auto [start, reached, pending] = learner_->position();
        const nb::object left = pending.follow < 0 ? nb::object(nb::none())
            : nb::object(nb::make_tuple(pending.start, pending.stop, pending.first, pending.follow));
        return nb::make_tuple(start, reached, left);
    }

private:
    Plan plan_;
    std::unique_ptr<Learner> learner_;
    std::vector<int64_t> state_;
    nb::list sources_, states_;
    bool bound_ = false, configured_ = false;
    Report report_;

    dlpack::DataType real() const {
        return {dlpack::code_float, static_cast<uint8_t>(plan_.dtype == Dtype::float32 ? 32 : 64), 1};
    }
    static dlpack::DataType flag() { return {dlpack::code_bool, 8, 1}; }
    int64_t width(int array) const { return plan_.arrays[static_cast<size_t>(array)].width; }

    Data data_of(Taken& taken, nb::handle inputs, nb::handle targets, nb::handle mask, nb::handle reset, nb::handle lengths,
                 int64_t base, int64_t steps) const {
        Data data;
        data.base = base, data.steps = steps;
        const int64_t rows = steps * plan_.lanes;
        data.inputs = taken.take(inputs, "inputs", real(), rows * width(plan_.inputs), true);
        if (plan_.loss == LossKind::indices) {
            const auto* index = static_cast<const int64_t*>(taken.take(targets, "targets", {dlpack::code_int, 64, 1}, rows, true));
            data.targets = index;
        } else {
            data.targets = taken.take(targets, "targets", real(), rows * width(plan_.prediction), true);
        }
        data.mask = static_cast<uint8_t*>(taken.take(mask, "mask", flag(), rows, true));
        if (!reset.is_none()) data.reset = static_cast<uint8_t*>(taken.take(reset, "reset", flag(), rows, true));
        if (!lengths.is_none())
            data.lengths = static_cast<int64_t*>(taken.take(lengths, "lengths", {dlpack::code_int, 64, 1}, plan_.lanes));
        return data;
    }

    online::Slot slot_of(const nb::dict& d, nb::list& held) const {
        online::Slot slot;
        slot.source = nb::cast<int>(d["source"]);
        slot.gradient = nb::cast<int>(d["gradient"]);
        const auto buffers = static_cast<int>(plan_.buffers.size());
        if (slot.source < 0 || slot.source >= plan_.sources || slot.gradient < plan_.sources || slot.gradient >= buffers)
            wrong("slot: there is no such buffer");
        const int64_t count = plan_.buffers[static_cast<size_t>(slot.source)];
        if (plan_.buffers[static_cast<size_t>(slot.gradient)] != count) wrong("slot: a gradient of another size");
        const auto kind = nb::cast<std::string>(d["kind"]);
        slot.kind = kind == "sgd" ? OptimizerKind::sgd : kind == "adam" ? OptimizerKind::adam : OptimizerKind::rmsprop;
        slot.learned_initial = nb::cast<bool>(d["learned_initial"]);
        for (const auto& [name, to] : {std::pair{"rate", &slot.rate}, {"decay", &slot.decay}, {"momentum", &slot.momentum},
                                       {"dampening", &slot.dampening}, {"beta1", &slot.beta1}, {"beta2", &slot.beta2},
                                       {"epsilon", &slot.epsilon}})
            *to = nb::cast<double>(d[name]);
        for (const auto& [name, to] : {std::pair{"nesterov", &slot.nesterov}, {"maximize", &slot.maximize},
                                       {"decoupled", &slot.decoupled}, {"fresh", &slot.fresh}})
            *to = nb::cast<bool>(d[name]);
        size_t i = 0;
        Taken taken;
        for (nb::handle item : d["state"]) {
            if (i >= 3) wrong("slot: too many states");
            if (!item.is_none()) slot.state[i] = taken.take(item, "state", real(), count), held.append(item);
            ++i;
        }
        const bool complete = slot.kind == OptimizerKind::sgd || (slot.state[0] != nullptr &&
                              (slot.kind == OptimizerKind::rmsprop || slot.state[1] != nullptr));
        if (!complete) wrong("slot: a state is missing");
        const nb::object updates = d["count"];
        if (!updates.is_none()) {
            slot.count_is_double = nb::cast<bool>(d["count_is_double"]);
            const auto bits = static_cast<uint8_t>(slot.count_is_double ? 64 : 32);
            slot.count = taken.take(updates, "count", {dlpack::code_float, bits, 1}, 1);
            held.append(updates);
        } else if (slot.kind == OptimizerKind::adam) {
            wrong("slot: the number of updates is missing");
        }
        return slot;
    }
};

}  // namespace

void bind_online(nb::module_& m) {
    m.def("put_row", &put_row, "to"_a, "index"_a, "row"_a);
    nb::class_<CoreLearner>(m, "Learner")
        .def(nb::init<const nb::dict&>(), "plan"_a)
        .def("bind", &CoreLearner::bind, "sources"_a)
        .def("set_buffer", &CoreLearner::set_buffer, "index"_a, "values"_a)
        .def("configure", &CoreLearner::configure, "depth"_a, "stride"_a, "counted"_a, "recomputed"_a, "mean"_a, "clip"_a,
             "slots"_a)
        .def("enter", &CoreLearner::enter, "context"_a.none(), "length"_a, "start"_a, "reached"_a, "pending"_a.none())
        .def("extend", &CoreLearner::extend, "length"_a)
        .def("step", &CoreLearner::step, "inputs"_a, "targets"_a, "mask"_a, "base"_a, "number"_a, "horizon"_a, "input"_a,
             "target"_a, "due"_a, "to"_a)
        .def("run", &CoreLearner::run, "inputs"_a, "targets"_a, "mask"_a, "reset"_a.none(), "lengths"_a.none(), "base"_a,
             "steps"_a, "seconds"_a, "losses"_a, "norms"_a, "counts"_a, "most"_a)
        .def("state", &CoreLearner::state, "what"_a, "to"_a)
        .def("predict", &CoreLearner::predict, "inputs"_a, "reset"_a.none(), "base"_a, "steps"_a, "first"_a, "to"_a)
        .def("fresh", &CoreLearner::fresh)
        .def("report", &CoreLearner::report)
        .def_prop_ro("needed", &CoreLearner::needed)
        .def("position", &CoreLearner::position);
}

}  // namespace bptt
