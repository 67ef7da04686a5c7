// The loop over time of the plainest cells, in one call: one row, a square matrix of 1, 2, 4 or 8 vectors, and one
// pointwise instruction. What one step leaves for the next does not pass through the interpreter of instructions, which
// costs a small network as much as its arithmetic.
#pragma once

#include "online_products.h"
#include "ops.h"

namespace bptt::BPTT_VARIANT {

// out = op(dst), dst = init + a @ m.
template <class Op, class T, int V, int C>
void chain_forward(const Chain<T>& x) {
    constexpr ptrdiff_t L = lanes<T>;
    Product<T> p = x.product;
    T* out = x.call.dst;
    for (ptrdiff_t t = x.steps; t > 0; --t) {
        Vec<T> y[V];
        first_summand<T, V>(p.init, y);
        add_product<T, V, C>(p, V * L, y);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            store<T>(p.dst + v * L, y[v]);
            store<T>(out + v * L, Op::template apply<T>(y[v]));
        }
        p.dst += x.dst_step, p.a += x.a_step, p.init += x.init_step, out += x.out_step;
    }
}

// dst = init + a @ m, a = op(y, b); y is the dst of the step before.
template <class Op, class T, int V, int C>
void chain_backward(const Chain<T>& x) {
    constexpr ptrdiff_t L = lanes<T>;
    Product<T> p = x.product;
    T* out = x.call.dst;
    const T* b = x.call.b;
    Vec<T> y[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) y[v] = load<T>(x.call.a + v * L);
    for (ptrdiff_t t = x.steps; t > 0; --t) {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) store<T>(out + v * L, Op::template apply<T>(y[v], load<T>(b + v * L)));
        first_summand<T, V>(p.init, y);
        add_product<T, V, C>(p, V * L, y);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) store<T>(p.dst + v * L, y[v]);
        p.dst += x.dst_step, p.a += x.a_step, p.init += x.init_step, out += x.out_step, b += x.b_step;
    }
}

template <class T, int V, int C>
ChainKernel<T> chain_of(Op op) {
    switch (op) {
        case Op::tanh: return chain_forward<op_tanh, T, V, C>;
        case Op::sigmoid: return chain_forward<op_sigmoid, T, V, C>;
        case Op::relu: return chain_forward<op_relu, T, V, C>;
        case Op::tanh_backward: return chain_backward<op_tanh_backward, T, V, C>;
        case Op::sigmoid_backward: return chain_backward<op_sigmoid_backward, T, V, C>;
        default: return nullptr;
    }
}

template <class T>
ChainKernel<T> chain_for(Op op, ptrdiff_t width) {
    if (width == lanes<T>) return chain_of<T, 1, 4>(op);
    if (width == 2 * lanes<T>) return chain_of<T, 2, 4>(op);
    if (width == 4 * lanes<T>) return chain_of<T, 4, 2>(op);
    if (width == 8 * lanes<T>) return chain_of<T, 8, 1>(op);
    return nullptr;
}

}  // namespace bptt::BPTT_VARIANT
