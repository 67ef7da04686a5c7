// Binding a program to the memory of a tile, and executing one step; see tile.h. The loops over time are in loop.cpp.
#include "tile.h"

#include <algorithm>

namespace bptt {
namespace {

template <class T>
int64_t padded(int64_t elements) {
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    return (elements + line - 1) / line * line;
}

}  // namespace

template <class T>
int64_t steps_ahead(const Program& program, const Run& run, int64_t rows) {
    constexpr int64_t most_bytes = 48 * 1024;
    int64_t bytes = 1;
    for (const Projection& p : run.projections)
        bytes += program.text.time[p.time].width * rows * static_cast<int64_t>(sizeof(T));
    return std::max<int64_t>(1, std::min(run.steps, most_bytes / bytes));
}

template <class T>
size_t tile_elements(const Program& program, const Run& run, int64_t rows) {
    int64_t count = 0;
    for (const Projection& p : run.projections)
        if (p.kept.data == nullptr) count += padded<T>(program.text.time[p.time].width * rows * steps_ahead<T>(program, run, rows));
    for (int64_t w : program.text.scratch) count += padded<T>(w * rows);
    for (int64_t w : program.text.states) count += padded<T>(w * rows) * (program.text.reverse ? 3 : 1);
    return static_cast<size_t>(count);
}

template <class T>
Tile<T>::Tile(const Shared<T>& shared, int64_t first_row, int64_t rows, T* memory)
    : program_(shared.program),
      run_(shared.run),
      kernels_(shared.kernels),
      shared_(shared),
      first_row_(first_row),
      rows_(rows),
      leaves_(shared.program.text.states.size()),
      base_(shared.program.arrays.size(), nullptr),
      stride_(shared.program.arrays.size(), 0) {
    place(memory);
    bind_all();
}

template <class T>
T* Tile<T>::take(T*& memory, int64_t width) const {
    T* start = memory;
    memory += padded<T>(width * rows_);
    return start;
}

template <class T>
T* Tile<T>::at(const Plane& plane, int64_t t, int64_t row) const {
    return static_cast<T*>(plane.data) + t * plane.time + (first_row_ + row) * plane.row;
}

// External array: its entry at step 0; what moves with time is listed.
template <class T>
void Tile<T>::place_plane(Space space, size_t index, const Plane& plane) {
    const int id = program_.id(space, static_cast<int64_t>(index));
    const ArrayInfo& info = program_.arrays[static_cast<size_t>(id)];
    if (plane.data == nullptr || !(info.read || info.written)) return;
    base_[static_cast<size_t>(id)] = at(plane, space == Space::next ? 1 : 0, 0);
    stride_[static_cast<size_t>(id)] = plane.row;
    const bool moves = space == Space::time || space == Space::state || space == Space::next;
    if (moves) movers_.push_back({id, program_.text.reverse ? -plane.time : plane.time});
}

// What is projected a few steps at a time lies in the tile's own memory, which `project` fills anew.
template <class T>
void Tile<T>::place_projection(const Projection& p, T*& memory) {
    if (p.kept.data != nullptr) {
        projected_.push_back(nullptr);
        return place_plane(Space::time, p.time, p.kept);
    }
    const auto id = static_cast<size_t>(leaf_id(Space::time, p.time));
    const int64_t width = program_.arrays[id].width;
    projected_.push_back(take(memory, width * shared_.steps_ahead));
    base_[id] = projected_.back();
    stride_[id] = width;
    movers_.push_back({static_cast<int>(id), width * rows_});
}

template <class T>
void Tile<T>::place(T* memory) {
    const Description& text = program_.text;
    const auto internal = [&](int id, T* data, int64_t width) {
        base_[static_cast<size_t>(id)] = data;
        stride_[static_cast<size_t>(id)] = width;
    };
    for (size_t i = 0; i < text.scratch.size(); ++i)
        internal(leaf_id(Space::scratch, i), take(memory, text.scratch[i]), text.scratch[i]);
    for (size_t i = 0; i < text.time.size(); ++i) place_plane(Space::time, i, run_.time[i]);
    for (const Projection& p : run_.projections) place_projection(p, memory);
    for (size_t i = 0; i < text.rows.size(); ++i) place_plane(Space::row, i, run_.rows[i]);
    for (size_t i = 0; i < text.units.size(); ++i)
        base_[static_cast<size_t>(leaf_id(Space::unit, i))] = static_cast<T*>(run_.units[i].data);
    base_.back() = const_cast<T*>(shared_.constants);
    for (size_t j = 0; j < leaves_; ++j) {
        place_plane(Space::state, j, run_.states[j]);
        place_plane(Space::next, j, run_.states[j]);
        if (always_copied(j)) stride_[static_cast<size_t>(leaf_id(Space::state, j))] = width(j);
        reset_tile_.push_back(take(memory, width(j)));
        if (!text.reverse) continue;
        carry_.push_back(take(memory, width(j)));
        next_carry_.push_back(take(memory, width(j)));
        internal(leaf_id(Space::grad, j), carry_[j], width(j));
        internal(leaf_id(Space::grad_in, j), next_carry_[j], width(j));
    }
}

template <class T>
const T* Tile<T>::point(const Operand& operand, const T** where, ptrdiff_t& stride) {
    stride = 0;
    if (operand.array < 0) return nullptr;
    const auto id = static_cast<size_t>(operand.array);
    stride = stride_[id];
    const Space space = program_.arrays[id].space;
    const bool fixed = space == Space::scratch || space == Space::row || space == Space::unit || space == Space::constant;
    if (!fixed) patches_.push_back({where, operand.array, operand.offset});
    return base_[id] == nullptr ? nullptr : base_[id] + operand.offset;  // null where there are no steps
}

// One long row: every operand is as wide as its rows are apart, or the same constant for all of them.
template <class T>
bool Tile<T>::is_flat(const Instruction& x, const Call<T>& call) const {
    if (x.op == Op::matmul || op_is_reduction(x.op) || call.dst_stride != x.width) return false;
    const Operand* operands[] = {&x.a, &x.b, &x.c};
    const ptrdiff_t strides[] = {call.a_stride, call.b_stride, call.c_stride};
    for (int i = 0; i < 3; ++i) {
        if (operands[i]->array < 0) continue;
        const bool scalar = (x.scalars >> i & 1) != 0;
        if (strides[i] != (scalar ? 0 : x.width)) return false;
    }
    return true;
}

template <class T>
void Tile<T>::bind(const Instruction& x) {
    calls_.emplace_back();
    Call<T>& call = calls_.back();
    call.rows = rows_;
    call.width = x.width;
    call.dst = const_cast<T*>(point(x.dst, const_cast<const T**>(&call.dst), call.dst_stride));
    call.a = point(x.a, &call.a, call.a_stride);
    call.b = point(x.b, &call.b, call.b_stride);
    call.c = point(x.c, &call.c, call.c_stride);
    if (x.op == Op::matmul) {
        call.packed = shared_.packed[static_cast<size_t>(x.matrix)];
        call.depth = program_.text.matrices[static_cast<size_t>(x.matrix)].k;
    }
    flat_.push_back(is_flat(x, call));
    kernel_.push_back(kernels_.op[static_cast<int>(x.op)][x.scalars]);
}

template <class T>
void Tile<T>::bind_all() {
    calls_.reserve(program_.instructions.size());  // patches point into it
    for (const Instruction& x : program_.instructions) bind(x);
    for (const Segment& s : program_.segments) {
        if (s.matmul || rows_ > s.chunk_rows) continue;
        for (int i = s.first; i < s.last; ++i) {
            if (!flat_[static_cast<size_t>(i)]) continue;
            calls_[static_cast<size_t>(i)].width *= rows_;
            calls_[static_cast<size_t>(i)].rows = 1;
        }
    }
}

template <class T>
void Tile<T>::seek(int64_t t) {
    for (const Mover& m : movers_) base_[static_cast<size_t>(m.array)] += t * (program_.text.reverse ? -m.step : m.step);
}

template <class T>
void Tile<T>::move() {
    for (const Mover& m : movers_) base_[static_cast<size_t>(m.array)] += m.step;
}

// The rows of some steps, from step t on; all of them at once where they lie at even distances.
template <class T>
void Tile<T>::project_steps(const Projection& p, size_t index, int64_t t, int64_t count) {
    const int64_t width = program_.text.time[p.time].width;
    const auto& shared = shared_.projections[index];
    Call<T> call{};
    call.width = width;
    call.depth = p.depth;
    call.packed = shared.weight;
    call.b = shared.bias;
    const ptrdiff_t to_time = p.kept.data == nullptr ? rows_ * width : p.kept.time;
    call.dst_stride = p.kept.data == nullptr ? width : p.kept.row;
    call.a_stride = p.input.row;
    T* to = p.kept.data == nullptr ? projected_[index] : at(p.kept, t, 0);
    const T* from = at(p.input, t, 0);
    int64_t runs = count;
    call.rows = rows_;
    if (rows_ == 1) call.dst_stride = to_time, call.a_stride = p.input.time, call.rows = count, runs = 1;
    else if (to_time == rows_ * call.dst_stride && p.input.time == rows_ * p.input.row) call.rows = rows_ * count, runs = 1;
    for (int64_t i = 0; i < runs; ++i) {
        call.a = from + i * p.input.time;
        call.dst = to + i * to_time;
        kernels_.op[static_cast<int>(Op::matmul)][0](call);
    }
}

template <class T>
void Tile<T>::project(int64_t t) {
    const int64_t count = std::min(run_.steps - t, shared_.steps_ahead);
    for (size_t i = 0; i < run_.projections.size(); ++i) {
        const Projection& p = run_.projections[i];
        project_steps(p, i, t, count);
        if (projected_[i] != nullptr) base_[static_cast<size_t>(leaf_id(Space::time, p.time))] = projected_[i];
    }
    projected_until_ = t + count;
}

template <class T>
void Tile<T>::patch() {
    for (const Patch& p : patches_) *p.where = base_[static_cast<size_t>(p.array)] + p.offset;
}

template <class T>
void Tile<T>::compute() {
    patch();
    descending_ = !descending_;
    for (const Segment& s : program_.segments) {
        if (s.matmul) calls_[static_cast<size_t>(s.first)].descending = descending_;
        if (!s.matmul && rows_ > s.chunk_rows) {
            chunks(s);
            continue;
        }
        for (int i = s.first; i < s.last; ++i) kernel_[static_cast<size_t>(i)](calls_[static_cast<size_t>(i)]);
    }
}

template <class T>
void Tile<T>::chunks(const Segment& s) {
    for (int64_t r = 0; r < rows_; r += s.chunk_rows) {
        const int64_t n = rows_ - r < s.chunk_rows ? rows_ - r : s.chunk_rows;
        for (int i = s.first; i < s.last; ++i) {
            Call<T> part = calls_[static_cast<size_t>(i)];
            part.dst += r * part.dst_stride;
            if (part.a != nullptr) part.a += r * part.a_stride;
            if (part.b != nullptr) part.b += r * part.b_stride;
            if (part.c != nullptr) part.c += r * part.c_stride;
            const bool flat = flat_[static_cast<size_t>(i)] != 0;
            part.rows = flat ? 1 : n;
            part.width = flat ? n * part.width : part.width;
            kernel_[static_cast<size_t>(i)](part);
        }
    }
}

template int64_t steps_ahead<float>(const Program&, const Run&, int64_t);
template int64_t steps_ahead<double>(const Program&, const Run&, int64_t);
template size_t tile_elements<float>(const Program&, const Run&, int64_t);
template size_t tile_elements<double>(const Program&, const Run&, int64_t);

}  // namespace bptt

#include "loop.h"

template class bptt::Tile<float>;
template class bptt::Tile<double>;
