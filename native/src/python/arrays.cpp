// Checks of shapes, strides and overlaps; see arrays.h.
#include "arrays.h"

#include <algorithm>

namespace bptt {
namespace {

std::string listed(const int64_t* values, int n) {
    std::string text = "[";
    for (int i = 0; i < n; ++i) text += (i ? ", " : "") + std::to_string(values[i]);
    return text + "]";
}

[[noreturn]] void wrong(Where where, const std::string& message) {
    throw nb::value_error((where.text() + ": " + message).c_str());
}

std::string dtype_name(dlpack::DataType d) {
    const char* kind = d.code == dlpack::code_float ? "float"
                       : d.code == dlpack::code_int ? "int"
                       : d.code == dlpack::code_bool ? "bool" : "another type, ";
    return d.code == dlpack::code_bool ? kind : kind + std::to_string(d.bits);
}

int64_t stride(const dlpack::Tensor& x, int dimension) {
    if (x.strides != nullptr) return x.strides[dimension];
    int64_t step = 1;
    for (int i = x.ndim - 1; i > dimension; --i) step *= x.shape[i];
    return step;
}

char* start(const dlpack::Tensor& x) { return static_cast<char*>(x.data) + x.byte_offset; }

bool empty(const dlpack::Tensor& x) {
    for (int i = 0; i < x.ndim; ++i)
        if (x.shape[i] == 0) return true;
    return false;
}

void need_contiguous_last(Where where, const dlpack::Tensor& x) {
    const int last = x.ndim - 1;
    if (!empty(x) && x.shape[last] > 1 && stride(x, last) != 1)
        wrong(where, "the last dimension is not contiguous (stride " + std::to_string(stride(x, last)) + ")");
}

}  // namespace

Arrays::Arrays(const Program& program, int64_t steps, int64_t batch)
    : program_(program),
      steps_(steps),
      batch_(batch),
      dtype_{dlpack::code_float, static_cast<uint8_t>(8 * size_of(program.text.dtype)), 1} {
    kept_.reserve(32);
    extents_.reserve(32);
}

dlpack::Tensor Arrays::checked(nb::handle object, Where where, Use use, dlpack::DataType dtype, int ndim,
                               const int64_t* shape) {
    const dlpack::Tensor x = import(object, where, use);
    if (x.device.type != dlpack::device_cpu) wrong(where, "not in the CPU's memory");
    if (x.dtype.code != dtype.code || x.dtype.bits != dtype.bits || x.dtype.lanes != 1)
        throw nb::type_error((where.text() + ": dtype is " + dtype_name(x.dtype) + ", expected " + dtype_name(dtype)).c_str());
    if (x.ndim != ndim || !std::equal(shape, shape + ndim, x.shape))
        wrong(where, "shape is " + listed(x.shape, x.ndim) + ", expected " + listed(shape, ndim));
    if (x.data == nullptr && !empty(x)) wrong(where, "has no memory");
    if (reinterpret_cast<uintptr_t>(start(x)) % std::max<size_t>(1, dtype.bits / 8) != 0) wrong(where, "is not aligned");
    return x;
}

// Outermost stride first; each must step over all that lies inside it.
void Arrays::check_output(Where where, const dlpack::Tensor& x) const {
    std::vector<std::pair<int64_t, int64_t>> dimensions;  // stride, size
    for (int i = 0; i < x.ndim; ++i)
        if (x.shape[i] > 1) dimensions.emplace_back(stride(x, i), x.shape[i]);
    std::sort(dimensions.begin(), dimensions.end());
    int64_t reach = 1;
    for (const auto& [step, size] : dimensions) {
        if (step < reach) wrong(where, "is written, and its strides make it overlap itself");
        reach = step * size;
    }
}

void Arrays::note(Where where, const dlpack::Tensor& x, Use use) {
    if (empty(x)) return;
    if (use == Use::write) check_output(where, x);
    const int64_t bytes = x.dtype.bits / 8;
    int64_t low = 0, high = bytes;
    for (int i = 0; i < x.ndim; ++i) {
        const int64_t reach = stride(x, i) * (x.shape[i] - 1) * bytes;
        (reach < 0 ? low : high) += reach;
    }
    Extent e{where, start(x) + low, start(x) + high, 0, 0, bytes * x.shape[x.ndim - 1], 1, 1, use == Use::write};
    if (x.ndim == 3 && x.shape[0] > 1) e.time = stride(x, 0) * bytes, e.times = x.shape[0];
    if (x.ndim >= 2 && x.shape[x.ndim - 2] > 1) e.row = stride(x, x.ndim - 2) * bytes, e.rows = x.shape[x.ndim - 2];
    extents_.push_back(e);
}

Plane Arrays::time_plane(nb::handle object, Where where, int64_t steps, int64_t width, Use use) {
    const int64_t shape[] = {steps, batch_, width};
    const dlpack::Tensor x = checked(object, where, use, dtype_, 3, shape);
    need_contiguous_last(where, x);
    note(where, x, use);
    return {empty(x) ? nullptr : start(x), stride(x, 0), stride(x, 1)};
}

Plane Arrays::row_plane(nb::handle object, Where where, int64_t width, Use use) {
    const int64_t shape[] = {batch_, width};
    const dlpack::Tensor x = checked(object, where, use, dtype_, 2, shape);
    need_contiguous_last(where, x);
    note(where, x, use);
    return {empty(x) ? nullptr : start(x), 0, stride(x, 0)};
}

Plane Arrays::unit_plane(nb::handle object, Where where, int64_t width, Use use) {
    const int64_t shape[] = {width};
    const dlpack::Tensor x = checked(object, where, use, dtype_, 1, shape);
    need_contiguous_last(where, x);
    note(where, x, use);
    return {start(x), 0, 0};
}

MatrixView Arrays::matrix(nb::handle object, Where where, Shape2 m, Use use) {
    const int64_t shape[] = {m.k, m.n};
    const dlpack::Tensor x = checked(object, where, use, dtype_, 2, shape);
    note(where, x, use);
    return {start(x), stride(x, 0), stride(x, 1)};
}

std::vector<int64_t> Arrays::shape(nb::handle object, Where where) {
    const dlpack::Tensor x = import(object, where, Use::read);
    if (x.ndim < 1) wrong(where, "has no dimension");
    return {x.shape, x.shape + x.ndim};
}

void Arrays::reset(nb::handle object, Run& run) {
    const int64_t shape[] = {steps_, batch_};
    const dlpack::Tensor x = checked(object, {"reset"}, Use::read, {dlpack::code_bool, 8, 1}, 2, shape);
    note({"reset"}, x, Use::read);
    if (empty(x)) return;
    run.reset = reinterpret_cast<const uint8_t*>(start(x));
    run.reset_time = stride(x, 0);
    run.reset_row = stride(x, 1);
}

void Arrays::lengths(nb::handle object, Run& run) {
    const int64_t shape[] = {batch_};
    const dlpack::Tensor x = checked(object, {"lengths"}, Use::read, {dlpack::code_int, 64, 1}, 1, shape);
    note({"lengths"}, x, Use::read);
    if (empty(x)) return;
    run.lengths = reinterpret_cast<const int64_t*>(start(x));
    run.lengths_row = stride(x, 0);
}

// Ranges apart, or columns of one buffer side by side (same strides, no common byte in a row).
bool Arrays::disjoint(const Extent& a, const Extent& b) {
    if (a.high <= b.low || b.high <= a.low) return true;
    const int64_t row = std::max(a.row, b.row), time = std::max(a.time, b.time);
    const int64_t period = row > 0 && time > 0 ? std::min(row, time) : std::max(row, time);
    if (period <= 0 || row % period != 0 || time % period != 0) return false;
    for (const Extent* e : {&a, &b})
        if ((e->row != row && e->rows > 1) || (e->time != time && e->times > 1)) return false;
    const int64_t apart = ((b.low - a.low) % period + period) % period;
    return apart >= a.columns && apart + b.columns <= period;
}

void Arrays::refuse_overlaps() const {
    for (const Extent& a : extents_) {
        if (!a.written) continue;
        for (const Extent& b : extents_)
            if (&a != &b && !disjoint(a, b)) wrong(a.where, "is written, and overlaps " + b.where.text());
    }
}

}  // namespace bptt
