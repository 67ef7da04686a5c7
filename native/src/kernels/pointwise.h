// Loops that carry a pointwise instruction over rows and columns.
//
// A width that is no multiple of the vector ends in one vector that overlaps the one before (computed first and stored
// last, so that an instruction may write its own operand). Widths under one vector go through a padded copy. Width 1
// over many rows gathers a vector of rows. A lane's arithmetic is the same wherever it lands, so none of this shows.
#pragma once

#include "kernels.h"
#include "ops.h"

namespace bptt::BPTT_VARIANT {

// How one operand is read: a vector of its row, or its one element splat.
template <class T, bool is_scalar>
struct Reader {
    const T* row;
    BPTT_INLINE Vec<T> full(ptrdiff_t i) const {
        if constexpr (is_scalar) return splat<T>(row[0]);
        return load<T>(row + i);
    }
    BPTT_INLINE Vec<T> part(ptrdiff_t count) const {
        if constexpr (is_scalar) return splat<T>(row[0]);
        return load_part<T>(row, count);
    }
};

template <class Op, class T, int mask, int arity>
struct Operands {
    Reader<T, (mask & scalar_a) != 0> a;
    Reader<T, (mask & scalar_b) != 0> b;
    Reader<T, (mask & scalar_c) != 0> c;
    BPTT_INLINE Vec<T> full(ptrdiff_t i) const {
        if constexpr (arity == 1) return Op::template apply<T>(a.full(i));
        else if constexpr (arity == 2) return Op::template apply<T>(a.full(i), b.full(i));
        else return Op::template apply<T>(a.full(i), b.full(i), c.full(i));
    }
    BPTT_INLINE Vec<T> part(ptrdiff_t n) const {
        if constexpr (arity == 1) return Op::template apply<T>(a.part(n));
        else if constexpr (arity == 2) return Op::template apply<T>(a.part(n), b.part(n));
        else return Op::template apply<T>(a.part(n), b.part(n), c.part(n));
    }
};

template <class T>
BPTT_INLINE Vec<T> gather(const T* p, ptrdiff_t stride, ptrdiff_t count) {
    T lane[lanes<T>] = {};
    for (ptrdiff_t i = 0; i < count; ++i) lane[i] = p[i * stride];
    return load<T>(lane);
}

// Width 1: vectors run down the rows.
template <class Op, class T, int arity>
void run_column(const Call<T>& call) {
    for (ptrdiff_t r = 0; r < call.rows; r += lanes<T>) {
        const ptrdiff_t n = call.rows - r < lanes<T> ? call.rows - r : lanes<T>;
        Vec<T> y = gather<T>(call.a + r * call.a_stride, call.a_stride, n);
        if constexpr (arity == 1) {
            y = Op::template apply<T>(y);
        } else {
            const Vec<T> b = gather<T>(call.b + r * call.b_stride, call.b_stride, n);
            if constexpr (arity == 2) {
                y = Op::template apply<T>(y, b);
            } else {
                y = Op::template apply<T>(y, b, gather<T>(call.c + r * call.c_stride, call.c_stride, n));
            }
        }
        T lane[lanes<T>];
        store<T>(lane, y);
        for (ptrdiff_t i = 0; i < n; ++i) call.dst[(r + i) * call.dst_stride] = lane[i];
    }
}

template <class Op, class T, int mask, int arity>
void run_pointwise(const Call<T>& call) {
    constexpr ptrdiff_t L = lanes<T>;
    const ptrdiff_t width = call.width;
    if (width == 1) return run_column<Op, T, arity>(call);
    T* dst = call.dst;
    Operands<Op, T, mask, arity> in{{call.a}, {call.b}, {call.c}};
    for (ptrdiff_t r = call.rows; r > 0; --r) {
        if (width < L) {
            store_part<T>(dst, in.part(width), width);
        } else {
            const ptrdiff_t last = width - L;
            const Vec<T> end = in.full(last);
            for (ptrdiff_t i = 0; i < last; i += L) store<T>(dst + i, in.full(i));
            store<T>(dst + last, end);
        }
        dst += call.dst_stride;
        in.a.row += call.a_stride;
        if constexpr (arity > 1) in.b.row += call.b_stride;
        if constexpr (arity > 2) in.c.row += call.c_stride;
    }
}

}  // namespace bptt::BPTT_VARIANT
