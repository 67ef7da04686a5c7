// Vectors of one instruction set, by the compiler's vector extensions, so that one source serves SSE2, AVX2, AVX-512 and
// NEON.
//
// Included only by variant.cpp, inside a namespace named after the instruction set: what is compiled with AVX2 flags
// must never be merged by the linker with a baseline function of the same name. For that reason no templates of the
// standard library are used in kernels/.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__x86_64__)
#include <emmintrin.h>
#endif

#define BPTT_INLINE inline __attribute__((always_inline))

namespace bptt::BPTT_VARIANT {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int vector_registers = 32;
#else
constexpr int vector_registers = 16;
#endif

// A number as a type; the standard library's is not to be instantiated here.
template <int N>
struct Count {
    static constexpr int value = N;
};

template <class T>
struct Types;
template <>
struct Types<float> {
    typedef float V __attribute__((vector_size(vector_bytes)));
    typedef int32_t I __attribute__((vector_size(vector_bytes)));
    using Int = int32_t;
};
template <>
struct Types<double> {
    typedef double V __attribute__((vector_size(vector_bytes)));
    typedef int64_t I __attribute__((vector_size(vector_bytes)));
    using Int = int64_t;
};

template <class T>
using Vec = typename Types<T>::V;
template <class T>
using Int = typename Types<T>::I;
template <class T>
constexpr ptrdiff_t lanes = vector_bytes / static_cast<int>(sizeof(T));

template <class T>
BPTT_INLINE Vec<T> load(const T* p) {
    Vec<T> v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class T>
BPTT_INLINE void store(T* p, Vec<T> v) {
    memcpy(p, &v, sizeof v);
}
template <class T>
BPTT_INLINE Vec<T> splat(T x) {
    return x - Vec<T>{};
}

// Vectors one after the other.
template <class T, int V>
BPTT_INLINE void load_row(const T* p, Vec<T> (&v)[V]) {
#pragma GCC unroll 8
    for (int i = 0; i < V; ++i) v[i] = load<T>(p + i * lanes<T>);
}
template <class T, int V>
BPTT_INLINE void store_row(T* p, const Vec<T> (&v)[V]) {
#pragma GCC unroll 8
    for (int i = 0; i < V; ++i) store<T>(p + i * lanes<T>, v[i]);
}

// The compiler would rather read a vector from memory again for every use, of which there are too many.
template <class T>
BPTT_INLINE void keep_in_register(Vec<T>& v) {
#if defined(__AVX512F__)
    asm("" : "+v"(v));
#elif defined(__x86_64__)
    asm("" : "+x"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#endif
}

// First `count` lanes; the others are zero (load) or untouched (store). Memory beyond them is not touched.
#if defined(__AVX512F__)
BPTT_INLINE Vec<float> load_part_of(const float* p, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, p); }
BPTT_INLINE Vec<double> load_part_of(const double* p, __mmask16 mask) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), p);
}
BPTT_INLINE void store_part_of(float* p, Vec<float> v, __mmask16 mask) { _mm512_mask_storeu_ps(p, mask, v); }
BPTT_INLINE void store_part_of(double* p, Vec<double> v, __mmask16 mask) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), v);
}
BPTT_INLINE __mmask16 first_lanes(ptrdiff_t count) { return static_cast<__mmask16>((1u << count) - 1); }
template <class T>
BPTT_INLINE Vec<T> load_part(const T* p, ptrdiff_t count) {
    return load_part_of(p, first_lanes(count));
}
template <class T>
BPTT_INLINE void store_part(T* p, Vec<T> v, ptrdiff_t count) {
    store_part_of(p, v, first_lanes(count));
}
#else
template <class T>
BPTT_INLINE Vec<T> load_part(const T* p, ptrdiff_t count) {
    T lane[lanes<T>] = {};
    for (ptrdiff_t i = 0; i < count; ++i) lane[i] = p[i];
    return load(lane);
}
template <class T>
BPTT_INLINE void store_part(T* p, Vec<T> v, ptrdiff_t count) {
    T lane[lanes<T>];
    store(lane, v);
    for (ptrdiff_t i = 0; i < count; ++i) p[i] = lane[i];
}
#endif

// The sum of a vector's elements, by halves.
template <class T>
BPTT_INLINE T of_lanes(Vec<T> x) {
    T lane[lanes<T>];
    store<T>(lane, x);
#pragma GCC unroll 4
    for (ptrdiff_t half = lanes<T> / 2; half > 0; half /= 2)
#pragma GCC unroll 4
        for (ptrdiff_t j = 0; j < half; ++j) lane[j] += lane[j + half];
    return lane[0];
}

// a*b + c: one rounding where the instruction set has it, two in the SSE2 baseline.
BPTT_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
    return (Vec<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}
BPTT_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_pd(a, b, c);
#elif defined(__aarch64__)
    return (Vec<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
}

BPTT_INLINE Vec<float> square_root(Vec<float> x) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(x);
#elif defined(__aarch64__)
    return (Vec<float>)vsqrtq_f32((float32x4_t)x);
#elif defined(__x86_64__)
    return _mm_sqrt_ps(x);
#else
    for (int i = 0; i < lanes<float>; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
}
BPTT_INLINE Vec<double> square_root(Vec<double> x) {
#if defined(__AVX512F__)
    return _mm512_sqrt_pd(x);
#elif defined(__AVX2__)
    return _mm256_sqrt_pd(x);
#elif defined(__aarch64__)
    return (Vec<double>)vsqrtq_f64((float64x2_t)x);
#elif defined(__x86_64__)
    return _mm_sqrt_pd(x);
#else
    for (int i = 0; i < lanes<double>; ++i) x[i] = __builtin_sqrt(x[i]);
    return x;
#endif
}

// mask (all ones or all zeros per lane) ? a : b.
template <class T>
BPTT_INLINE Vec<T> select(Int<T> mask, Vec<T> a, Vec<T> b) {
    return mask ? a : b;
}
template <class T>
BPTT_INLINE Vec<T> one_where(Int<T> mask) {
    return (Vec<T>)(mask & (Int<T>)splat<T>(1));
}
template <class T>
BPTT_INLINE Vec<T> magnitude(Vec<T> x) {
    return (Vec<T>)((Int<T>)x & ~(Int<T>)splat<T>(T(-0.0)));
}
template <class T>
BPTT_INLINE Vec<T> with_sign_of(Vec<T> size, Vec<T> sign) {
    return (Vec<T>)((Int<T>)size | ((Int<T>)sign & (Int<T>)splat<T>(T(-0.0))));
}

}  // namespace bptt::BPTT_VARIANT
