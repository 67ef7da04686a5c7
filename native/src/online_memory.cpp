// Layout and binding; see online_memory.h.
#include "online_memory.h"

#include <cmath>

namespace bptt::online {
namespace {

constexpr int64_t slack = 32;  // elements after each array that a vector may read

int64_t padded(int64_t count) { return (count + slack + 15) / 16 * 16; }

// A matrix that products read where it lies: by rows, or by a few columns.
bool is_direct(const View& m, ptrdiff_t lanes) { return m.column_stride == 1 && m.columns % lanes == 0; }
bool is_dots(const View& m) { return m.row_stride == 1 && m.columns <= 4 && m.rows >= 8; }

}  // namespace

template <class T>
int64_t Memory<T>::rows_of(Domain domain) const {
    const int64_t steps = domain == Domain::step ? 1 : domain == Domain::window ? plan_.steps + 1 : plan_.steps;
    return steps * plan_.lanes;
}

template <class T>
Memory<T>::Memory(const Plan& plan, const OnlineKernels<T>& online, const Kernels<T>& kernels)
    : plan_(plan), online_(online), kernels_(kernels) {
    for (const auto* ops : {&plan.ahead, &plan.forward, &plan.back_ahead, &plan.backward, &plan.behind,
                            &plan.read_forward, &plan.read_backward})
        for (const RowOp& op : *ops)
            for (const Place* p : {&op.a, &op.b, &op.c})
                if (p->kind == Place::constant) constants_.push_back(static_cast<T>(p->value));
    for (const auto* ops : {&plan.prepare, &plan.after})
        for (const FixedOp& op : *ops)
            for (const double value : op.constants) constants_.push_back(static_cast<T>(value));
    int64_t total = 0;
    std::vector<int64_t> places;
    const auto reserve = [&](int64_t count) {
        places.push_back(total);
        total += padded(count);
    };
    for (size_t i = static_cast<size_t>(plan.sources); i < plan.buffers.size(); ++i) reserve(plan.buffers[i]);
    for (const Array& a : plan.arrays) reserve(rows_of(a.domain) * a.width);
    const ptrdiff_t panel = 2 * online.lanes;
    for (const Matrix& m : plan.matrices) {
        const bool direct = is_direct(m.view, online.lanes), dots = is_dots(m.view);
        const ptrdiff_t panel_step = dots ? m.view.column_stride : direct ? panel : m.view.rows * panel;
        packed_.push_back({nullptr, direct ? m.view.row_stride : panel, panel_step, dots});
        if (!direct && !dots) reserve(kernels.packed_size(m.view.rows, m.view.columns));
    }
    memory_.assign(static_cast<size_t>(total + 16), T(0));
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    T* base = memory_.data() + ((address + 63) / 64 * 64 - address) / sizeof(T);
    size_t next = 0;
    buffers_.assign(plan.buffers.size(), nullptr);
    for (size_t i = static_cast<size_t>(plan.sources); i < plan.buffers.size(); ++i) buffers_[i] = base + places[next++];
    for (size_t i = 0; i < plan.arrays.size(); ++i) arrays_.push_back(base + places[next++]);
    for (size_t i = 0; i < plan.matrices.size(); ++i) {
        const Matrix& m = plan.matrices[i];
        if (is_direct(m.view, online.lanes) || is_dots(m.view)) continue;
        packed_[i].memory = base + places[next++];
        if (m.changes) changing_.push_back(i);
    }
    entered_.assign(plan.arrays.size(), -1);
    for (const Leaf& leaf : plan.leaves) entered_[static_cast<size_t>(leaf.states)] = leaf.entered;
}

template <class T>
void Memory<T>::pack(size_t index) {
    const View& m = plan_.matrices[index].view;
    kernels_.pack(view(m), m.row_stride, m.column_stride, m.rows, m.columns, packed_[index].memory);
}

template <class T>
void Memory<T>::pack_all() {
    for (size_t i = 0; i < packed_.size(); ++i)
        if (packed_[i].memory != nullptr) pack(i);
}

template <class T>
const T* Memory<T>::constant(double value) const {
    const T wanted = static_cast<T>(value);
    for (const T& c : constants_)
        if (std::memcmp(&c, &wanted, sizeof(T)) == 0) return &c;
    return nullptr;
}

template <class T>
typename Memory<T>::Pointer Memory<T>::point(const Place& p, int64_t width, bool resetting) const {
    const bool scalar = p.width == 1 && width > 1;
    if (p.kind == Place::none) return {};
    if (p.kind == Place::constant) return {const_cast<T*>(constant(p.value)), 0, 0, scalar};
    if (p.kind == Place::buffer) return {buffer(p.index) + p.offset, 0, 0, scalar};
    int index = p.index;
    if (resetting && p.shift == 0 && entered_[static_cast<size_t>(index)] >= 0) index = entered_[static_cast<size_t>(index)];
    const Array& array = plan_.arrays[static_cast<size_t>(index)];
    const ptrdiff_t step = array.domain == Domain::window ? plan_.lanes * array.width : 0;
    return {arrays_[static_cast<size_t>(index)] + p.shift * step + p.offset, array.width, step, scalar};
}

template <class T>
BoundRow<T> Memory<T>::bind(const RowOp& op, int64_t rows, bool resetting) const {
    BoundRow<T> bound;
    bound.needed_at_first = op.needed_at_first;
    const int64_t width = op_is_reduction(op.op) ? op.a.width : op.dst.width;
    const Pointer dst = point(op.dst, 1, resetting), a = point(op.a, width, resetting);
    const Pointer b = point(op.b, width, resetting), c = point(op.c, width, resetting);
    bound.dst = dst.data, bound.a = a.data, bound.b = b.data, bound.c = c.data;
    bound.dst_step = dst.step, bound.a_step = a.step, bound.b_step = b.step, bound.c_step = c.step;
    if (op.op == Op::matmul) {
        const Matrix& m = plan_.matrices[static_cast<size_t>(op.matrix)];
        const Packed& packed = packed_[static_cast<size_t>(op.matrix)];
        bound.product = {dst.data, a.data, b.data, packed.memory != nullptr ? packed.memory : view(m.view),
                         dst.row, a.row, b.row, packed.row_step, packed.panel_step, rows, m.view.rows, m.view.columns};
        bound.multiply = packed.dots ? online_.dots : online_.product(rows, m.view.rows, m.view.columns);
        return bound;
    }
    const int mask = (a.scalar ? scalar_a : 0) | (b.scalar ? scalar_b : 0) | (c.scalar ? scalar_c : 0);
    bound.kernel = kernels_.op[static_cast<int>(op.op)][op_is_reduction(op.op) ? 0 : mask];
    bound.call = {dst.data, a.data, b.data, c.data, dst.row, a.row, b.row, c.row, rows, width, 0, nullptr, false};
    const auto follows = [&](const Pointer& p) { return p.data == nullptr || p.row == (p.scalar ? 0 : width); };
    bound.flat = !op_is_reduction(op.op) && dst.row == width && follows(a) && follows(b) && follows(c);
    if (bound.flat) bound.call.width = rows * width, bound.call.rows = 1;
    return bound;
}

template <class T>
std::vector<BoundRow<T>> Memory<T>::bind(const std::vector<RowOp>& ops, int64_t rows, bool resetting) const {
    std::vector<BoundRow<T>> bound;
    for (const RowOp& op : ops) bound.push_back(bind(op, rows, resetting));
    return bound;
}

// Whether these two, one after the other in every step, are what a kernel does in one call; see `Chain`.
template <class T>
void Memory<T>::find_chain(BoundLoop<T>& loop, const RowOp& first, const RowOp& second) const {
    const bool forward = loop.direction() > 0;
    const RowOp &one = forward ? first : second, &other = forward ? second : first;
    const BoundRow<T>&product = loop.ops()[forward ? 0 : 1], &op = loop.ops()[forward ? 1 : 0];
    if (one.op != Op::matmul || product.multiply == online_.dots || op.kernel == nullptr) return;
    const int64_t width = product.product.n;
    if (other.dst.width != width || other.a.width != width) return;
    if (op_operands(other.op) != (forward ? 1 : 2) || op_is_reduction(other.op)) return;
    if (forward) {
        if (op.a != product.dst || op.a_step != product.dst_step) return;
    } else {
        if (other.b.width != width || product.a != op.dst || product.a_step != op.dst_step) return;
        if (op.a_step != product.dst_step || op.a - op.a_step != product.dst) return;
    }
    const ptrdiff_t d = loop.direction();
    loop.use(online_.chain(other.op, product.product), {product.product, op.call, d * product.dst_step, d * product.a_step,
                                                        d * product.b_step, d * op.dst_step, d * op.b_step});
}

template <class T>
BoundLoop<T> Memory<T>::bind_loop(const std::vector<RowOp>& ops, ptrdiff_t direction, bool resetting) const {
    BoundLoop<T> loop(bind(ops, plan_.lanes, resetting), direction);
    if (ops.size() == 2) find_chain(loop, ops[0], ops[1]);
    return loop;
}

template <class T>
BoundFixed<T> Memory<T>::bind(const FixedOp& op, bool resetting) const {
    BoundFixed<T> bound{&op};
    if (op.kind == FixedOp::cross) {
        const Pointer a = point(op.left, op.left.width, resetting), b = point(op.right, op.right.width, resetting);
        bound.sum_rows = online_.cross(b.data == nullptr, op.dst.columns);
        bound.cross = {view(op.dst), a.data, b.data, op.dst.row_stride, a.row, b.row, 0, op.dst.rows, op.dst.columns, T(1),
                       op.accumulate, T(0)};
    } else if (op.kind == FixedOp::pointwise) {
        bind_pointwise(bound);
    }
    return bound;
}

template <class T>
std::vector<BoundFixed<T>> Memory<T>::bind(const std::vector<FixedOp>& ops, bool resetting) const {
    std::vector<BoundFixed<T>> bound;
    for (const FixedOp& op : ops) bound.push_back(bind(op, resetting));
    return bound;
}

template <class T>
void Memory<T>::run(const BoundFixed<T>& bound) const {
    switch (bound.op->kind) {
        case FixedOp::pointwise: return pointwise(bound);
        case FixedOp::sum: return sum(*bound.op);
        case FixedOp::product: return multiply(*bound.op);
        case FixedOp::cross: bound.sum_rows(bound.cross);
    }
}

template <class T>
void Memory<T>::bind_pointwise(BoundFixed<T>& bound) const {
    const FixedOp& op = *bound.op;
    const View* views[] = {&op.a, &op.b, &op.c};
    const int count = op_operands(op.op);
    const T* from[3] = {};
    ptrdiff_t row[3] = {}, column[3] = {};
    for (int i = 0; i < count; ++i) {
        const bool given = views[i]->buffer >= 0;
        from[i] = given ? view(*views[i]) : constant(op.constants[i]);
        row[i] = given ? views[i]->row_stride : 0;
        column[i] = given ? views[i]->column_stride : 0;
    }
    const bool wide = op.dst.columns > 1;
    int mask = 0;
    bool contiguous = !wide || op.dst.column_stride == 1;
    for (int i = 0; i < count; ++i) {
        if (wide && column[i] == 0) mask |= 1 << i;
        else if (wide && column[i] != 1) contiguous = false;
    }
    bound.kernel = kernels_.op[static_cast<int>(op.op)][contiguous ? mask : 0];
    bound.call = {view(op.dst), from[0], from[1], from[2], op.dst.row_stride, row[0], row[1], row[2], op.dst.rows,
                  op.dst.columns, 0, nullptr, false};
    if (contiguous) return;
    bound.call = {view(op.dst), from[0], from[1], from[2], op.dst.column_stride, column[0], column[1], column[2],
                  op.dst.columns, 1, 0, nullptr, false};
    bound.repeats = op.dst.rows;
    bound.dst_step = op.dst.row_stride, bound.a_step = row[0], bound.b_step = row[1], bound.c_step = row[2];
}

template <class T>
void Memory<T>::pointwise(const BoundFixed<T>& bound) const {
    if (bound.repeats == 1) return bound.kernel(bound.call);
    Call<T> call = bound.call;
    for (int64_t i = 0; i < bound.repeats; ++i) {
        bound.kernel(call);
        call.dst += bound.dst_step, call.a += bound.a_step, call.b += bound.b_step, call.c += bound.c_step;
    }
}

template <class T>
void Memory<T>::sum(const FixedOp& op) const {
    const T* from = view(op.a);
    T* dst = view(op.dst);
    for (int64_t r = 0; r < op.a.rows; ++r) {
        T total = op.op == Op::sum ? T(0) : -static_cast<T>(INFINITY);
        for (int64_t c = 0; c < op.a.columns; ++c) {
            const T x = from[r * op.a.row_stride + c * op.a.column_stride];
            if (op.op == Op::sum) total += x;
            else total = x > total || x != x ? x : total;
        }
        dst[r * op.dst.row_stride] = total;
    }
}

template <class T>
void Memory<T>::multiply(const FixedOp& op) const {
    const T *a = view(op.a), *b = view(op.b);
    T* dst = view(op.dst);
    for (int64_t i = 0; i < op.dst.rows; ++i)
        for (int64_t j = 0; j < op.dst.columns; ++j) {
            T total = 0;
            for (int64_t p = 0; p < op.a.columns; ++p)
                total += a[i * op.a.row_stride + p * op.a.column_stride] * b[p * op.b.row_stride + j * op.b.column_stride];
            dst[i * op.dst.row_stride + j * op.dst.column_stride] = total;
        }
}

template class Memory<float>;
template class Memory<double>;

}  // namespace bptt::online
