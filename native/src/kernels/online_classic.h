// The classic loop of the plainest networks, whole windows at a time: one row, next = tanh(init + state @ W) with W as in
// online_chain.h, few inputs, a linear readout to few outputs, plain gradient descent. In so small a window the calls of
// kernels cost as much as their arithmetic; here is one. It is made of the same pieces in the same order, so that a window
// gives the same bits in either way.
#pragma once

#include "online_chain.h"
#include "online_sums.h"
#include "online_updates.h"
#include "pack.h"

namespace bptt::BPTT_VARIANT {

// y += a @ m for the few rows of m.
template <class T, int V>
BPTT_INLINE void add_few(const T* a, const Product<T>& x, Vec<T> (&y)[V]) {
    for (ptrdiff_t p = 0; p < x.k; ++p)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
            y[v] = fma(splat<T>(a[p]), load<T>(x.m + p * x.row_step + (v / 2) * x.panel_step + (v % 2) * lanes<T>), y[v]);
}

// The state after `input`.
template <class T, int V, bool is_packed>
BPTT_INLINE void classic_step(const Classic<T>& x, const T* state, const T* input, T* next) {
    Vec<T> y[V] = {};
    if (x.ahead.init != nullptr) load_row<T, V>(x.ahead.init, y);
    add_few<T, V>(input, x.ahead, y);
    multiply_row<T, V, chains<V>>(state, x.forward, Square<T, V, is_packed>{}, y);
    apply_row<op_tanh, T, V>(y);
    store_row<T, V>(next, y);
}

// Predictions of the counted states, their loss, and the slopes.
template <class T, ptrdiff_t H>
BPTT_INLINE double classic_loss(const Classic<T>& x, const T* states, ptrdiff_t row) {
    Product<T> predictions = x.readout;
    predictions.a = states, predictions.rows = x.counted;
    dots<T>(predictions);
    const ptrdiff_t n = x.readout.n;
    const T* target = x.target == nullptr ? nullptr : x.target + row * n;
    const int64_t* index = x.index == nullptr ? nullptr : x.index + row;
    const LossCall<T> call{x.readout.dst, target, index, x.slopes, x.counted, n, T(1) / static_cast<T>(x.counted)};
    return x.loss(call) / static_cast<double>(x.counted);
}

// The gradient of every step's sum, before its nonlinearity, into `deltas`.
template <class T, int V, bool is_packed>
BPTT_INLINE void classic_backward(const Classic<T>& x) {
    constexpr ptrdiff_t H = V * lanes<T>;
    const ptrdiff_t first = x.depth - x.counted;
    Vec<T> carry[V] = {};
    for (ptrdiff_t t = x.depth - 1;; --t) {
        if (t >= first) {
            Vec<T> upstream[V] = {};
            add_few<T, V>(x.slopes + (t - first) * x.readout.n, x.back, upstream);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) carry[v] = carry[v] + upstream[v];
        }
        apply_row<op_tanh_backward, T, V>(carry, x.states + (t + 1) * H);
        store_row<T, V>(x.deltas + t * H, carry);
        if (t == 0) return;
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) carry[v] = Vec<T>{};
        multiply_row<T, V, chains<V>>(x.deltas + t * H, x.backward, Square<T, V, is_packed>{}, carry);
    }
}

// The gradients of all parameters but W.
template <class T, int V>
BPTT_INLINE void classic_gradients(const Classic<T>& x, const T* input) {
    constexpr ptrdiff_t L = lanes<T>, H = V * L;
    const ptrdiff_t inputs = x.ahead.k, outputs = x.readout.n;
    Cross<T> sums{nullptr, nullptr, nullptr, 1, H, inputs, x.depth, H, 1, x.share, false, T(0)};
    if (x.bias_gradient != nullptr) cross_column<T, V>(sums, x.deltas, nullptr, x.bias_gradient, L);
    sums.dst_stride = x.ahead_step;
    for (ptrdiff_t i = 0; i < inputs; ++i)
        cross_column<T, V>(sums, x.deltas, input + i, x.ahead_gradient + i * x.ahead_row, L);
    sums.dst_stride = 1, sums.b_stride = outputs, sums.rows = x.counted, sums.factor = T(1);
    const T* states = x.states + (x.depth - x.counted + 1) * H;
    for (ptrdiff_t j = 0; j < outputs; ++j) {
        cross_column<T, V>(sums, states, x.slopes + j, x.readout_gradient + j * H, L);
        if (x.readout_bias_gradient == nullptr) continue;
        T sum = 0;
        for (ptrdiff_t r = 0; r < x.counted; ++r) sum += x.slopes[r * outputs + j];
        x.readout_bias_gradient[j] = sum;
    }
}

// What is derived from the parameters.
template <class T, ptrdiff_t H>
BPTT_INLINE void classic_refresh(const Classic<T>& x) {
    for (ptrdiff_t i = 0; x.bias != nullptr && i < H; i += lanes<T>)
        store<T>(x.bias + i, load<T>(x.summands[0] + i) + load<T>(x.summands[1] + i));
    for (const Packing<T>& p : x.packings)
        if (p.to != nullptr) pack<T>(p.from, p.row_stride, p.column_stride, p.k, H, p.to);
}

template <class T, int V, bool is_packed>
ptrdiff_t classic(const Classic<T>& call, ptrdiff_t windows, double* losses, double* norms) {
    constexpr ptrdiff_t H = V * lanes<T>;
    const Classic<T> x = call;  // a store may change what lies in memory
    const T* input = x.input;
    ptrdiff_t row = x.depth - x.counted;
    for (ptrdiff_t w = 0; w < windows; ++w, row += x.stride) {
        if (x.recomputed) {
            for (ptrdiff_t s = 0; s < x.stride; ++s, input += x.ahead.k)
                classic_step<T, V, is_packed>(x, x.states, input, x.states);
        } else if (w > 0) {
            Vec<T> y[V];
            load_row<T, V>(x.states + x.stride * H, y);
            store_row<T, V>(x.states, y);
            input += x.stride * x.ahead.k;
        }
        for (ptrdiff_t t = 0; t < x.depth; ++t)
            classic_step<T, V, is_packed>(x, x.states + t * H, input + t * x.ahead.k, x.states + (t + 1) * H);
        const double loss = classic_loss<T, H>(x, x.states + (x.depth - x.counted + 1) * H, row);
        losses[w] = static_cast<double>(static_cast<T>(loss));
        if (!(losses[w] - losses[w] == 0)) return w;
        classic_backward<T, V, !is_packed>(x);
        classic_gradients<T, V>(x, input);
        const double squares = cross_strips<T, Descending>(x.recurrent) + descend<T>(x.descents, x.descents_count);
        norms[w] = static_cast<double>(static_cast<T>(root(squares)));
        if (!(norms[w] < x.limit)) return w;
        classic_refresh<T, H>(x);
    }
    return windows;
}

template <class T, int V>
ClassicKernel<T> classic_of(const Product<T>& forward, const Product<T>& backward) {
    if (lies_as<T, V, true>(forward) && lies_as<T, V, false>(backward)) return classic<T, V, true>;
    if (lies_as<T, V, false>(forward) && lies_as<T, V, true>(backward)) return classic<T, V, false>;
    return nullptr;
}

template <class T>
ClassicKernel<T> classic_for(const Product<T>& forward, const Product<T>& backward) {
    return for_square<ClassicKernel<T>>(forward, [&](auto v) { return classic_of<T, decltype(v)::value>(forward, backward); });
}

}  // namespace bptt::BPTT_VARIANT
