// Losses of the counted rows, and their slopes.
#pragma once

#include "elementary.h"
#include "online.h"

namespace bptt::BPTT_VARIANT {

struct Squared {
    template <class T>
    static BPTT_INLINE T value(T e) { return e * e; }
    template <class T>
    static BPTT_INLINE T slope(T e) { return e + e; }
};
struct Absolute {
    template <class T>
    static BPTT_INLINE T value(T e) { return e < T(0) ? -e : e; }
    template <class T>
    static BPTT_INLINE T slope(T e) { return e > T(0) ? T(1) : e < T(0) ? T(-1) : e - e; }
};
struct Huber {
    template <class T>
    static BPTT_INLINE T value(T e) {
        const T size = e < T(0) ? -e : e;
        return size < T(1) ? T(0.5) * e * e : size - T(0.5);
    }
    template <class T>
    static BPTT_INLINE T slope(T e) { return e > T(1) ? T(1) : e < T(-1) ? T(-1) : e; }
};

template <class Rule, class T>
double difference_loss(const LossCall<T>& x) {
    const ptrdiff_t count = x.rows * x.n;
    const T factor = x.factor / static_cast<T>(x.n);
    double total = 0;
    for (ptrdiff_t i = 0; i < count; ++i) {
        const T e = x.prediction[i] - x.target[i];
        total += static_cast<double>(Rule::template value<T>(e));
        x.slope[i] = factor * Rule::template slope<T>(e);
    }
    return total / static_cast<double>(x.n);
}

// Softmax of a row into slope; gives its logarithm's normaliser, amax + log(sum exp(x - amax)).
template <class T>
double softmax(const T* row, T* out, ptrdiff_t n) {
    constexpr ptrdiff_t L = lanes<T>;
    T most = row[0];
    for (ptrdiff_t i = 1; i < n; ++i) most = row[i] > most || row[i] != row[i] ? row[i] : most;
    T sum = 0;
    for (ptrdiff_t i = 0; i < n; i += L) {
        const ptrdiff_t count = n - i < L ? n - i : L;
        T lane[L];
        store<T>(lane, exponential<T>(load_part<T>(row + i, count) - splat<T>(most)));
        for (ptrdiff_t c = 0; c < count; ++c) {
            out[i + c] = lane[c];
            sum += lane[c];
        }
    }
    for (ptrdiff_t i = 0; i < n; ++i) out[i] /= sum;
    return static_cast<double>(most) + static_cast<double>(logarithm<T>(splat<T>(sum))[0]);
}

template <class T>
double index_loss(const LossCall<T>& x) {
    double total = 0;
    for (ptrdiff_t r = 0; r < x.rows; ++r) {
        const T* row = x.prediction + r * x.n;
        T* slope = x.slope + r * x.n;
        const double normaliser = softmax<T>(row, slope, x.n);
        total += normaliser - static_cast<double>(row[x.index[r]]);
        slope[x.index[r]] -= T(1);
        for (ptrdiff_t i = 0; i < x.n; ++i) slope[i] *= x.factor;
    }
    return total;
}

template <class T>
double share_loss(const LossCall<T>& x) {
    double total = 0;
    for (ptrdiff_t r = 0; r < x.rows; ++r) {
        const T* row = x.prediction + r * x.n;
        const T* target = x.target + r * x.n;
        T* slope = x.slope + r * x.n;
        const double normaliser = softmax<T>(row, slope, x.n);
        T sum = 0;
        for (ptrdiff_t i = 0; i < x.n; ++i) {
            sum += target[i];
            total += static_cast<double>(target[i]) * (normaliser - static_cast<double>(row[i]));
        }
        for (ptrdiff_t i = 0; i < x.n; ++i) slope[i] = x.factor * (slope[i] * sum - target[i]);
    }
    return total;
}

}  // namespace bptt::BPTT_VARIANT
