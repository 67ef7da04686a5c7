// Small products on weights that change at every update.
#pragma once

#include "online.h"
#include "reduce.h"

namespace bptt::BPTT_VARIANT {

// R rows by V vectors, k in C independent chains: one chain alone waits for its own multiply-adds.
template <class T, int R, int V, int C>
BPTT_INLINE void product_block(const Product<T>& x, ptrdiff_t last) {
    constexpr ptrdiff_t L = lanes<T>;
    Vec<T> sum[C][R][V];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[c][r][v] = Vec<T>{};
    const T* m = x.m;
    const T* a = x.a;
    ptrdiff_t p = 0;
    for (; p + C <= x.k; p += C) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            Vec<T> b[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) b[v] = load<T>(m + (v / 2) * x.panel_step + (v % 2) * L);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const Vec<T> s = splat<T>(a[r * x.a_stride]);
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) sum[c][r][v] = fma(s, b[v], sum[c][r][v]);
            }
            m += x.row_step;
            ++a;
        }
    }
    for (; p < x.k; ++p, m += x.row_step, ++a)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            const Vec<T> b = load<T>(m + (v / 2) * x.panel_step + (v % 2) * L);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[0][r][v] = fma(splat<T>(a[r * x.a_stride]), b, sum[0][r][v]);
        }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            Vec<T> y = sum[0][r][v];
            if constexpr (C == 2) y = y + sum[1][r][v];
            if constexpr (C == 4) y = (y + sum[1][r][v]) + (sum[2][r][v] + sum[3][r][v]);
            T* dst = x.dst + r * x.dst_stride + v * L;
            const T* init = x.init == nullptr ? nullptr : x.init + r * x.init_stride + v * L;
            if (v + 1 < V || last == L) {
                if (init != nullptr) y = y + load<T>(init);
                store<T>(dst, y);
            } else {
                if (init != nullptr) y = y + load_part<T>(init, last);
                store_part<T>(dst, y, last);
            }
        }
}

template <class T, int R, int V, int C>
BPTT_NOINLINE void product_of(const Product<T>& x, ptrdiff_t last) {
    product_block<T, R, V, C>(x, last);
}

template <class T, int R>
BPTT_INLINE void product_rows(Product<T> x) {
    constexpr ptrdiff_t L = lanes<T>;
    constexpr int most = R == 1 ? 8 : R <= 3 ? 4 : 2;
    while (x.n > 0) {
        const ptrdiff_t vectors = (x.n + L - 1) / L;
        const auto rest = [&](int v) { return v * L <= x.n ? L : x.n - (v - 1) * L; };
        int taken;
        if (most == 8 && vectors >= 8) taken = 8, product_of<T, R, most == 8 ? 8 : 1, 1>(x, rest(8));
        else if (most >= 4 && vectors >= 4) taken = 4, product_of<T, R, most >= 4 ? 4 : 1, R == 1 ? 2 : 1>(x, rest(4));
        else if (vectors >= 2) taken = 2, product_of<T, R, 2, R == 1 ? 4 : R == 2 ? 2 : 1>(x, rest(2));
        else taken = 1, product_of<T, R, 1, R == 1 ? 4 : R <= 3 ? 2 : 1>(x, rest(1));
        x.n -= taken * L;
        x.m += (taken / 2) * x.panel_step + (taken % 2) * L;
        x.dst += taken * L;
        if (x.init != nullptr) x.init += taken * L;
    }
}

template <class T>
void product(const Product<T>& call) {
    Product<T> x = call;
    while (x.rows > 0) {
        const ptrdiff_t r = x.rows > 8 || x.rows == 6 ? 6 : x.rows >= 7 ? 4 : x.rows == 5 ? 3 : x.rows;
        switch (r) {
            case 1: product_rows<T, 1>(x); break;
            case 2: product_rows<T, 2>(x); break;
            case 3: product_rows<T, 3>(x); break;
            case 4: product_rows<T, 4>(x); break;
            default: product_rows<T, 6>(x);
        }
        x.rows -= r;
        x.dst += r * x.dst_stride;
        x.a += r * x.a_stride;
        if (x.init != nullptr) x.init += r * x.init_stride;
    }
}

// Where m lies, and how many rows it has; a type of the same members may know them beforehand.
struct Extent {
    ptrdiff_t row_step, panel_step, k;
};

// y += a @ m, one row and V vectors, k in C chains. The first chain begins with what is there: known long before.
template <class T, int V, int C, class Where>
BPTT_INLINE void multiply_row(const T* a, const T* m, Where where, Vec<T> (&y)[V]) {
    constexpr ptrdiff_t L = lanes<T>;
    Vec<T> sum[C][V] = {};
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[0][v] = y[v];
    const auto row = [&](int c) {
        const Vec<T> s = splat<T>(a[c]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
            sum[c][v] = fma(s, load<T>(m + c * where.row_step + (v / 2) * where.panel_step + (v % 2) * L), sum[c][v]);
    };
    const T* const end = a + where.k;
    for (; end - a >= C; a += C, m += C * where.row_step)
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) row(c);
    for (; a < end; ++a, m += where.row_step) row(0);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
        y[v] = sum[0][v];
        if constexpr (C == 2) y[v] = y[v] + sum[1][v];
        if constexpr (C == 4) y[v] = (y[v] + sum[1][v]) + (sum[2][v] + sum[3][v]);
    }
}

// So many chains that with V vectors each they keep the multiply-adds busy.
template <int V>
constexpr int chains = V >= 8 ? 1 : V == 4 ? 2 : 4;

template <class T, int V>
void product_exact(const Product<T>& x) {
    Vec<T> y[V] = {};
    if (x.init != nullptr) load_row<T, V>(x.init, y);
    multiply_row<T, V, chains<V>>(x.a, x.m, Extent{x.row_step, x.panel_step, x.k}, y);
    store_row<T, V>(x.dst, y);
}

template <class T>
void dots(const Product<T>& x) {
    for (ptrdiff_t r = 0; r < x.rows; ++r)
        for (ptrdiff_t j = 0; j < x.n; ++j) {
            const T start = x.init == nullptr ? T(0) : x.init[r * x.init_stride + j];
            x.dst[r * x.dst_stride + j] = start + dot_row<T>(x.a + r * x.a_stride, x.m + j * x.panel_step, x.k);
        }
}

// K columns by K rows, a whole number of vectors; y += a @ m in order, so that it does not matter where it is done.
template <class T, int K>
BPTT_INLINE Vec<T> multiply_few(const T* a, const Vec<T> (&m)[K], Vec<T> y) {
#pragma GCC unroll 4
    for (int p = 0; p < K; ++p) y = fma(splat<T>(a[p]), m[p], y);
    return y;
}
template <class T, int K>
void product_few(const Product<T>& call) {
    constexpr ptrdiff_t L = lanes<T>;
    const Product<T> x = call;  // a store may change what lies in memory
    for (ptrdiff_t v = 0; v * L < x.n; ++v) {
        Vec<T> m[K];
#pragma GCC unroll 4
        for (int p = 0; p < K; ++p) m[p] = load<T>(x.m + p * x.row_step + (v / 2) * x.panel_step + (v % 2) * L);
        const T* a = x.a;
        T* dst = x.dst + v * L;
        T* const end = dst + x.rows * x.dst_stride;
        if (x.init == nullptr) {
            for (; dst < end; dst += x.dst_stride, a += x.a_stride) store<T>(dst, multiply_few<T, K>(a, m, Vec<T>{}));
        } else {
            const T* init = x.init + v * L;
            for (; dst < end; dst += x.dst_stride, a += x.a_stride, init += x.init_stride)
                store<T>(dst, multiply_few<T, K>(a, m, load<T>(init)));
        }
    }
}

template <class T>
ProductKernel<T> product_for(ptrdiff_t rows, ptrdiff_t k, ptrdiff_t n) {
    if (n % lanes<T> == 0) {
        if (k == 1) return product_few<T, 1>;
        if (k == 2) return product_few<T, 2>;
        if (k == 3) return product_few<T, 3>;
        if (k == 4) return product_few<T, 4>;
    }
    if (rows == 1 && n == lanes<T>) return product_exact<T, 1>;
    if (rows == 1 && n == 2 * lanes<T>) return product_exact<T, 2>;
    if (rows == 1 && n == 4 * lanes<T>) return product_exact<T, 4>;
    if (rows == 1 && n == 8 * lanes<T>) return product_exact<T, 8>;
    return product<T>;
}

}  // namespace bptt::BPTT_VARIANT
