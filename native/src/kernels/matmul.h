// Product of a few rows with a packed matrix: dst = init + a @ M.
//
// The matrix comes in panels (pack.h), so that the inner loop reads one stream. Micro-kernels hold R rows x N panels of the result in registers (at most 12 accumulators, as in
// BLIS's 6 x 16 kernel for Zen) and walk k. Each element is one chain of multiply-adds over k in order, whatever the
// block it falls in: a row's result does not depend on its neighbours. Few rows take more panels at a time, for the
// latency of a chain. The k range is blocked so that a panel's block stays in L1 while all rows pass; partial sums go
// through dst, which is exact. Panels may be visited in either order: the caller alternates from step to step, so that
// what the last step left in cache is met first.
#pragma once

#include "pack.h"

namespace bptt::BPTT_VARIANT {

template <class T>
constexpr ptrdiff_t depth_block = 1024 / static_cast<ptrdiff_t>(sizeof(T));
constexpr ptrdiff_t most_rows = 6;

// What a micro-kernel works on: R rows from `a`, k steps of N panels that lie `panel_step` apart.
template <class T>
struct Block {
    const T* a;
    ptrdiff_t a_stride;
    const T* panel;
    ptrdiff_t panel_step, depth;
    const T* init;
    ptrdiff_t init_stride;
    T* dst;
    ptrdiff_t dst_stride;
};

template <class T, int R, int N>
BPTT_INLINE void micro_kernel(const Block<T>& x) {
    constexpr ptrdiff_t L = lanes<T>, P = panel_width<T>;
    Vec<T> sum[R][2 * N];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 12
        for (int v = 0; v < 2 * N; ++v)
            sum[r][v] = x.init ? load<T>(x.init + r * x.init_stride + v * L) : Vec<T>{};
    const T* panel = x.panel;
    const T* a = x.a;
#pragma GCC unroll 2
    for (ptrdiff_t p = 0; p < x.depth; ++p) {
        Vec<T> b[2 * N];
#pragma GCC unroll 12
        for (int v = 0; v < 2 * N; ++v) b[v] = load<T>(panel + (v / 2) * x.panel_step + (v % 2) * L);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            const Vec<T> s = splat<T>(a[r * x.a_stride]);
#pragma GCC unroll 12
            for (int v = 0; v < 2 * N; ++v) sum[r][v] = fma(s, b[v], sum[r][v]);
        }
        panel += P;
        ++a;
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 12
        for (int v = 0; v < 2 * N; ++v) store<T>(x.dst + r * x.dst_stride + v * L, sum[r][v]);
}

// The last, partly filled panel: through a full-width copy.
template <class T, int R>
__attribute__((noinline)) void edge_kernel(const Block<T>& x, ptrdiff_t columns) {
    constexpr ptrdiff_t P = panel_width<T>;
    T tile[R * P] = {};
    if (x.init)
        for (int r = 0; r < R; ++r)
            for (ptrdiff_t c = 0; c < columns; ++c) tile[r * P + c] = x.init[r * x.init_stride + c];
    Block<T> full = x;
    full.init = full.dst = tile;
    full.init_stride = full.dst_stride = P;
    micro_kernel<T, R, 1>(full);
    for (int r = 0; r < R; ++r)
        for (ptrdiff_t c = 0; c < columns; ++c) x.dst[r * x.dst_stride + c] = tile[r * P + c];
}

template <class T, int R, int N>
__attribute__((noinline)) void full_kernel(const Block<T>& x) {
    micro_kernel<T, R, N>(x);
}

// N panels (or one partly filled) for R rows.
template <class T, int R, int N>
BPTT_INLINE void kernel(const Block<T>& x, ptrdiff_t columns) {
    constexpr ptrdiff_t P = panel_width<T>;
    if (columns >= N * P) return full_kernel<T, R, N>(x);
    Block<T> part = x;
    for (; columns > 0; columns -= P) {
        if (columns >= P) full_kernel<T, R, 1>(part);
        else edge_kernel<T, R>(part, columns);
        part.panel += part.panel_step;
        part.dst += P;
        if (part.init) part.init += P;
    }
}

constexpr int panels_for(ptrdiff_t rows) { return rows == 1 ? 4 : rows == 2 ? 3 : rows == 3 ? 2 : 1; }

template <class T>
BPTT_INLINE void kernel_for(ptrdiff_t rows, const Block<T>& x, ptrdiff_t columns) {
    switch (rows) {
        case 1: return kernel<T, 1, panels_for(1)>(x, columns);
        case 2: return kernel<T, 2, panels_for(2)>(x, columns);
        case 3: return kernel<T, 3, panels_for(3)>(x, columns);
        case 4: return kernel<T, 4, panels_for(4)>(x, columns);
        case 5: return kernel<T, 5, panels_for(5)>(x, columns);
        default: return kernel<T, 6, panels_for(6)>(x, columns);
    }
}

// The rows of init and dst lie far apart, where no prefetcher of the hardware looks: the lines of the next group of
// columns are asked for while this one is worked on.
template <class T>
BPTT_INLINE void prefetch_next(const Block<T>& x, ptrdiff_t rows, ptrdiff_t columns) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        __builtin_prefetch(x.dst + r * x.dst_stride + columns, 1);
        if (x.init) __builtin_prefetch(x.init + r * x.init_stride + columns);
    }
}

// All rows over one block of k and one group of columns.
template <class T>
BPTT_INLINE void all_rows(Block<T> x, ptrdiff_t rows, ptrdiff_t blocks, ptrdiff_t columns,
                          ptrdiff_t ahead) {
    for (; blocks > 0; --blocks) {
        const ptrdiff_t r = (rows + blocks - 1) / blocks;  // as even as can be: no row left alone
        prefetch_next(x, r, ahead);
        kernel_for<T>(r, x, columns);
        x.a += r * x.a_stride;
        x.dst += r * x.dst_stride;
        if (x.init) x.init += r * x.init_stride;
        rows -= r;
    }
}

// One row, all of k at once, nothing asked for ahead: what is left of the loops below.
template <class T>
void run_row(const Call<T>& call) {
    constexpr ptrdiff_t P = panel_width<T>, group = P * panels_for(1);
    const ptrdiff_t groups = (call.width + group - 1) / group;
    Block<T> x{call.a, 0, nullptr, call.depth * P, call.depth, nullptr, 0, nullptr, 0};
    for (ptrdiff_t i = 0; i < groups; ++i) {
        const ptrdiff_t j = group * (call.descending ? groups - 1 - i : i);
        x.panel = call.packed + j * call.depth;
        x.init = call.b ? call.b + j : nullptr;
        x.dst = call.dst + j;
        kernel<T, 1, panels_for(1)>(x, call.width - j);
    }
}

template <class T>
void run_matmul(const Call<T>& call) {
    if (call.rows == 1) return run_row<T>(call);
    constexpr ptrdiff_t P = panel_width<T>;
    const ptrdiff_t blocks = (call.rows + most_rows - 1) / most_rows;
    const ptrdiff_t group = P * panels_for((call.rows + blocks - 1) / blocks);
    const ptrdiff_t groups = (call.width + group - 1) / group;
    const ptrdiff_t step = blocks == 1 ? (call.depth > 0 ? call.depth : 1) : depth_block<T>;
    Block<T> x{call.a, call.a_stride, call.packed, call.depth * P, 0, call.b, call.b_stride, call.dst, call.dst_stride};
    ptrdiff_t p = 0;
    do {  // once even for depth 0: dst = init
        x.depth = call.depth - p < step ? call.depth - p : step;
        for (ptrdiff_t i = 0; i < groups; ++i) {
            const ptrdiff_t j = group * (call.descending ? groups - 1 - i : i);
            Block<T> y = x;
            y.panel = call.packed + j * call.depth + p * P;
            y.dst += j;
            if (y.init) y.init += j;
            const ptrdiff_t columns = call.width - j < group ? call.width - j : group;
            all_rows<T>(y, call.rows, blocks, columns, call.descending ? -group : group);
        }
        x.a += step;
        x.init = call.dst;
        x.init_stride = call.dst_stride;
        p += step;
    } while (p < call.depth);
}

}  // namespace bptt::BPTT_VARIANT
