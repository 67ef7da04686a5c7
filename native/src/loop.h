// The loops over time, forward and reverse: resets, lengths, the carried gradient and its clipping.
//
// Members of Tile (tile.h), included by tile.cpp alone. Rows of a tile never mix, and nothing is copied at a step where
// no row is reset or past its length.
#pragma once

#include <cstring>
#include <utility>

#include "tile.h"

namespace bptt {

template <class T>
bool Tile<T>::is_reset(int64_t t, int64_t row) const {
    return run_.reset[t * run_.reset_time + (first_row_ + row) * run_.reset_row] != 0;
}

template <class T>
bool Tile<T>::is_over(int64_t t, int64_t row) const {
    return run_.lengths != nullptr && t >= run_.lengths[(first_row_ + row) * run_.lengths_row];
}

template <class T>
bool Tile<T>::any_reset(int64_t t) const {
    if (run_.reset == nullptr) return false;
    for (int64_t r = 0; r < rows_; ++r)
        if (is_reset(t, r)) return true;
    return false;
}

template <class T>
bool Tile<T>::all_over(int64_t t) const {
    if (run_.lengths == nullptr) return false;
    for (int64_t r = 0; r < rows_; ++r)
        if (!is_over(t, r)) return false;
    return true;
}

// Where a row is reset, the program reads copies of the states with the initial state in that row.
template <class T>
void Tile<T>::enter_states(int64_t t) {
    const bool any = any_reset(t);
    for (size_t j = 0; j < leaves_; ++j) {
        const auto id = static_cast<size_t>(leaf_id(Space::state, j));
        if (!program_.arrays[id].read || !(any || always_copied(j))) continue;
        const size_t bytes = static_cast<size_t>(width(j)) * sizeof(T);
        for (int64_t r = 0; r < rows_; ++r) {
            const T* source = is_reset(t, r) ? at(run_.initial[j], 0, r) : at(run_.states[j], t, r);
            std::memcpy(reset_tile_[j] + r * width(j), source, bytes);
        }
        base_[id] = reset_tile_[j];
    }
}

template <class T>
void Tile<T>::leave_states(int64_t t) {
    for (size_t j = 0; j < leaves_; ++j) {
        const auto id = static_cast<size_t>(leaf_id(Space::state, j));
        if (program_.arrays[id].read) base_[id] = at(run_.states[j], t, 0);
    }
}

template <class T>
void Tile<T>::compute_at(int64_t t) {
    if (run_.reset == nullptr) return compute();
    enter_states(t);
    compute();
    leave_states(t);
}

template <class T>
void Tile<T>::zero_outputs(int64_t row) {
    const Description& text = program_.text;
    for (size_t i = 0; i < text.time.size(); ++i) {
        const auto id = static_cast<size_t>(leaf_id(Space::time, i));
        if (!text.time[i].written || base_[id] == nullptr) continue;
        std::memset(base_[id] + row * stride_[id], 0, static_cast<size_t>(text.time[i].width) * sizeof(T));
    }
}

template <class T>
void Tile<T>::freeze(int64_t t) {
    if (run_.lengths == nullptr) return;
    for (int64_t r = 0; r < rows_; ++r) {
        if (!is_over(t, r)) continue;
        zero_outputs(r);
        for (size_t j = 0; j < leaves_; ++j)
            std::memcpy(at(run_.states[j], t + 1, r), at(run_.states[j], t, r), static_cast<size_t>(width(j)) * sizeof(T));
    }
}

template <class T>
void Tile<T>::forward() {
    for (int64_t t = 0; t < run_.steps; ++t) {
        if (t == projected_until_ && !run_.projections.empty()) project(t);
        if (!all_over(t)) compute_at(t);
        freeze(t);
        move();
    }
}

// The carry starts as the final gradient, or zero.
template <class T>
void Tile<T>::start_carry() {
    for (size_t j = 0; j < leaves_; ++j) {
        const size_t bytes = static_cast<size_t>(width(j)) * sizeof(T);
        const bool given = !run_.final_grads.empty() && run_.final_grads[j].data != nullptr;
        for (int64_t r = 0; r < rows_; ++r) {
            T* row = carry_[j] + r * width(j);
            if (given) std::memcpy(row, at(run_.final_grads[j], 0, r), bytes);
            else std::memset(row, 0, bytes);
        }
    }
}

// g = carry + GS[t]; the program reads g and writes the other buffer.
template <class T>
void Tile<T>::gather_gradients(int64_t t) {
    for (size_t j = 0; j < leaves_; ++j) {
        base_[static_cast<size_t>(leaf_id(Space::grad, j))] = carry_[j];
        base_[static_cast<size_t>(leaf_id(Space::grad_in, j))] = next_carry_[j];
        if (run_.step_grads.empty() || run_.step_grads[j].data == nullptr) continue;
        const Plane& plane = run_.step_grads[j];
        if (plane.row == width(j)) {
            kernels_.accumulate(carry_[j], at(plane, t, 0), rows_ * width(j));
            continue;
        }
        for (int64_t r = 0; r < rows_; ++r) kernels_.accumulate(carry_[j] + r * width(j), at(plane, t, r), width(j));
    }
}

// Reset: the gradient goes to the initial state and no further. Past the length: the carry waits.
template <class T>
void Tile<T>::settle_row(int64_t t, int64_t row) {
    const bool over = is_over(t, row);
    if (over) zero_outputs(row);
    for (size_t j = 0; j < leaves_; ++j) {
        T* gradient = next_carry_[j] + row * width(j);
        const size_t bytes = static_cast<size_t>(width(j)) * sizeof(T);
        if (over) {
            std::memcpy(gradient, carry_[j] + row * width(j), bytes);
        } else {
            if (!run_.initial_grads.empty() && run_.initial_grads[j].data != nullptr)
                kernels_.accumulate(at(run_.initial_grads[j], 0, row), gradient, width(j));
            std::memset(gradient, 0, bytes);
        }
    }
}

template <class T>
void Tile<T>::settle_gradients(int64_t t) {
    if (run_.has_clip)
        for (size_t j = 0; j < leaves_; ++j)
            kernels_.clamp(next_carry_[j], rows_ * width(j), static_cast<T>(run_.clip));
    if (run_.reset != nullptr || run_.lengths != nullptr)
        for (int64_t r = 0; r < rows_; ++r)
            if (is_over(t, r) || (run_.reset != nullptr && is_reset(t, r))) settle_row(t, r);
    std::swap(carry_, next_carry_);
}

template <class T>
void Tile<T>::finish_carry() {
    for (size_t j = 0; j < leaves_; ++j) {
        if (run_.start_grads.empty() || run_.start_grads[j].data == nullptr) continue;
        for (int64_t r = 0; r < rows_; ++r)
            std::memcpy(at(run_.start_grads[j], 0, r), carry_[j] + r * width(j),
                        static_cast<size_t>(width(j)) * sizeof(T));
    }
}

template <class T>
void Tile<T>::reverse() {
    start_carry();
    if (run_.steps > 0) seek(run_.steps - 1);
    for (int64_t t = run_.steps - 1; t >= 0; --t) {
        gather_gradients(t);
        if (!all_over(t)) compute_at(t);
        settle_gradients(t);
        move();
    }
    finish_carry();
}

}  // namespace bptt
