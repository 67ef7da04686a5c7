// The arithmetic of the optimizers, in the order of torch.optim.
#pragma once

#include "online.h"
#include "simd.h"

namespace bptt::BPTT_VARIANT {

template <class T>
void sgd(const UpdateCall<T>& x) {
    for (ptrdiff_t i = 0; i < x.count; ++i) {
        T g = x.scale * x.gradient[i] + x.decay * x.weight[i];
        if (x.first != nullptr) {
            const T kept = x.fresh ? g : x.momentum * x.first[i] + (T(1) - x.dampening) * g;
            x.first[i] = kept;
            g = x.nesterov ? g + x.momentum * kept : kept;
        }
        x.weight[i] -= x.rate * g;
    }
}

// x's squares are added to `sum` and, where elements do not fill a vector, to what is given back.
template <class T, bool is_learning>
BPTT_INLINE double descend_one(const Descent<T> x, Vec<T> (&sum)[4]) {  // by value: a store may change what lies in memory
    constexpr ptrdiff_t L = lanes<T>;
    const Vec<T> step = splat<T>(x.step);
    const auto next = [&](ptrdiff_t i, Vec<T>& squares) {
        const Vec<T> g = load<T>(x.gradient + i);
        squares = fma(g, g, squares);
        if constexpr (is_learning) store<T>(x.weight + i, load<T>(x.weight + i) - step * g);
    };
    ptrdiff_t i = 0;
    for (; i + 4 * L <= x.count; i += 4 * L) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) next(i + j * L, sum[j]);
    }
    for (; i + L <= x.count; i += L) next(i, sum[0]);
    double rest = 0;
    for (; i < x.count; ++i) {
        rest += static_cast<double>(x.gradient[i]) * static_cast<double>(x.gradient[i]);
        if constexpr (is_learning) x.weight[i] -= x.step * x.gradient[i];
    }
    return rest;
}

template <class T>
double descend(const Descent<T>* all, ptrdiff_t count) {
    Vec<T> sum[4] = {};
    double rest = 0;
    for (const Descent<T>* x = all; x < all + count; ++x)
        rest += x->weight == nullptr ? descend_one<T, false>(*x, sum) : descend_one<T, true>(*x, sum);
    return rest + static_cast<double>(of_lanes<T>((sum[0] + sum[1]) + (sum[2] + sum[3])));
}

template <class T>
BPTT_INLINE void adam_vector(const UpdateCall<T>& x, T* w, const T* g, T* m, T* v, T* largest) {
    Vec<T> weight = load<T>(w), gradient = splat<T>(x.scale) * load<T>(g);
    if (x.decoupled) weight = weight * splat<T>(T(1) - x.rate * x.decay);
    else gradient = gradient + splat<T>(x.decay) * weight;
    const Vec<T> first = load<T>(m) + splat<T>(T(1) - x.beta1) * (gradient - load<T>(m));
    const Vec<T> second = splat<T>(x.beta2) * load<T>(v) + splat<T>(T(1) - x.beta2) * gradient * gradient;
    store<T>(m, first);
    store<T>(v, second);
    Vec<T> size = second;
    if (largest != nullptr) {
        size = select<T>((load<T>(largest) > second) | (load<T>(largest) != load<T>(largest)), load<T>(largest), second);
        store<T>(largest, size);
    }
    const Vec<T> denominator = square_root(size) / splat<T>(x.correction) + splat<T>(x.epsilon);
    store<T>(w, weight - splat<T>(x.step_size) * (first / denominator));
}

template <class T>
BPTT_INLINE void rmsprop_vector(const UpdateCall<T>& x, T* w, const T* g, T* squares, T* momentum, T* mean) {
    const Vec<T> weight = load<T>(w);
    const Vec<T> gradient = splat<T>(x.scale) * load<T>(g) + splat<T>(x.decay) * weight;
    const Vec<T> square = splat<T>(x.beta1) * load<T>(squares) + splat<T>(T(1) - x.beta1) * gradient * gradient;
    store<T>(squares, square);
    Vec<T> size = square;
    if (mean != nullptr) {
        const Vec<T> average = load<T>(mean) + splat<T>(T(1) - x.beta1) * (gradient - load<T>(mean));
        store<T>(mean, average);
        size = square - average * average;
    }
    Vec<T> step = gradient / (square_root(size) + splat<T>(x.epsilon));
    if (momentum != nullptr) {
        step = splat<T>(x.momentum) * load<T>(momentum) + step;
        store<T>(momentum, step);
    }
    store<T>(w, weight - splat<T>(x.rate) * step);
}

// A vector function over all elements; what does not fill a vector goes through a padded copy.
template <class T, class F>
BPTT_INLINE void by_vectors(const UpdateCall<T>& x, F apply) {
    constexpr ptrdiff_t L = lanes<T>;
    ptrdiff_t i = 0;
    const auto at = [&](T* p) { return p == nullptr ? nullptr : p + i; };
    for (; i + L <= x.count; i += L) apply(x.weight + i, x.gradient + i, at(x.first), at(x.second), at(x.third));
    if (i == x.count) return;
    T copy[5][L] = {};
    T* from[5] = {x.weight + i, const_cast<T*>(x.gradient) + i, at(x.first), at(x.second), at(x.third)};
    for (int f = 0; f < 5; ++f)
        for (ptrdiff_t c = 0; from[f] != nullptr && c < x.count - i; ++c) copy[f][c] = from[f][c];
    const auto part = [&](int f) { return from[f] == nullptr ? nullptr : copy[f]; };
    apply(copy[0], copy[1], part(2), part(3), part(4));
    for (int f = 0; f < 5; ++f)
        for (ptrdiff_t c = 0; f != 1 && from[f] != nullptr && c < x.count - i; ++c) from[f][c] = copy[f][c];
}

template <class T>
void update(const UpdateCall<T>& x) {
    if (x.kind == OptimizerKind::sgd) {
        sgd<T>(x);
    } else if (x.kind == OptimizerKind::adam) {
        by_vectors<T>(x, [&](T* w, const T* g, T* m, T* v, T* largest) { adam_vector<T>(x, w, g, m, v, largest); });
    } else {
        by_vectors<T>(x, [&](T* w, const T* g, T* s, T* m, T* mean) { rmsprop_vector<T>(x, w, g, s, m, mean); });
    }
}

}  // namespace bptt::BPTT_VARIANT
