// Packing of a matrix [k, n] for the product: panels of two vectors of columns, each panel [k][two vectors], the last
// one padded with zeros. Done once a run, so a transposed source deserves care only for short runs: it goes by small
// blocks, transposed in registers.
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

// Steps that are transposed at once: 16 bytes.
template <class T>
constexpr ptrdiff_t block = 16 / static_cast<ptrdiff_t>(sizeof(T));

// out[p][c] = in[c][p] for `block` p and a vector of c; rows `step` apart in, `out_step` out.
#if defined(BPTT_PORTABLE)
template <class T>
BPTT_INLINE void transpose(const T* in, ptrdiff_t step, T* out, ptrdiff_t out_step) {
    for (ptrdiff_t p = 0; p < block<T>; ++p)
        for (ptrdiff_t c = 0; c < lanes<T>; ++c) out[p * out_step + c] = in[c * step + p];
}
#elif defined(__AVX512F__)
// Rows 0, 4, 8, 12 (of doubles 0, 2, 4, 6) below `in`, a quarter of a vector each.
BPTT_INLINE Vec<float> four_quarters(const float* in, ptrdiff_t step) {
    const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(in)), _mm_loadu_ps(in + 4 * step), 1);
    const __m256 high =
        _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(in + 8 * step)), _mm_loadu_ps(in + 12 * step), 1);
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}
BPTT_INLINE Vec<double> four_quarters(const double* in, ptrdiff_t step) {
    const __m256d low = _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(in)), _mm_loadu_pd(in + 2 * step), 1);
    const __m256d high =
        _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(in + 4 * step)), _mm_loadu_pd(in + 6 * step), 1);
    return _mm512_insertf64x4(_mm512_castpd256_pd512(low), high, 1);
}
BPTT_INLINE void transpose(const float* in, ptrdiff_t step, float* out, ptrdiff_t out_step) {
    Vec<float> r[4];
    for (int i = 0; i < 4; ++i) r[i] = four_quarters(in + i * step, step);
    const Vec<float> a = _mm512_unpacklo_ps(r[0], r[1]), b = _mm512_unpackhi_ps(r[0], r[1]);
    const Vec<float> c = _mm512_unpacklo_ps(r[2], r[3]), d = _mm512_unpackhi_ps(r[2], r[3]);
    store<float>(out, _mm512_shuffle_ps(a, c, 0x44));
    store<float>(out + out_step, _mm512_shuffle_ps(a, c, 0xee));
    store<float>(out + 2 * out_step, _mm512_shuffle_ps(b, d, 0x44));
    store<float>(out + 3 * out_step, _mm512_shuffle_ps(b, d, 0xee));
}
BPTT_INLINE void transpose(const double* in, ptrdiff_t step, double* out, ptrdiff_t out_step) {
    const Vec<double> a = four_quarters(in, step), b = four_quarters(in + step, step);
    store<double>(out, _mm512_unpacklo_pd(a, b));
    store<double>(out + out_step, _mm512_unpackhi_pd(a, b));
}
#elif defined(__AVX2__)
BPTT_INLINE Vec<float> two_halves(const float* low, const float* high) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
}
BPTT_INLINE Vec<double> two_halves(const double* low, const double* high) {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(low)), _mm_loadu_pd(high), 1);
}
BPTT_INLINE void transpose(const float* in, ptrdiff_t step, float* out, ptrdiff_t out_step) {
    Vec<float> r[4];
    for (int i = 0; i < 4; ++i) r[i] = two_halves(in + i * step, in + (i + 4) * step);
    const Vec<float> a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    const Vec<float> c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
    store<float>(out, _mm256_shuffle_ps(a, c, 0x44));
    store<float>(out + out_step, _mm256_shuffle_ps(a, c, 0xee));
    store<float>(out + 2 * out_step, _mm256_shuffle_ps(b, d, 0x44));
    store<float>(out + 3 * out_step, _mm256_shuffle_ps(b, d, 0xee));
}
BPTT_INLINE void transpose(const double* in, ptrdiff_t step, double* out, ptrdiff_t out_step) {
    const Vec<double> a = two_halves(in, in + 2 * step), b = two_halves(in + step, in + 3 * step);
    store<double>(out, _mm256_unpacklo_pd(a, b));
    store<double>(out + out_step, _mm256_unpackhi_pd(a, b));
}
#else
BPTT_INLINE void transpose(const float* in, ptrdiff_t step, float* out, ptrdiff_t out_step) {
    Vec<float> r[4];
    for (int i = 0; i < 4; ++i) r[i] = load<float>(in + i * step);
    const Vec<float> a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), b = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
    const Vec<float> c = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7), d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    store<float>(out, __builtin_shufflevector(a, b, 0, 1, 4, 5));
    store<float>(out + out_step, __builtin_shufflevector(a, b, 2, 3, 6, 7));
    store<float>(out + 2 * out_step, __builtin_shufflevector(c, d, 0, 1, 4, 5));
    store<float>(out + 3 * out_step, __builtin_shufflevector(c, d, 2, 3, 6, 7));
}
BPTT_INLINE void transpose(const double* in, ptrdiff_t step, double* out, ptrdiff_t out_step) {
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) out[i * out_step + j] = in[j * step + i];
}
#endif

// Columns of the source are contiguous: k steps of `width` columns, whole vectors.
template <class T>
BPTT_INLINE void pack_transposed(const T* source, ptrdiff_t column_stride, ptrdiff_t k, ptrdiff_t width, T* out) {
    ptrdiff_t p = 0;
    for (; p + block<T> <= k; p += block<T>)
        for (ptrdiff_t c = 0; c < width; c += lanes<T>)
            transpose(source + c * column_stride + p, column_stride, out + p * width + c, width);
    for (; p < k; ++p)
        for (ptrdiff_t c = 0; c < width; ++c) out[p * width + c] = source[c * column_stride + p];
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
        if (row_stride == 1 && columns == P) pack_transposed(first, column_stride, k, P, packed);
        else pack_panel(first, row_stride, column_stride, k, columns, packed);
    }
}

}  // namespace bptt::BPTT_VARIANT
