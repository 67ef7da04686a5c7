// The loop over time of the plainest cells, in one call: one row, a square matrix of 1, 2, 4 or 8 vectors, and one
// pointwise instruction. What one step leaves for the next does not pass through the interpreter of instructions, which
// costs a small network as much as its arithmetic.
#pragma once

#include "online_products.h"
#include "ops.h"

namespace bptt::BPTT_VARIANT {

// Where m lies, packed in panels or by rows, as `Extent`. Known beforehand, no address is to be computed.
template <class T, int V, bool is_packed>
struct Square {
    static constexpr ptrdiff_t L = lanes<T>, k = V * L;
    static constexpr ptrdiff_t row_step = is_packed ? 2 * L : k, panel_step = is_packed ? k * 2 * L : 2 * L;
};

template <class T>
BPTT_INLINE Product<T> product_at(const Chain<T>& x, ptrdiff_t t) {
    Product<T> p = x.product;
    p.dst += t * x.dst_step, p.a += t * x.a_step, p.init += t * x.init_step;
    return p;
}

// out = op(dst), dst = init + a @ m.
template <class Op, class T, int V, bool is_packed>
void chain_forward(const Chain<T>& x, ptrdiff_t start, ptrdiff_t steps) {
    constexpr ptrdiff_t L = lanes<T>;
    Product<T> p = product_at<T>(x, start);
    T* out = x.call.dst + start * x.out_step;
    for (ptrdiff_t t = steps; t > 0; --t) {
        Vec<T> y[V];
        multiply_row<T, V, chains<V>>(p, Square<T, V, is_packed>{}, y);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            store<T>(p.dst + v * L, y[v]);
            store<T>(out + v * L, Op::template apply<T>(y[v]));
        }
        p.dst += x.dst_step, p.a += x.a_step, p.init += x.init_step, out += x.out_step;
    }
}

// dst = init + a @ m, a = op(y, b); y is the dst of the step before.
template <class Op, class T, int V, bool is_packed>
void chain_backward(const Chain<T>& x, ptrdiff_t start, ptrdiff_t steps) {
    constexpr ptrdiff_t L = lanes<T>;
    Product<T> p = product_at<T>(x, start);
    T* out = x.call.dst + start * x.out_step;
    const T* b = x.call.b + start * x.b_step;
    const T* first = x.call.a + start * x.dst_step;
    Vec<T> y[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) y[v] = load<T>(first + v * L);
    for (ptrdiff_t t = steps; t > 0; --t) {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) store<T>(out + v * L, Op::template apply<T>(y[v], load<T>(b + v * L)));
        multiply_row<T, V, chains<V>>(p, Square<T, V, is_packed>{}, y);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) store<T>(p.dst + v * L, y[v]);
        p.dst += x.dst_step, p.a += x.a_step, p.init += x.init_step, out += x.out_step, b += x.b_step;
    }
}

template <class T, int V, bool is_packed>
ChainKernel<T> chain_of(Op op) {
    switch (op) {
        case Op::tanh: return chain_forward<op_tanh, T, V, is_packed>;
        case Op::relu: return chain_forward<op_relu, T, V, is_packed>;
        case Op::tanh_backward: return chain_backward<op_tanh_backward, T, V, is_packed>;
        default: return nullptr;
    }
}

template <class T, int V>
ChainKernel<T> chain_of(Op op, const Product<T>& product) {
    using Packed = Square<T, V, true>;
    using Plain = Square<T, V, false>;
    const auto lies_as = [&](ptrdiff_t row_step, ptrdiff_t panel_step) {
        return product.row_step == row_step && (V <= 2 || product.panel_step == panel_step);
    };
    if (lies_as(Packed::row_step, Packed::panel_step)) return chain_of<T, V, true>(op);
    if (lies_as(Plain::row_step, Plain::panel_step)) return chain_of<T, V, false>(op);
    return nullptr;
}

template <class T>
ChainKernel<T> chain_for(Op op, const Product<T>& product) {
    if (product.rows != 1 || product.k != product.n) return nullptr;
    if (product.n == lanes<T>) return chain_of<T, 1>(op, product);
    if (product.n == 2 * lanes<T>) return chain_of<T, 2>(op, product);
    if (product.n == 4 * lanes<T>) return chain_of<T, 4>(op, product);
    if (product.n == 8 * lanes<T>) return chain_of<T, 8>(op, product);
    return nullptr;
}

}  // namespace bptt::BPTT_VARIANT
