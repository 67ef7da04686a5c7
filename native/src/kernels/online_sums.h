// Sums over the rows of a window: the gradients of the weights.
#pragma once

#include "online.h"
#include "simd.h"

namespace bptt::BPTT_VARIANT {

template <class T>
BPTT_INLINE void put(T* dst, Vec<T> y, ptrdiff_t count, bool accumulate) {
    if (count >= lanes<T>) {
        store<T>(dst, accumulate ? load<T>(dst) + y : y);
    } else {
        store_part<T>(dst, accumulate ? load_part<T>(dst, count) + y : y, count);
    }
}

// What becomes of sums: they are kept, or the weights go down by them and their squares are summed in four places.
struct Keeping {
    static constexpr bool sums_squares = false;
    template <class T>
    static BPTT_INLINE void use(bool accumulate, Vec<T>, T* dst, Vec<T> y, ptrdiff_t count, Vec<T>&) {
        put<T>(dst, y, count, accumulate);
    }
};
struct Descending {
    static constexpr bool sums_squares = true;
    template <class T>
    static BPTT_INLINE void use(bool, Vec<T> step, T* dst, Vec<T> y, ptrdiff_t count, Vec<T>& squares) {
        if (count >= lanes<T>) {
            squares = fma(y, y, squares);
            store<T>(dst, load<T>(dst) - step * y);
        } else {
            T lane[lanes<T>];
            store<T>(lane, y);
            const Vec<T> part = load_part<T>(lane, count);
            squares = fma(part, part, squares);
            store_part<T>(dst, load_part<T>(dst, count) - step * part, count);
        }
    }
};

// `squares`: four vectors.
template <class T, int M, int V, class Then>
BPTT_NOINLINE void cross_block(const Cross<T>& x, const T* a, const T* b, T* dst, ptrdiff_t last, T* squares) {
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
    const Vec<T> factor = splat<T>(x.factor), step = splat<T>(x.step);
    const bool accumulate = x.accumulate;
    Vec<T> square[4] = {};
    if constexpr (Then::sums_squares) load_row<T, 4>(squares, square);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i, dst += dst_stride)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
            Then::template use<T>(accumulate, step, dst + v * L, sum[i][v] * factor, v + 1 < V ? L : last,
                                  square[(i * V + v) % 4]);
    if constexpr (Then::sums_squares) store_row<T, 4>(squares, square);
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
double cross_columns(const Cross<T>& x) {
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
    return 0;
}

// As many sums at a time as the registers hold beside what they are made of; fours rather than a six and a two, which
// would wait for each other.
template <class T, int V, class Then>
BPTT_INLINE void cross_strip(const Cross<T>& x, const T* b, T* dst, ptrdiff_t last, T* squares) {
    constexpr int most = V == 1 ? 8 : 6;
    const ptrdiff_t row = x.dst_stride;
    const T* a = x.a;
    ptrdiff_t m = x.m;
    for (; m >= most && (V == 1 || m != 8); m -= most, a += most, dst += most * row)
        cross_block<T, most, V, Then>(x, a, b, dst, last, squares);
    for (; m >= 4; m -= 4, a += 4, dst += 4 * row) cross_block<T, 4, V, Then>(x, a, b, dst, last, squares);
    for (; m >= 2; m -= 2, a += 2, dst += 2 * row) cross_block<T, 2, V, Then>(x, a, b, dst, last, squares);
    if (m == 1) cross_block<T, 1, V, Then>(x, a, b, dst, last, squares);
}

template <class T, class Then>
double cross_strips(const Cross<T>& x) {
    constexpr ptrdiff_t L = lanes<T>;
    T squares[4 * L] = {};
    ptrdiff_t j = 0;
    for (; x.n - j > L; j += 2 * L) {
        const ptrdiff_t rest = x.n - j - L;
        cross_strip<T, 2, Then>(x, x.b + j, x.dst + j, rest < L ? rest : L, squares);
    }
    if (j < x.n) cross_strip<T, 1, Then>(x, x.b + j, x.dst + j, x.n - j, squares);
    Vec<T> square[4];
    load_row<T, 4>(squares, square);
    return static_cast<double>(of_lanes<T>((square[0] + square[1]) + (square[2] + square[3])));
}

template <class T>
CrossKernel<T> cross_for(bool ones, ptrdiff_t n) {
    return ones || n <= 2 ? cross_columns<T> : cross_strips<T, Keeping>;
}

}  // namespace bptt::BPTT_VARIANT
