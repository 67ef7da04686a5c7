// Vectors of one instruction set, so that one source serves SSE2, AVX2, AVX-512 and NEON: by the compiler's vector
// extensions (extensions.h), or with BPTT_PORTABLE in plain C++ (portable.h).
//
// Included only by what is compiled once per instruction set, inside a namespace named after it: what is compiled with AVX2
// flags must never be merged by the linker with a baseline function of the same name. For that reason no templates of the
// standard library are used in kernels/.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace bptt::BPTT_VARIANT {

// A number as a type; the standard library's is not to be instantiated here.
template <int N>
struct Count {
    static constexpr int value = N;
};

template <class T>
struct Types;  // V: a vector of T, I: of as many integers, as wide as T
template <class T>
using Vec = typename Types<T>::V;
template <class T>
using Int = typename Types<T>::I;
template <class T>
constexpr ptrdiff_t lanes = static_cast<ptrdiff_t>(sizeof(Vec<T>) / sizeof(T));

}  // namespace bptt::BPTT_VARIANT

#if defined(BPTT_PORTABLE)
#include "portable.h"
#else
#include "extensions.h"
#endif

namespace bptt::BPTT_VARIANT {

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

// First `count` lanes; the others are zero (load) or untouched (store). Memory beyond them is not touched.
#if !defined(BPTT_MASKED)
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
