// Packing of a matrix [k, n] for the product: panels of two vectors of columns, each panel [k][two vectors], the last
// one padded with zeros. Done once a run, so a transposed source deserves care only for short runs: it goes by small
// squares, transposed in registers.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace bptt::BPTT_VARIANT {

template <class T>
constexpr ptrdiff_t panel_width = 2 * lanes<T>;

template <class T>
ptrdiff_t packed_size(ptrdiff_t k, ptrdiff_t n) {
    return k * ((n + panel_width<T> - 1) / panel_width<T>)*panel_width<T>;
}

// Side of a square: 16 bytes.
template <class T>
constexpr ptrdiff_t square = 16 / static_cast<ptrdiff_t>(sizeof(T));

// out[p][c] = in[c][p] for one square; rows `step` apart in, P apart out.
BPTT_INLINE void transpose_square(const float* in, ptrdiff_t step, float* out, ptrdiff_t out_step) {
    typedef float Q __attribute__((vector_size(16)));
    Q r[4];
    for (int i = 0; i < 4; ++i) memcpy(&r[i], in + i * step, 16);
    const Q a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), b = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
    const Q c = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7), d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    r[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
    r[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    r[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
    r[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
    for (int i = 0; i < 4; ++i) memcpy(out + i * out_step, &r[i], 16);
}
BPTT_INLINE void transpose_square(const double* in, ptrdiff_t step, double* out, ptrdiff_t out_step) {
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) out[i * out_step + j] = in[j * step + i];
}

// Columns of the source are contiguous: a full panel, k steps.
template <class T>
void pack_transposed(const T* source, ptrdiff_t column_stride, ptrdiff_t k, T* out) {
    constexpr ptrdiff_t P = panel_width<T>, S = square<T>;
    ptrdiff_t p = 0;
    for (; p + S <= k; p += S)
        for (ptrdiff_t c = 0; c < P; c += S)
            transpose_square(source + c * column_stride + p, column_stride, out + p * P + c, P);
    for (; p < k; ++p)
        for (ptrdiff_t c = 0; c < P; ++c) out[p * P + c] = source[c * column_stride + p];
}

template <class T>
void pack_panel(const T* source, ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t k, ptrdiff_t columns, T* out) {
    constexpr ptrdiff_t P = panel_width<T>;
    for (ptrdiff_t p = 0; p < k; ++p, source += row_stride, out += P) {
        if (column_stride == 1 && columns == P) {
            memcpy(out, source, P * sizeof(T));
        } else {
            for (ptrdiff_t c = 0; c < columns; ++c) out[c] = source[c * column_stride];
            for (ptrdiff_t c = columns; c < P; ++c) out[c] = T(0);
        }
    }
}

template <class T>
void pack(const T* source, ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t k, ptrdiff_t n, T* packed) {
    constexpr ptrdiff_t P = panel_width<T>;
    for (ptrdiff_t j = 0; j < n; j += P, packed += k * P) {
        const ptrdiff_t columns = n - j < P ? n - j : P;
        const T* first = source + j * column_stride;
        if (row_stride == 1 && columns == P) pack_transposed(first, column_stride, k, packed);
        else pack_panel(first, row_stride, column_stride, k, columns, packed);
    }
}

}  // namespace bptt::BPTT_VARIANT
