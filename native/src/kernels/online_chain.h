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

// y = op(y), or op(y, b).
template <class Op, class T, int V>
BPTT_INLINE void apply_row(Vec<T> (&y)[V]) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) y[v] = Op::template apply<T>(y[v]);
}
template <class Op, class T, int V>
BPTT_INLINE void apply_row(Vec<T> (&y)[V], const T* b) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) y[v] = Op::template apply<T>(y[v], load<T>(b + v * lanes<T>));
}

// y = init + a @ m at a step.
template <class T, int V, bool is_packed>
BPTT_INLINE void step_of(const Chain<T>& x, ptrdiff_t t, Vec<T> (&y)[V]) {
    const Product<T>& p = x.product;
    if (p.init == nullptr)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) y[v] = Vec<T>{};
    else load_row<T, V>(p.init + t * x.init_step, y);
    multiply_row<T, V, chains<V>>(p.a + t * x.a_step, p.m, Square<T, V, is_packed>{}, y);
    store_row<T, V>(p.dst + t * x.dst_step, y);
}

// out = op(dst), dst = init + a @ m.
template <class Op, class T, int V, bool is_packed>
void chain_forward(const Chain<T>& call, ptrdiff_t start, ptrdiff_t steps) {
    const Chain<T> x = call;  // a store may change what lies in memory
    for (ptrdiff_t t = start; t < start + steps; ++t) {
        Vec<T> y[V];
        step_of<T, V, is_packed>(x, t, y);
        apply_row<Op, T, V>(y);
        store_row<T, V>(x.call.dst + t * x.out_step, y);
    }
}

// dst = init + a @ m, a = op(y, b); y is the dst of the step before.
template <class Op, class T, int V, bool is_packed>
void chain_backward(const Chain<T>& call, ptrdiff_t start, ptrdiff_t steps) {
    const Chain<T> x = call;
    Vec<T> y[V];
    load_row<T, V>(x.call.a + start * x.dst_step, y);
    for (ptrdiff_t t = start; t < start + steps; ++t) {
        apply_row<Op, T, V>(y, x.call.b + t * x.b_step);
        store_row<T, V>(x.call.dst + t * x.out_step, y);
        step_of<T, V, is_packed>(x, t, y);
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

template <class T, int V, bool is_packed>
bool lies_as(const Product<T>& x) {
    using Where = Square<T, V, is_packed>;
    return x.row_step == Where::row_step && (V <= 2 || x.panel_step == Where::panel_step);
}

template <class T, int V>
ChainKernel<T> chain_of(Op op, const Product<T>& product) {
    if (lies_as<T, V, true>(product)) return chain_of<T, V, true>(op);
    if (lies_as<T, V, false>(product)) return chain_of<T, V, false>(op);
    return nullptr;
}

// What `find` gives for so many vectors, where a product is square, of one row and of a width with kernels of its own.
template <class Kernel, class T, class F>
Kernel for_square(const Product<T>& product, F find) {
    if (product.rows != 1 || product.k != product.n) return nullptr;
    if (product.n == lanes<T>) return find(Count<1>{});
    if (product.n == 2 * lanes<T>) return find(Count<2>{});
    if (product.n == 4 * lanes<T>) return find(Count<4>{});
    if (product.n == 8 * lanes<T>) return find(Count<8>{});
    return nullptr;
}

template <class T>
ChainKernel<T> chain_for(Op op, const Product<T>& product) {
    return for_square<ChainKernel<T>>(product, [&](auto v) { return chain_of<T, decltype(v)::value>(op, product); });
}

}  // namespace bptt::BPTT_VARIANT
