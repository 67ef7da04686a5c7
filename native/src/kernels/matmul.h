// Product of a few rows with a packed matrix: dst = init + a @ M.
//
// The matrix comes in panels (pack.h), so that the inner loop reads one stream. Micro-kernels hold R rows x N panels of
// the result in registers and walk k: at most 12 accumulators of the 16 registers of AVX2 (as in BLIS's 6 x 16 kernel for
// Zen), 24 of the 32 of AVX-512. Few rows take more panels at a time, for the latency of a chain. Each element is one
// chain of multiply-adds over k in order, or two where the result is narrow, whatever the block it falls in: a row's
// result does not depend on its neighbours. The k range is blocked so that a panel's block stays in L1 while all rows
// pass; partial sums go through dst, which is exact. Panels may be visited in either order: the caller alternates from
// step to step, so that what the last step left in cache is met first.
#pragma once

#include "pack.h"

namespace bptt::BPTT_VARIANT {

template <class T>
constexpr ptrdiff_t depth_block = 1024 / static_cast<ptrdiff_t>(sizeof(T));
constexpr ptrdiff_t most_rows = vector_registers == 32 ? 12 : 6;

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
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < 2 * N; ++v)
            sum[r][v] = x.init ? load<T>(x.init + r * x.init_stride + v * L) : Vec<T>{};
    const T* panel = x.panel;
    const T* a = x.a;
#pragma GCC unroll 2
    for (ptrdiff_t p = 0; p < x.depth; ++p) {
        // The fewer of the two are held in registers, beside the sums.
        if constexpr (R < 2 * N) {
            Vec<T> value[R];
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) value[r] = splat<T>(a[r * x.a_stride]);
#pragma GCC unroll 16
            for (int v = 0; v < 2 * N; ++v) {
                const Vec<T> b = load<T>(panel + (v / 2) * x.panel_step + (v % 2) * L);
#pragma GCC unroll 12
                for (int r = 0; r < R; ++r) sum[r][v] = fma(value[r], b, sum[r][v]);
            }
        } else {
            Vec<T> b[2 * N];
#pragma GCC unroll 16
            for (int v = 0; v < 2 * N; ++v) b[v] = load<T>(panel + (v / 2) * x.panel_step + (v % 2) * L);
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) {
                const Vec<T> value = splat<T>(a[r * x.a_stride]);
#pragma GCC unroll 16
                for (int v = 0; v < 2 * N; ++v) sum[r][v] = fma(value, b[v], sum[r][v]);
            }
        }
        panel += P;
        ++a;
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < 2 * N; ++v) store<T>(x.dst + r * x.dst_stride + v * L, sum[r][v]);
}

// The last, partly filled panel: through a full-width copy.
template <class T, int R>
BPTT_NOINLINE void edge_kernel(const Block<T>& x, ptrdiff_t columns) {
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
BPTT_NOINLINE void full_kernel(const Block<T>& x) {
    micro_kernel<T, R, N>(x);
}

// Up to N panels for R rows, the last one perhaps partly filled.
template <class T, int R, int N>
BPTT_INLINE void kernel(const Block<T>& x, ptrdiff_t columns) {
    constexpr ptrdiff_t P = panel_width<T>, before = (N - 1) * P;
    if (columns >= N * P) return full_kernel<T, R, N>(x);
    if constexpr (N > 1) {
        if (columns <= before) return kernel<T, R, N - 1>(x, columns);
        full_kernel<T, R, N - 1>(x);
    }
    Block<T> last = x;
    last.panel += (N - 1) * x.panel_step;
    last.dst += before;
    if (last.init) last.init += before;
    edge_kernel<T, R>(last, columns - before);
}

constexpr int panels_for(ptrdiff_t rows) {
    if (vector_registers == 32) return rows == 1 ? 6 : rows == 2 ? 4 : rows <= 4 ? 3 : rows <= 6 ? 2 : 1;
    return rows == 1 ? 4 : rows == 2 ? 3 : rows == 3 ? 2 : 1;
}

template <class T, int R = most_rows>
BPTT_INLINE void kernel_for(ptrdiff_t rows, const Block<T>& x, ptrdiff_t columns) {
    if constexpr (R > 1) {
        if (rows < R) return kernel_for<T, R - 1>(rows, x, columns);
    }
    kernel<T, R, panels_for(R)>(x, columns);
}

// Columns in a group of at most `most` panels, all groups alike: a small one left over would wait for its own chains.
template <class T>
BPTT_INLINE ptrdiff_t group_of(ptrdiff_t width, ptrdiff_t most) {
    constexpr ptrdiff_t P = panel_width<T>;
    const ptrdiff_t panels = (width + P - 1) / P, groups = (panels + most - 1) / most;
    return groups > 0 ? (panels + groups - 1) / groups * P : P;
}

// The rows of init and dst lie far apart, where no prefetcher of the hardware looks: the lines of the next group of
// columns are asked for while this one is worked on.
template <class T>
BPTT_INLINE void prefetch_next(const Block<T>& x, ptrdiff_t rows, ptrdiff_t columns) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
        prefetch_to_write(x.dst + r * x.dst_stride + columns);
        if (x.init) prefetch(x.init + r * x.init_stride + columns);
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
    constexpr ptrdiff_t P = panel_width<T>;
    const ptrdiff_t group = group_of<T>(call.width, panels_for(1)), groups = (call.width + group - 1) / group;
    Block<T> x{call.a, 0, nullptr, call.depth * P, call.depth, nullptr, 0, nullptr, 0};
    for (ptrdiff_t i = 0; i < groups; ++i) {
        const ptrdiff_t j = group * (call.descending ? groups - 1 - i : i);
        x.panel = call.packed + j * call.depth;
        x.init = call.b ? call.b + j : nullptr;
        x.dst = call.dst + j;
        kernel<T, 1, panels_for(1)>(x, call.width - j < group ? call.width - j : group);
    }
}

// Results of at most four vectors, where there are registers for it: so few chains would wait for their own
// multiply-adds, so each element has two, of the even and of the odd k, which are added in the end. It is so for any
// number of rows.
constexpr bool has_narrow = vector_registers == 32;
constexpr int narrow_vectors = 4;
constexpr int narrow_rows(int vectors) { return 12 / vectors; }

// R rows by V vectors, `last` columns of the last one.
template <class T, int R, int V>
BPTT_NOINLINE void narrow_kernel(const Block<T>& x, ptrdiff_t last) {
    constexpr ptrdiff_t L = lanes<T>, P = panel_width<T>;
    Vec<T> sum[2][R][V] = {};
    if (x.init)
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            const T* init = x.init + r * x.init_stride;
#pragma GCC unroll 4
            for (int v = 0; v < V - 1; ++v) sum[0][r][v] = load<T>(init + v * L);
            sum[0][r][V - 1] = load_part<T>(init + (V - 1) * L, last);
        }
    const T* panel = x.panel;
    const T* a = x.a;
    const auto step = [&](int chain) {
        Vec<T> b[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) b[v] = load<T>(panel + chain * P + (v / 2) * x.panel_step + (v % 2) * L);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            const Vec<T> s = splat<T>(a[r * x.a_stride + chain]);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sum[chain][r][v] = fma(s, b[v], sum[chain][r][v]);
        }
    };
    ptrdiff_t p = 0;
#pragma GCC unroll 2
    for (; p + 2 <= x.depth; p += 2, panel += 2 * P, a += 2) {
        step(0);
        step(1);
    }
    if (p < x.depth) step(0);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
        T* dst = x.dst + r * x.dst_stride;
#pragma GCC unroll 4
        for (int v = 0; v < V - 1; ++v) store<T>(dst + v * L, sum[0][r][v] + sum[1][r][v]);
        store_part<T>(dst + (V - 1) * L, sum[0][r][V - 1] + sum[1][r][V - 1], last);
    }
}

template <class T, int V, int R = narrow_rows(V)>
BPTT_INLINE void narrow_rows_of(ptrdiff_t rows, const Block<T>& x, ptrdiff_t last) {
    if constexpr (R > 1) {
        if (rows < R) return narrow_rows_of<T, V, R - 1>(rows, x, last);
    }
    narrow_kernel<T, R, V>(x, last);
}

template <class T, int V = narrow_vectors>
void run_narrow(const Call<T>& call) {
    constexpr ptrdiff_t before = (V - 1) * lanes<T>;
    if constexpr (V > 1) {
        if (call.width <= before) return run_narrow<T, V - 1>(call);
    }
    Block<T> x{call.a, call.a_stride, call.packed, call.depth * panel_width<T>, call.depth,
               call.b, call.b_stride, call.dst,    call.dst_stride};
    ptrdiff_t rows = call.rows;
    for (ptrdiff_t blocks = (rows + narrow_rows(V) - 1) / narrow_rows(V); blocks > 0; --blocks) {
        const ptrdiff_t r = (rows + blocks - 1) / blocks;
        narrow_rows_of<T, V>(r, x, call.width - before);
        x.a += r * x.a_stride;
        x.dst += r * x.dst_stride;
        if (x.init) x.init += r * x.init_stride;
        rows -= r;
    }
}

template <class T>
void run_matmul(const Call<T>& call) {
    if constexpr (has_narrow) {
        if (call.width <= narrow_vectors * lanes<T>) return run_narrow<T>(call);
    }
    if (call.rows == 1) return run_row<T>(call);
    constexpr ptrdiff_t P = panel_width<T>;
    const ptrdiff_t blocks = (call.rows + most_rows - 1) / most_rows;
    const ptrdiff_t group = group_of<T>(call.width, panels_for((call.rows + blocks - 1) / blocks));
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
