// The interface between the time loop and the arithmetic: one table of functions per instruction set and dtype.
//
// The tables are filled by kernels/variant.cpp, which is compiled once for each instruction set (the manner of
// PyTorch's aten/src/ATen/native/cpu). Nothing else in the core is compiled with special flags.
#pragma once

#include <cstddef>

#include "../opcodes.h"

namespace bptt {

// One instruction applied to `rows` rows. Pointers are to the first row; strides count elements between rows.
// Pointwise: dst[r][i] = op(a[r][i], b[r][i], c[r][i]); an operand flagged scalar has one element per row.
// Matmul: dst = b + a @ packed, with a [rows, depth], b the optional init (null: zero), packed [depth, width].
template <class T>
struct Call {
    T* dst;
    const T* a;
    const T* b;
    const T* c;
    ptrdiff_t dst_stride, a_stride, b_stride, c_stride;
    ptrdiff_t rows, width;
    ptrdiff_t depth;
    const T* packed;
    bool descending;  // order in which the panels are visited; the result is the same
};

// For each of some sides: dst[m, n] = sum over rows r of a[r, m] b[r, n]. Columns are contiguous.
template <class T>
struct OuterSide {
    const T* b;
    T* dst;
    ptrdiff_t b_stride, dst_stride, n;
};
template <class T>
struct Outer {
    const T* a;
    ptrdiff_t a_stride, rows, m;
    const OuterSide<T>* sides;
    ptrdiff_t count;
};

template <class T>
using Kernel = void (*)(const Call<T>&);

// Bits of the second index of Kernels::op: which operands are scalars (one element a row).
enum Scalar : int { scalar_a = 1, scalar_b = 2, scalar_c = 4, scalar_masks = 8 };

template <class T>
struct Kernels {
    Kernel<T> op[op_count][scalar_masks];
    // Packs [k, n] with any strides into panels; `packed_size` elements are written.
    void (*pack)(const T* source, ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t k, ptrdiff_t n, T* packed);
    ptrdiff_t (*packed_size)(ptrdiff_t k, ptrdiff_t n);
    // x := min(max(x, -bound), bound), NaN passes.
    void (*clamp)(T* x, ptrdiff_t count, T bound);
    // x[i] += y[i]
    void (*accumulate)(T* x, const T* y, ptrdiff_t count);
    // The product that sums over rows, with the `outer_memory(n)` elements of every side to work
    // in; the sum of each column; the sum of the products of two columns.
    void (*outer)(const Outer<T>& product, T* memory);
    ptrdiff_t (*outer_memory)(ptrdiff_t n);
    void (*column_sum)(const T* a, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t width, T* dst);
    void (*column_dot)(const T* a, ptrdiff_t a_stride, const T* b, ptrdiff_t b_stride, ptrdiff_t rows, ptrdiff_t width,
                       T* dst);
    // Multiply-adds in registers alone, to measure what the processor can do; gives their number, and a value of them all.
    double (*multiply_adds)(ptrdiff_t rounds, T& value);
};

template <class T>
const Kernels<T>& kernels_baseline();
template <class T>
const Kernels<T>& kernels_avx2();
template <class T>
const Kernels<T>& kernels_avx512();
template <class T>
const Kernels<T>& kernels_portable();

}  // namespace bptt
