// The table of online.h for one instruction set. Compiled once per set, with BPTT_VARIANT naming it.
#include "online.h"

#include "elementary.h"

namespace bptt {
namespace BPTT_VARIANT {

// -- small products ------------------------------------------------------------------------------

// R rows by V vectors, k in C independent chains: one chain alone waits for its own multiply-adds.
template <class T, int R, int V, int C>
BPTT_INLINE void product_block(const Product<T>& x, ptrdiff_t last) {
    constexpr ptrdiff_t L = lanes<T>;
    Vec<T> sum[C][R][V];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[c][r][v] = Vec<T>{};
    const T* m = x.m;
    const T* a = x.a;
    ptrdiff_t p = 0;
    for (; p + C <= x.k; p += C) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            Vec<T> b[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) b[v] = load<T>(m + (v / 2) * x.panel_step + (v % 2) * L);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const Vec<T> s = splat<T>(a[r * x.a_stride]);
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) sum[c][r][v] = fma(s, b[v], sum[c][r][v]);
            }
            m += x.row_step;
            ++a;
        }
    }
    for (; p < x.k; ++p, m += x.row_step, ++a)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            const Vec<T> b = load<T>(m + (v / 2) * x.panel_step + (v % 2) * L);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[0][r][v] = fma(splat<T>(a[r * x.a_stride]), b, sum[0][r][v]);
        }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            Vec<T> y = sum[0][r][v];
            if constexpr (C == 2) y = y + sum[1][r][v];
            if constexpr (C == 4) y = (y + sum[1][r][v]) + (sum[2][r][v] + sum[3][r][v]);
            T* dst = x.dst + r * x.dst_stride + v * L;
            const T* init = x.init == nullptr ? nullptr : x.init + r * x.init_stride + v * L;
            if (v + 1 < V || last == L) {
                if (init != nullptr) y = y + load<T>(init);
                store<T>(dst, y);
            } else {
                if (init != nullptr) y = y + load_part<T>(init, last);
                store_part<T>(dst, y, last);
            }
        }
}

template <class T, int R, int V, int C>
__attribute__((noinline)) void product_of(const Product<T>& x, ptrdiff_t last) {
    product_block<T, R, V, C>(x, last);
}

template <class T, int R>
BPTT_INLINE void product_rows(Product<T> x) {
    constexpr ptrdiff_t L = lanes<T>;
    constexpr int most = R == 1 ? 8 : R <= 3 ? 4 : 2;
    while (x.n > 0) {
        const ptrdiff_t vectors = (x.n + L - 1) / L;
        const auto rest = [&](int v) { return v * L <= x.n ? L : x.n - (v - 1) * L; };
        int taken;
        if (most == 8 && vectors >= 8) taken = 8, product_of<T, R, most == 8 ? 8 : 1, 1>(x, rest(8));
        else if (most >= 4 && vectors >= 4) taken = 4, product_of<T, R, most >= 4 ? 4 : 1, R == 1 ? 2 : 1>(x, rest(4));
        else if (vectors >= 2) taken = 2, product_of<T, R, 2, R == 1 ? 4 : R == 2 ? 2 : 1>(x, rest(2));
        else taken = 1, product_of<T, R, 1, R == 1 ? 4 : R <= 3 ? 2 : 1>(x, rest(1));
        x.n -= taken * L;
        x.m += (taken / 2) * x.panel_step + (taken % 2) * L;
        x.dst += taken * L;
        if (x.init != nullptr) x.init += taken * L;
    }
}

template <class T>
void product(const Product<T>& call) {
    Product<T> x = call;
    while (x.rows > 0) {
        const ptrdiff_t r = x.rows > 8 || x.rows == 6 ? 6 : x.rows >= 7 ? 4 : x.rows == 5 ? 3 : x.rows;
        switch (r) {
            case 1: product_rows<T, 1>(x); break;
            case 2: product_rows<T, 2>(x); break;
            case 3: product_rows<T, 3>(x); break;
            case 4: product_rows<T, 4>(x); break;
            default: product_rows<T, 6>(x);
        }
        x.rows -= r;
        x.dst += r * x.dst_stride;
        x.a += r * x.a_stride;
        if (x.init != nullptr) x.init += r * x.init_stride;
    }
}

// One row by a whole number of vectors.
template <class T, int V, int C>
void product_exact(const Product<T>& x) {
    product_block<T, 1, V, C>(x, lanes<T>);
}

// The sum of a vector's elements, by halves.
template <class T>
BPTT_INLINE T of_lanes(Vec<T> x) {
    T lane[lanes<T>];
    store<T>(lane, x);
#pragma GCC unroll 4
    for (ptrdiff_t half = lanes<T> / 2; half > 0; half /= 2)
#pragma GCC unroll 4
        for (ptrdiff_t j = 0; j < half; ++j) lane[j] += lane[j + half];
    return lane[0];
}

template <class T>
T dot(const T* a, const T* b, ptrdiff_t count) {
    constexpr ptrdiff_t L = lanes<T>;
    Vec<T> sum[4] = {};
    ptrdiff_t i = 0;
    for (; i + 4 * L <= count; i += 4 * L)
        for (int j = 0; j < 4; ++j) sum[j] = fma(load<T>(a + i + j * L), load<T>(b + i + j * L), sum[j]);
    for (; i + L <= count; i += L) sum[0] = fma(load<T>(a + i), load<T>(b + i), sum[0]);
    T total = of_lanes<T>((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (; i < count; ++i) total += a[i] * b[i];
    return total;
}

template <class T>
void dots(const Product<T>& x) {
    for (ptrdiff_t r = 0; r < x.rows; ++r)
        for (ptrdiff_t j = 0; j < x.n; ++j) {
            const T start = x.init == nullptr ? T(0) : x.init[r * x.init_stride + j];
            x.dst[r * x.dst_stride + j] = start + dot<T>(x.a + r * x.a_stride, x.m + j * x.panel_step, x.k);
        }
}

// One column by one row, a whole number of vectors.
template <class T>
void product_thin(const Product<T>& x) {
    constexpr ptrdiff_t L = lanes<T>;
    for (ptrdiff_t v = 0; v * L < x.n; ++v) {
        const Vec<T> m = load<T>(x.m + (v / 2) * x.panel_step + (v % 2) * L);
        const bool same = x.init == nullptr || x.init_stride == 0;  // for every row
        const Vec<T> first = x.init == nullptr ? Vec<T>{} : load<T>(x.init + v * L);
        const T* a = x.a;
        T* dst = x.dst + v * L;
        for (ptrdiff_t r = 0; r < x.rows; ++r, a += x.a_stride, dst += x.dst_stride)
            store<T>(dst, splat<T>(*a) * m + (same ? first : load<T>(x.init + r * x.init_stride + v * L)));
    }
}

template <class T>
ProductKernel<T> product_for(ptrdiff_t rows, ptrdiff_t k, ptrdiff_t n) {
    if (k == 1 && n % lanes<T> == 0) return product_thin<T>;
    if (rows == 1 && n == lanes<T>) return product_exact<T, 1, 4>;
    if (rows == 1 && n == 2 * lanes<T>) return product_exact<T, 2, 4>;
    if (rows == 1 && n == 4 * lanes<T>) return product_exact<T, 4, 2>;
    if (rows == 1 && n == 8 * lanes<T>) return product_exact<T, 8, 1>;
    return product<T>;
}

// A number as a type; the standard library's is not to be instantiated here.
template <int N>
struct Count {
    static constexpr int value = N;
};

// -- sums over rows ------------------------------------------------------------------------------

template <class T>
BPTT_INLINE void put(T* dst, Vec<T> y, ptrdiff_t count, bool accumulate) {
    if (count >= lanes<T>) {
        store<T>(dst, accumulate ? load<T>(dst) + y : y);
    } else {
        store_part<T>(dst, accumulate ? load_part<T>(dst, count) + y : y, count);
    }
}

template <class T, int M, int V>
__attribute__((noinline)) void cross_block(const Cross<T>& x, ptrdiff_t last) {
    constexpr ptrdiff_t L = lanes<T>;
    Vec<T> sum[M][V];
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[i][v] = Vec<T>{};
    const T* a = x.a;
    const T* b = x.b;
    const ptrdiff_t a_stride = x.a_stride, b_stride = x.b_stride;
    for (ptrdiff_t r = x.rows; r > 0; --r, a += a_stride, b += b_stride) {
        Vec<T> row[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            row[v] = load<T>(b + v * L);
            keep_in_register<T>(row[v]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i) {
            const Vec<T> s = splat<T>(a[i]);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sum[i][v] = fma(s, row[v], sum[i][v]);
        }
    }
    const Vec<T> factor = splat<T>(x.factor);
    const bool accumulate = x.accumulate;
    T* dst = x.dst;
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i, dst += x.dst_stride)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) put<T>(dst + v * L, sum[i][v] * factor, v + 1 < V ? L : last, accumulate);
}

// V vectors down a's columns, times one column of b (null: of ones); `last` elements of the last vector count.
template <class T, int V>
BPTT_INLINE void cross_column(const Cross<T>& x, const T* a, const T* b, T* dst, ptrdiff_t last) {
    constexpr ptrdiff_t L = lanes<T>;
    Vec<T> sum[V] = {};
    for (ptrdiff_t r = 0; r < x.rows; ++r, a += x.a_stride) {
        const Vec<T> s = b == nullptr ? splat<T>(1) : splat<T>(b[r * x.b_stride]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[v] = fma(s, load<T>(a + v * L), sum[v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
        const ptrdiff_t count = v + 1 < V ? L : last;
        const Vec<T> y = sum[v] * splat<T>(x.factor);
        if (x.dst_stride == 1) {
            put<T>(dst + v * L, y, count, x.accumulate);
            continue;
        }
        T lane[L];
        store<T>(lane, y);
        for (ptrdiff_t c = 0; c < count; ++c) {
            T& to = dst[(v * L + c) * x.dst_stride];
            to = x.accumulate ? to + lane[c] : lane[c];
        }
    }
}

// For results of one or two columns.
template <class T>
void cross_columns(const Cross<T>& x) {
    constexpr ptrdiff_t L = lanes<T>;
    for (ptrdiff_t j = 0; j < x.n; ++j) {
        const T* b = x.b == nullptr ? nullptr : x.b + j;
        ptrdiff_t i = 0;
        const auto next = [&](auto vectors, ptrdiff_t last) {
            constexpr int V = decltype(vectors)::value;
            cross_column<T, V>(x, x.a + i, b, x.dst + i * x.dst_stride + j, last);
            i += V * L;
        };
        while (x.m - i >= 4 * L) next(Count<4>{}, L);
        if (x.m - i >= 2 * L) next(Count<2>{}, L);
        while (x.m > i) next(Count<1>{}, x.m - i < L ? x.m - i : L);
    }
}

template <class T, int M, int V>
BPTT_INLINE void cross_blocks(Cross<T>& x, ptrdiff_t last) {
    for (; x.m >= M; x.m -= M, x.a += M, x.dst += M * x.dst_stride) cross_block<T, M, V>(x, last);
}

// As many sums at a time as the registers hold beside what they are made of.
template <class T, int V>
BPTT_INLINE void cross_strip(Cross<T> x, ptrdiff_t last) {
    cross_blocks<T, V == 1 ? 8 : 6, V>(x, last);
    cross_blocks<T, 2, V>(x, last);
    cross_blocks<T, 1, V>(x, last);
}

template <class T>
void cross(const Cross<T>& call) {
    constexpr ptrdiff_t L = lanes<T>;
    if (call.b == nullptr || call.n <= 2) return cross_columns<T>(call);
    Cross<T> x = call;
    while (x.n > 0) {
        const ptrdiff_t vectors = (x.n + L - 1) / L;
        const auto rest = [&](int v) { return v * L <= x.n ? L : x.n - (v - 1) * L; };
        int taken;
        if (vectors >= 2) taken = 2, cross_strip<T, 2>(x, rest(2));
        else taken = 1, cross_strip<T, 1>(x, rest(1));
        x.n -= taken * L;
        x.b += taken * L;
        x.dst += taken * L;
    }
}

// -- losses --------------------------------------------------------------------------------------

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

// -- optimizers ----------------------------------------------------------------------------------

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

// Plain gradient descent, and the sum of the squared gradient, in the order of `squares`.
template <class T>
double descend(T* weight, const T* gradient, ptrdiff_t count, T step) {
    constexpr ptrdiff_t L = lanes<T>;
    const Vec<T> steps = splat<T>(step);
    Vec<T> sum[4] = {};
    const auto next = [&](ptrdiff_t i, Vec<T>& squares) {
        const Vec<T> g = load<T>(gradient + i);
        squares = fma(g, g, squares);
        store<T>(weight + i, load<T>(weight + i) - steps * g);
    };
    ptrdiff_t i = 0;
    for (; i + 4 * L <= count; i += 4 * L) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) next(i + j * L, sum[j]);
    }
    for (; i + L <= count; i += L) next(i, sum[0]);
    double total = static_cast<double>(of_lanes<T>((sum[0] + sum[1]) + (sum[2] + sum[3])));
    for (; i < count; ++i) {
        total += static_cast<double>(gradient[i]) * static_cast<double>(gradient[i]);
        weight[i] -= step * gradient[i];
    }
    return total;
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
        if (x.first == nullptr && x.decay == T(0)) descend<T>(x.weight, x.gradient, x.count, x.rate * x.scale);
        else sgd<T>(x);
    } else if (x.kind == OptimizerKind::adam) {
        by_vectors<T>(x, [&](T* w, const T* g, T* m, T* v, T* largest) { adam_vector<T>(x, w, g, m, v, largest); });
    } else {
        by_vectors<T>(x, [&](T* w, const T* g, T* s, T* m, T* mean) { rmsprop_vector<T>(x, w, g, s, m, mean); });
    }
}

template <class T>
double squares(const T* x, ptrdiff_t count) {
    constexpr ptrdiff_t L = lanes<T>;
    Vec<T> sum[4] = {};
    ptrdiff_t i = 0;
    for (; i + 4 * L <= count; i += 4 * L)
        for (int j = 0; j < 4; ++j) {
            const Vec<T> y = load<T>(x + i + j * L);
            sum[j] = fma(y, y, sum[j]);
        }
    for (; i + L <= count; i += L) sum[0] = fma(load<T>(x + i), load<T>(x + i), sum[0]);
    double total = static_cast<double>(of_lanes<T>((sum[0] + sum[1]) + (sum[2] + sum[3])));
    for (; i < count; ++i) total += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    return total;
}

template <class T>
OnlineKernels<T> make_online_table() {
    return {product_for<T>, dots<T>, cross<T>,
            {difference_loss<Squared, T>, difference_loss<Absolute, T>, difference_loss<Huber, T>, index_loss<T>,
             share_loss<T>},
            update<T>, descend<T>, squares<T>, lanes<T>};
}

}  // namespace BPTT_VARIANT

#define BPTT_JOIN_(a, b) a##b
#define BPTT_JOIN(a, b) BPTT_JOIN_(a, b)

template <class T>
const OnlineKernels<T>& BPTT_JOIN(online_kernels_, BPTT_VARIANT)() {
    static const OnlineKernels<T> table = BPTT_VARIANT::make_online_table<T>();
    return table;
}

template const OnlineKernels<float>& BPTT_JOIN(online_kernels_, BPTT_VARIANT)<float>();
template const OnlineKernels<double>& BPTT_JOIN(online_kernels_, BPTT_VARIANT)<double>();

}  // namespace bptt
