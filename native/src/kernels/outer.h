// Products that sum over rows: dst[m, n] = sum over r of a[r, :]^T b[r, :], and sums of columns.
//
// What remains after a backward loop: gradients of weights and biases, from rows over all steps and lanes. Blocks of
// rows are packed as in BLIS: of b panels of two vectors of columns, of a groups of most_rows columns; a micro-kernel
// holds most_rows x two vectors of the result in registers. A block's sum starts at zero and is added to dst when it is
// whole: the order of the additions depends on the number of rows alone, and rounding grows with the number of blocks.
#pragma once

#include "pack.h"

namespace bptt::BPTT_VARIANT {

constexpr ptrdiff_t outer_depth = 256;  // rows in a block
constexpr ptrdiff_t outer_rows = vector_registers == 32 ? 12 : 6;  // columns of a in registers
constexpr ptrdiff_t outer_group = 96;                              // packed at a time
constexpr ptrdiff_t sum_vectors = 8;

template <class T>
ptrdiff_t outer_memory(ptrdiff_t n) {
    return outer_depth * (packed_size<T>(1, n) + outer_group);
}

// One micro-kernel's share: R columns of a (packed [depth][outer_rows]) by one panel of b.
template <class T, int R>
BPTT_NOINLINE void outer_kernel(const T* a, const T* panel, ptrdiff_t depth, T* dst, ptrdiff_t dst_stride,
                                            ptrdiff_t columns, bool first) {
    constexpr ptrdiff_t L = lanes<T>, P = panel_width<T>;
    Vec<T> sum[R][2];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = Vec<T>{};
#pragma GCC unroll 2
    for (ptrdiff_t p = 0; p < depth; ++p) {
        const Vec<T> low = load<T>(panel), high = load<T>(panel + L);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            const Vec<T> s = splat<T>(a[r]);
            sum[r][0] = fma(s, low, sum[r][0]);
            sum[r][1] = fma(s, high, sum[r][1]);
        }
        a += outer_rows;
        panel += P;
    }
    T tile[P];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r, dst += dst_stride) {
        if (columns == P) {
            store<T>(dst, first ? sum[r][0] : load<T>(dst) + sum[r][0]);
            store<T>(dst + L, first ? sum[r][1] : load<T>(dst + L) + sum[r][1]);
            continue;
        }
        store<T>(tile, sum[r][0]);
        store<T>(tile + L, sum[r][1]);
        for (ptrdiff_t c = 0; c < columns; ++c) dst[c] = first ? tile[c] : dst[c] + tile[c];
    }
}

template <class T, int R = outer_rows>
BPTT_INLINE void outer_part(ptrdiff_t r, const T* a, const T* panel, ptrdiff_t depth, T* dst, ptrdiff_t dst_stride,
                            ptrdiff_t columns, bool first) {
    if constexpr (R > 1) {
        if (r < R) return outer_part<T, R - 1>(r, a, panel, depth, dst, dst_stride, columns, first);
    }
    outer_kernel<T, R>(a, panel, depth, dst, dst_stride, columns, first);
}

// Columns of a in groups: [group][depth][outer_rows], what is missing in the last one never read.
template <class T>
void pack_columns(const T* a, ptrdiff_t stride, ptrdiff_t depth, ptrdiff_t columns, T* out) {
    for (; columns > 0; columns -= outer_rows, a += outer_rows) {
        const T* row = a;
        const ptrdiff_t n = columns < outer_rows ? columns : outer_rows;
        if (n == outer_rows) {
            for (ptrdiff_t p = 0; p < depth; ++p, row += stride, out += outer_rows)
                for (ptrdiff_t c = 0; c < outer_rows; ++c) out[c] = row[c];
        } else {
            for (ptrdiff_t p = 0; p < depth; ++p, row += stride, out += outer_rows)
                for (ptrdiff_t c = 0; c < n; ++c) out[c] = row[c];
        }
    }
}

template <class T>
void run_outer(const Outer<T>& x, T* memory) {
    constexpr ptrdiff_t P = panel_width<T>;
    T* const columns = memory;
    ptrdiff_t p = 0;
    do {  // once even for no rows: dst = 0
        const ptrdiff_t depth = x.rows - p < outer_depth ? x.rows - p : outer_depth;
        T* panels = memory + outer_depth * outer_group;
        for (ptrdiff_t s = 0; s < x.count; ++s) {
            const OuterSide<T>& side = x.sides[s];
            pack<T>(side.b + p * side.b_stride, side.b_stride, 1, depth, side.n, panels);
            panels += outer_depth * packed_size<T>(1, side.n);
        }
        for (ptrdiff_t group = 0; group < x.m; group += outer_group) {
            const ptrdiff_t most = x.m - group < outer_group ? x.m - group : outer_group;
            pack_columns<T>(x.a + p * x.a_stride + group, x.a_stride, depth, most, columns);
            panels = memory + outer_depth * outer_group;
            for (ptrdiff_t s = 0; s < x.count; ++s) {
                const OuterSide<T>& side = x.sides[s];
                for (ptrdiff_t j = 0; j < side.n; j += P)
                    for (ptrdiff_t i = 0; i < most; i += outer_rows)
                        outer_part<T>(most - i, columns + i * depth, panels + j * depth, depth,
                                      side.dst + (group + i) * side.dst_stride + j, side.dst_stride,
                                      side.n - j < P ? side.n - j : P, p == 0);
                panels += outer_depth * packed_size<T>(1, side.n);
            }
        }
        p += outer_depth;
    } while (p < x.rows);
}

// One vector of a row, or of the products of two rows' elements.
template <class T, bool two>
BPTT_INLINE Vec<T> term(const T* a, const T* b) {
    if constexpr (two) return load<T>(a) * load<T>(b);
    return load<T>(a);
}

// dst[c] = sum of a[:, c], or of a[:, c] b[:, c], in blocks of rows as above.
template <class T, bool two>
BPTT_INLINE void add_columns(const T* a, ptrdiff_t a_stride, const T* b, ptrdiff_t b_stride, ptrdiff_t rows,
                             ptrdiff_t width, T* dst) {
    constexpr ptrdiff_t L = lanes<T>;
    for (ptrdiff_t c = 0; c < width; c += L * sum_vectors) {
        Vec<T> total[sum_vectors] = {};
        const ptrdiff_t n = width - c < L * sum_vectors ? width - c : L * sum_vectors, full = n / L, rest = n % L;
        for (ptrdiff_t p = 0; p < rows; p += outer_depth) {
            Vec<T> sum[sum_vectors] = {};
            const ptrdiff_t end = rows - p < outer_depth ? rows : p + outer_depth;
            for (ptrdiff_t r = p; r < end; ++r) {
                const T* x = a + r * a_stride + c;
                const T* y = two ? b + r * b_stride + c : nullptr;
                if (full == sum_vectors) {
#pragma GCC unroll 8
                    for (int v = 0; v < sum_vectors; ++v) sum[v] += term<T, two>(x + v * L, y + v * L);
                    continue;
                }
                for (ptrdiff_t v = 0; v < full; ++v) sum[v] += term<T, two>(x + v * L, y + v * L);
                if (!rest) continue;
                const Vec<T> last = load_part<T>(x + full * L, rest);
                sum[full] += two ? last * load_part<T>(y + full * L, rest) : last;
            }
            for (int v = 0; v < sum_vectors; ++v) total[v] += sum[v];
        }
        for (ptrdiff_t v = 0; v < full; ++v) store<T>(dst + c + v * L, total[v]);
        if (rest) store_part<T>(dst + c + full * L, total[full], rest);
    }
}

template <class T>
void run_column_sum(const T* a, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t width, T* dst) {
    add_columns<T, false>(a, stride, nullptr, 0, rows, width, dst);
}

template <class T>
void run_column_dot(const T* a, ptrdiff_t a_stride, const T* b, ptrdiff_t b_stride, ptrdiff_t rows, ptrdiff_t width,
                    T* dst) {
    add_columns<T, true>(a, a_stride, b, b_stride, rows, width, dst);
}

}  // namespace bptt::BPTT_VARIANT
