// Row reductions. The order of a row's additions depends on its width alone.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace bptt::BPTT_VARIANT {

struct Sum {
    template <class T>
    static BPTT_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return a + b; }
    template <class T>
    static BPTT_INLINE T join_one(T a, T b) { return a + b; }
    template <class T>
    static BPTT_INLINE T start() { return T(0); }
};

struct Maximum {
    template <class T>
    static BPTT_INLINE Vec<T> join(Vec<T> a, Vec<T> b) { return select<T>((a > b) | (a != a), a, b); }
    template <class T>
    static BPTT_INLINE T join_one(T a, T b) { return (a > b || a != a) ? a : b; }
    template <class T>
    static BPTT_INLINE T start() { return -T(infinity); }
};

template <class R, class T>
BPTT_INLINE T reduce_row(const T* x, ptrdiff_t width) {
    constexpr ptrdiff_t L = lanes<T>;
    Vec<T> acc[4];
    for (auto& v : acc) v = splat<T>(R::template start<T>());
    ptrdiff_t i = 0;
    for (; i + 4 * L <= width; i += 4 * L)
        for (int j = 0; j < 4; ++j) acc[j] = R::template join<T>(acc[j], load<T>(x + i + j * L));
    for (; i + L <= width; i += L) acc[0] = R::template join<T>(acc[0], load<T>(x + i));
    const Vec<T> all = R::template join<T>(R::template join<T>(acc[0], acc[1]), R::template join<T>(acc[2], acc[3]));
    T lane[L];
    store<T>(lane, all);
    T y = lane[0];
    for (int j = 1; j < L; ++j) y = R::template join_one<T>(y, lane[j]);
    for (; i < width; ++i) y = R::template join_one<T>(y, x[i]);
    return y;
}

// The sum of the products of two rows' elements.
template <class T>
BPTT_INLINE T dot_row(const T* x, const T* y, ptrdiff_t width) {
    constexpr ptrdiff_t L = lanes<T>;
    Vec<T> acc[4] = {};
    ptrdiff_t i = 0;
    for (; i + 4 * L <= width; i += 4 * L)
        for (int j = 0; j < 4; ++j) acc[j] = fma(load<T>(x + i + j * L), load<T>(y + i + j * L), acc[j]);
    for (; i + L <= width; i += L) acc[0] = fma(load<T>(x + i), load<T>(y + i), acc[0]);
    T sum = of_lanes<T>((acc[0] + acc[1]) + (acc[2] + acc[3]));
    for (; i < width; ++i) sum += x[i] * y[i];
    return sum;
}

template <class T>
void run_dot(const Call<T>& call) {
    for (ptrdiff_t r = 0; r < call.rows; ++r)
        call.dst[r * call.dst_stride] =
            dot_row<T>(call.a + r * call.a_stride, call.b + r * call.b_stride, call.width);
}

template <class R, class T>
void run_reduction(const Call<T>& call) {
    for (ptrdiff_t r = 0; r < call.rows; ++r)
        call.dst[r * call.dst_stride] = reduce_row<R, T>(call.a + r * call.a_stride, call.width);
}

}  // namespace bptt::BPTT_VARIANT
