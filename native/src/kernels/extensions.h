// Vectors by the extensions of GCC and Clang; see simd.h.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__x86_64__)
#include <emmintrin.h>
#endif

#define BPTT_INLINE inline __attribute__((always_inline))
#define BPTT_NOINLINE __attribute__((noinline))

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

template <>
struct Types<float> {
    typedef float V __attribute__((vector_size(vector_bytes)));
    typedef int32_t I __attribute__((vector_size(vector_bytes)));
};
template <>
struct Types<double> {
    typedef double V __attribute__((vector_size(vector_bytes)));
    typedef int64_t I __attribute__((vector_size(vector_bytes)));
};

constexpr double infinity = __builtin_inf(), not_a_number = __builtin_nan("");
BPTT_INLINE double root(double x) { return __builtin_sqrt(x); }
BPTT_INLINE float power(float a, float b) { return __builtin_powf(a, b); }
BPTT_INLINE double power(double a, double b) { return __builtin_pow(a, b); }
BPTT_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
BPTT_INLINE void prefetch_to_write(void* p) { __builtin_prefetch(p, 1); }

template <class T>
BPTT_INLINE Vec<T> splat(T x) {
    return x - Vec<T>{};
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

// Integers as floating-point numbers.
template <class T>
BPTT_INLINE Vec<T> numbers(Int<T> x) {
    return __builtin_convertvector(x, Vec<T>);
}

// mask (all ones or all zeros per lane) ? a : b.
template <class T>
BPTT_INLINE Vec<T> select(Int<T> mask, Vec<T> a, Vec<T> b) {
    return mask ? a : b;
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


#if defined(__AVX512F__)
#define BPTT_MASKED  // loads and stores of a part of a vector, in place of those of simd.h
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
#endif

}  // namespace bptt::BPTT_VARIANT
