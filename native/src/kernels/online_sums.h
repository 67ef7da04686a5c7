// Sums over the rows of a window: the gradients of the weights.
#pragma once

#include "online.h"
#include "simd.h"

namespace bptt::BPTT_VARIANT {

// A number as a type; the standard library's is not to be instantiated here.
template <int N>
struct Count {
    static constexpr int value = N;
};

template <class T>
BPTT_INLINE void put(T* dst, Vec<T> y, ptrdiff_t count, bool accumulate) {
    if (count >= lanes<T>) {
        store<T>(dst, accumulate ? load<T>(dst) + y : y);
    } else {
        store_part<T>(dst, accumulate ? load_part<T>(dst, count) + y : y, count);
    }
}

template <class T, int M, int V>
__attribute__((noinline)) void cross_block(const Cross<T>& x, const T* a, const T* b, T* dst, ptrdiff_t last) {
    constexpr ptrdiff_t L = lanes<T>;
    Vec<T> sum[M][V];
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[i][v] = Vec<T>{};
    const ptrdiff_t a_stride = x.a_stride, b_stride = x.b_stride, dst_stride = x.dst_stride;
    for (ptrdiff_t r = x.rows; r > 0; --r, a += a_stride, b += b_stride) {
        Vec<T> row[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            row[v] = load<T>(b + v * L);
            keep_in_register<T>(row[v]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i) {
            const Vec<T> s = splat<T>(a[i]);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[i][v] = fma(s, row[v], sum[i][v]);
        }
    }
    const Vec<T> factor = splat<T>(x.factor);
    const bool accumulate = x.accumulate;
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i, dst += dst_stride)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) put<T>(dst + v * L, sum[i][v] * factor, v + 1 < V ? L : last, accumulate);
}

// V vectors down a's columns, times one column of b (null: of ones); `last` elements of the last vector count.
template <class T, int V>
BPTT_INLINE void cross_column(const Cross<T>& x, const T* a, const T* b, T* dst, ptrdiff_t last) {
    constexpr ptrdiff_t L = lanes<T>;
    Vec<T> sum[V] = {};
    for (ptrdiff_t r = 0; r < x.rows; ++r, a += x.a_stride) {
        const Vec<T> s = b == nullptr ? splat<T>(1) : splat<T>(b[r * x.b_stride]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[v] = fma(s, load<T>(a + v * L), sum[v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
        const ptrdiff_t count = v + 1 < V ? L : last;
        const Vec<T> y = sum[v] * splat<T>(x.factor);
        if (x.dst_stride == 1) {
            put<T>(dst + v * L, y, count, x.accumulate);
            continue;
        }
        T lane[L];
        store<T>(lane, y);
        for (ptrdiff_t c = 0; c < count; ++c) {
            T& to = dst[(v * L + c) * x.dst_stride];
            to = x.accumulate ? to + lane[c] : lane[c];
        }
    }
}

// For results of one or two columns.
template <class T>
void cross_columns(const Cross<T>& x) {
    constexpr ptrdiff_t L = lanes<T>;
    for (ptrdiff_t j = 0; j < x.n; ++j) {
        const T* b = x.b == nullptr ? nullptr : x.b + j;
        ptrdiff_t i = 0;
        const auto next = [&](auto vectors, ptrdiff_t last) {
            constexpr int V = decltype(vectors)::value;
            cross_column<T, V>(x, x.a + i, b, x.dst + i * x.dst_stride + j, last);
            i += V * L;
        };
        while (x.m - i >= 4 * L) next(Count<4>{}, L);
        if (x.m - i >= 2 * L) next(Count<2>{}, L);
        while (x.m > i) next(Count<1>{}, x.m - i < L ? x.m - i : L);
    }
}

// As many sums at a time as the registers hold beside what they are made of; fours rather than a six and a two, which
// would wait for each other.
template <class T, int V>
BPTT_INLINE void cross_strip(const Cross<T>& x, const T* b, T* dst, ptrdiff_t last) {
    constexpr int most = V == 1 ? 8 : 6;
    const ptrdiff_t row = x.dst_stride;
    const T* a = x.a;
    ptrdiff_t m = x.m;
    for (; m >= most && (V == 1 || m != 8); m -= most, a += most, dst += most * row)
        cross_block<T, most, V>(x, a, b, dst, last);
    for (; m >= 4; m -= 4, a += 4, dst += 4 * row) cross_block<T, 4, V>(x, a, b, dst, last);
    for (; m >= 2; m -= 2, a += 2, dst += 2 * row) cross_block<T, 2, V>(x, a, b, dst, last);
    if (m == 1) cross_block<T, 1, V>(x, a, b, dst, last);
}

template <class T>
void cross_strips(const Cross<T>& x) {
    constexpr ptrdiff_t L = lanes<T>;
    ptrdiff_t j = 0;
    for (; x.n - j > L; j += 2 * L) {
        const ptrdiff_t rest = x.n - j - L;
        cross_strip<T, 2>(x, x.b + j, x.dst + j, rest < L ? rest : L);
    }
    if (j < x.n) cross_strip<T, 1>(x, x.b + j, x.dst + j, x.n - j);
}

template <class T>
CrossKernel<T> cross_for(bool ones, ptrdiff_t n) {
    return ones || n <= 2 ? cross_columns<T> : cross_strips<T>;
}

}  // namespace bptt::BPTT_VARIANT
