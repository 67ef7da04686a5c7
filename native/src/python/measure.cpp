// Parts of the core alone, as programs of one instruction; see measure.h.
#include "measure.h"

#include <algorithm>

#include "../isa.h"
#include "arrays.h"

namespace nb = nanobind;

namespace bptt {
namespace {

struct Shape {
    Dtype dtype;
    std::vector<int64_t> sizes;
};

Shape shape_of(nb::handle object, Where where, size_t ndim) {
    std::vector<nb::ndarray<nb::ro>> kept;
    const dlpack::Tensor x = import_array(object, where, kept);
    if (x.dtype.code != dlpack::code_float || (x.dtype.bits != 32 && x.dtype.bits != 64))
        throw nb::type_error((where.text() + ": expected float32 or float64").c_str());
    if (static_cast<size_t>(x.ndim) != ndim) throw nb::value_error((where.text() + ": wrong number of dimensions").c_str());
    return {x.dtype.bits == 32 ? Dtype::float32 : Dtype::float64, {x.shape, x.shape + x.ndim}};
}

Slot in_time(int64_t index, int64_t width) { return {Space::time, index, 0, width, 0, false}; }

}  // namespace

// The array as T steps of one row of width 1 would be slow; as one row whose width is its size it is what a step does.
void elementwise(const std::string& name, nb::handle x, nb::handle out) {
    const Shape shape = shape_of(x, {"x"}, 1);
    const int64_t n = shape.sizes[0];
    if (n == 0) return;
    Description text;
    text.dtype = shape.dtype;
    text.units = {n};
    text.states = {n};
    InstructionText line;
    for (int i = 0; i < op_count; ++i)
        if (name == op_name(static_cast<Op>(i))) line.op = static_cast<Op>(i);
    if (name != op_name(line.op) || op_operands(line.op) != 1 || op_is_reduction(line.op))
        throw nb::value_error(("there is no unary instruction '" + name + "'").c_str());
    line.dst = {Space::next, 0, 0, n, 0, false};
    line.operands[0] = {Space::unit, 0, 0, n, 0, false};
    text.instructions = {line};
    const Program program = build(text);
    Arrays arrays(program, 1, 1);
    Run run;
    run.steps = run.batch = 1;
    run.units.push_back(arrays.unit_plane(x, {"x"}, n));
    const Plane result = arrays.unit_plane(out, {"out"}, n, Use::write);
    arrays.refuse_overlaps();
    // The state after the only step is the output; the state before it is never read.
    run.states.push_back({static_cast<char*>(result.data), 0, n});
    run.initial.resize(1);
    WorkspaceCache cache;
    nb::gil_scoped_release unlocked;
    execute(program, run, cache);
}

void multiply(nb::handle a, nb::handle matrix, nb::handle out, int64_t threads, int64_t repeat) {
    const Shape left = shape_of(a, {"a"}, 2), right = shape_of(matrix, {"matrix"}, 2);
    const int64_t batch = left.sizes[0], k = right.sizes[0], n = right.sizes[1];
    Description text;
    text.dtype = left.dtype;
    text.time = {{k, false}, {n, true}};
    text.matrices = {{k, n}};
    InstructionText line;
    line.op = Op::matmul;
    line.dst = in_time(1, n);
    line.operands[0].absent = true;
    line.operands[1] = in_time(0, k);
    text.instructions = {line};
    const Program program = build(text);
    Arrays arrays(program, 1, batch);
    Run run;
    run.batch = batch;
    run.threads = static_cast<int>(std::clamp<int64_t>(threads, 1, 1024));
    run.time.push_back(arrays.row_plane(a, {"a"}, k, Use::read));  // time stride 0: the same at every step
    run.time.push_back(arrays.row_plane(out, {"out"}, n, Use::write));
    run.matrices.push_back(arrays.matrix(matrix, {"matrix"}, {k, n}));
    arrays.refuse_overlaps();
    run.steps = std::clamp<int64_t>(repeat, 0, int64_t{1} << 40);
    WorkspaceCache cache;
    nb::gil_scoped_release unlocked;
    execute(program, run, cache);
}

double multiply_adds(int64_t rounds) {
    nb::gil_scoped_release unlocked;
    float value;
    const double count = kernels<float>().multiply_adds(rounds, value);
    return value >= 0 ? count : 0;  // it is, and has to be computed to be known
}

}  // namespace bptt
