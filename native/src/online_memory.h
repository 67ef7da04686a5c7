// What a learner works on: its arrays and buffers in one block of memory, and instructions bound to it.
#pragma once

#include <cstring>
#include <utility>
#include <vector>

#include "isa.h"
#include "online.h"

namespace bptt::online {

// An instruction on rows, bound to memory. In a loop over time its pointers move by `step` elements.
template <class T>
struct BoundRow {
    Kernel<T> kernel = nullptr;  // null: a product
    ProductKernel<T> multiply = nullptr;
    Call<T> call{};
    Product<T> product{};
    bool flat = false;           // its rows follow each other: one long row
    bool needed_at_first = true;
    ptrdiff_t dst_step = 0, a_step = 0, b_step = 0, c_step = 0;
    T* dst = nullptr;  // at step 0
    const T *a = nullptr, *b = nullptr, *c = nullptr;

    void run() const {
        if (kernel == nullptr) multiply(product);
        else kernel(call);
    }
    // To a step; to the next, or the one before. Where there is no operand, its step is 0.
    void go_to(int64_t t) { put(dst + t * dst_step, a + t * a_step, b + t * b_step, c + t * c_step); }
    void move(ptrdiff_t direction) {
        if (kernel == nullptr) {
            product.dst += direction * dst_step, product.a += direction * a_step, product.init += direction * b_step;
        } else {
            call.dst += direction * dst_step, call.a += direction * a_step;
            call.b += direction * b_step, call.c += direction * c_step;
        }
    }

private:
    void put(T* to, const T* first, const T* second, const T* third) {
        if (kernel == nullptr) product.dst = to, product.a = first, product.init = second;
        else call.dst = to, call.a = first, call.b = second, call.c = third;
    }
};

// The instructions of a loop over time, forward or backward.
template <class T>
class BoundLoop {
public:
    BoundLoop() = default;
    BoundLoop(std::vector<BoundRow<T>> ops, ptrdiff_t direction) : ops_(std::move(ops)), direction_(direction) {}
    // Both instructions, for many steps, in one call.
    void use(ChainKernel<T> kernel, const Chain<T>& chain) { kernel_ = kernel, chain_ = chain; }

    void go_to(int64_t t) {
        at_ = t;
        if (kernel_ == nullptr) move_all();
    }
    // So many steps from the present one on.
    void run(int64_t steps) {
        if (kernel_ != nullptr) {
            kernel_(chain_, at_ * direction_, steps);
            at_ += direction_ * steps;
            return;
        }
        for (; steps > 0; --steps)
            for (BoundRow<T>& op : ops_) {
                op.run();
                op.move(direction_);
            }
    }
    // Of the first step, the last of a loop backward, what is needed there.
    void run_first() {
        if (kernel_ != nullptr) move_all();
        for (const BoundRow<T>& op : ops_)
            if (op.needed_at_first) op.run();
    }
    const std::vector<BoundRow<T>>& ops() const { return ops_; }
    const Chain<T>* chain() const { return kernel_ == nullptr ? nullptr : &chain_; }
    ptrdiff_t direction() const { return direction_; }

private:
    std::vector<BoundRow<T>> ops_;
    ptrdiff_t direction_ = 1;
    ChainKernel<T> kernel_ = nullptr;
    Chain<T> chain_{};
    int64_t at_ = 0;

    void move_all() {
        for (BoundRow<T>& op : ops_) op.go_to(at_);
    }
};

template <class T>
struct BoundFixed {
    const FixedOp* op = nullptr;
    CrossKernel<T> sum_rows = nullptr;
    Cross<T> cross{};
    // Pointwise: rows of contiguous columns where they are so; else, `repeats` times, columns one by one down the rows.
    Kernel<T> kernel = nullptr;
    Call<T> call{};
    int64_t repeats = 1;
    ptrdiff_t dst_step = 0, a_step = 0, b_step = 0, c_step = 0;
};

// Checks that an instruction's operands lie inside what they name; throws std::invalid_argument.
void check_plan(const Plan& plan);

template <class T>
class Memory {
public:
    explicit Memory(const Plan& plan, const OnlineKernels<T>& online, const Kernels<T>& kernels);

    T* buffer(int index) const { return buffers_[static_cast<size_t>(index)]; }
    T* array(int index) const { return arrays_[static_cast<size_t>(index)]; }
    int64_t width(int array) const { return plan_.arrays[static_cast<size_t>(array)].width; }
    // Row 0 of an array at a step.
    T* at(int index, int64_t step) const { return array(index) + step * plan_.lanes * width(index); }
    void set_source(int index, T* data) { buffers_[static_cast<size_t>(index)] = data; }

    // Matrices as the products read them: all, or those that change with the parameters.
    void pack_all();
    void pack_changed() {
        for (const size_t i : changing_) pack(i);
    }
    // Instructions for `rows` rows; `resetting`: states are read where resets were applied.
    std::vector<BoundRow<T>> bind(const std::vector<RowOp>& ops, int64_t rows, bool resetting) const;
    BoundLoop<T> bind_loop(const std::vector<RowOp>& ops, ptrdiff_t direction, bool resetting) const;
    std::vector<BoundFixed<T>> bind(const std::vector<FixedOp>& ops, bool resetting) const;
    void run(const BoundFixed<T>& bound) const;

private:
    struct Packed {
        T* memory = nullptr;  // null: read where it lies
        ptrdiff_t row_step = 0, panel_step = 0;
        bool dots = false;  // few contiguous columns
    };

    const Plan& plan_;
    const OnlineKernels<T>& online_;
    const Kernels<T>& kernels_;
    std::vector<T> memory_;
    std::vector<T*> buffers_, arrays_;
    std::vector<Packed> packed_;
    std::vector<size_t> changing_;  // matrices that are packed again with the parameters
    std::vector<T> constants_;
    mutable std::vector<int> entered_;  // array of states to the array with resets applied

    int64_t rows_of(Domain domain) const;
    struct Pointer {
        T* data = nullptr;
        ptrdiff_t row = 0, step = 0;
        bool scalar = false;
    };
    Pointer point(const Place& place, int64_t width, bool resetting) const;
    const T* constant(double value) const;
    void pack(size_t index);
    T* view(const View& v) const { return buffer(v.buffer) + v.offset; }
    BoundRow<T> bind(const RowOp& op, int64_t rows, bool resetting) const;
    void find_chain(BoundLoop<T>& loop, const RowOp& first, const RowOp& second) const;
    BoundFixed<T> bind(const FixedOp& op, bool resetting) const;
    void bind_pointwise(BoundFixed<T>& bound) const;
    void pointwise(const BoundFixed<T>& bound) const;
    void sum(const FixedOp& op) const;
    void multiply(const FixedOp& op) const;
};

}  // namespace bptt::online
