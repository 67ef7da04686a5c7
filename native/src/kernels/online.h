// The arithmetic of the online loop beyond that of step programs: small products on weights that change at every
// update, sums over the rows of a window, losses, optimizers. One table per instruction set and dtype.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace bptt {

// dst = init + a @ m, rows few. m [k, n]: row p, vector of columns v at m + p * row_step + (v / 2) * panel_step + (v % 2)
// vectors, so that both a packed matrix (pack.h) and plain rows serve; all vectors that reach into n may be read.
template <class T>
struct Product {
    T* dst;
    const T* a;
    const T* init;  // null: zero
    const T* m;
    ptrdiff_t dst_stride, a_stride, init_stride;
    ptrdiff_t row_step, panel_step;
    ptrdiff_t rows, k, n;
};

// A product and a pointwise instruction in turn, for some steps on end, each as wide as the other. The product first: the
// instruction is made of its result. The instruction first: it is the product's factor, and its own first operand is the
// product's result of the step before. Pointers are to step 0 and move from step to step.
template <class T>
struct Chain {
    Product<T> product;
    Call<T> call;
    ptrdiff_t dst_step, a_step, init_step, out_step, b_step;
};

// dst[i][j] (+)= y[i][j], y[i][j] = factor * sum over rows of a[row][i] * b[row][j]; b null: one column of ones. A vector
// past the end of a row may be read. Or descending: dst[i][j] -= step * y[i][j].
template <class T>
struct Cross {
    T* dst;
    const T* a;
    const T* b;
    ptrdiff_t dst_stride, a_stride, b_stride;
    ptrdiff_t rows, m, n;
    T factor;
    bool accumulate;
    T step;
};

enum class LossKind : int { mse, mae, huber, indices, shares };

// rows of predictions [n] against targets [n] (indices: int64 a row); the slope is that of the sum of all rows, times
// `factor`. Gives the sum of all rows' losses.
template <class T>
struct LossCall {
    const T* prediction;
    const T* target;
    const int64_t* index;
    T* slope;
    ptrdiff_t rows, n;
    T factor;
};

enum class OptimizerKind : int { sgd, adam, rmsprop };

// One parameter's update; names and order of the arithmetic are those of torch.optim.
template <class T>
struct UpdateCall {
    OptimizerKind kind;
    T* weight;
    const T* gradient;
    T* first;   // sgd: momentum buffer; adam: exp_avg; rmsprop: square_avg
    T* second;  // adam: exp_avg_sq; rmsprop: momentum buffer
    T* third;   // adam: max_exp_avg_sq; rmsprop: grad_avg
    ptrdiff_t count;
    T scale;  // of the gradient: clipping, and the sign of `maximize`
    T rate, decay;
    T momentum, dampening;  // sgd, rmsprop; alpha of rmsprop in beta1
    T beta1, beta2, epsilon;
    T step_size, correction;  // adam: lr / (1 - beta1^t), sqrt(1 - beta2^t)
    bool nesterov, fresh, decoupled;
};

// weight -= step * gradient; weight null: nothing.
template <class T>
struct Descent {
    T* weight;
    const T* gradient;
    ptrdiff_t count;
    T step;
};

// A matrix [k, hidden] with any strides, packed again after every update.
template <class T>
struct Packing {
    const T* from;
    ptrdiff_t row_stride, column_stride, k;
    T* to;  // null: nothing to do
};

// Windows of the plainest networks, one after the other; see online_classic.h. Pointers to data are to the first
// window's first step; where contexts are recomputed, `input` is to that of the window before.
template <class T>
struct Classic {
    ptrdiff_t depth, stride, counted;  // of a window the last `counted` steps count
    bool recomputed;
    Product<T> ahead, readout, back;  // input @ m + bias; state @ m + bias, by `dots`; slope @ m
    const T *forward, *backward;      // W, as state @ W and delta @ W read it
    T *states, *deltas, *slopes;      // [depth + 1, hidden], [depth, hidden], [counted, outputs]
    T* bias;                          // the sum of two; null: not of two
    const T* summands[2];
    Packing<T> packings[2];
    Cross<T> recurrent;  // descending
    T *bias_gradient, *ahead_gradient, *readout_gradient, *readout_bias_gradient;  // null: there is no such parameter
    ptrdiff_t ahead_row, ahead_step;  // from input to input, from unit to unit
    T share;                          // of the cell's gradients
    const Descent<T>* descents;       // of all parameters but W
    ptrdiff_t descents_count;
    double limit;  // of the gradient's norm
    double (*loss)(const LossCall<T>&);
    const T* input;
    const T* target;
    const int64_t* index;
};

template <class T>
using ProductKernel = void (*)(const Product<T>&);

// Gives the sum of y's squares where it descends, else 0.
template <class T>
using CrossKernel = double (*)(const Cross<T>&);

// Gives how many windows were made; if not all, the next one's loss or norm is not finite, or beyond the limit. Of it the
// update may have been made.
template <class T>
using ClassicKernel = ptrdiff_t (*)(const Classic<T>&, ptrdiff_t windows, double* losses, double* norms);

// From a step on, so many; counted from where the pointers are.
template <class T>
using ChainKernel = void (*)(const Chain<T>&, ptrdiff_t start, ptrdiff_t steps);

template <class T>
struct OnlineKernels {
    // The kernel for so many rows and columns: one of its own for the commonest small sizes.
    ProductKernel<T> (*product)(ptrdiff_t rows, ptrdiff_t k, ptrdiff_t n);
    // For few columns that are contiguous themselves, `panel_step` apart: nothing to pack.
    ProductKernel<T> dots;
    // With a unary instruction after the product, a binary one before it; null: there is none.
    ChainKernel<T> (*chain)(Op op, const Product<T>& product);
    // With W as these products read it; null: there is none.
    ClassicKernel<T> (*classic)(const Product<T>& forward, const Product<T>& backward);
    CrossKernel<T> (*cross)(bool ones, ptrdiff_t n);
    CrossKernel<T> cross_descend;  // for more than two columns
    double (*loss[5])(const LossCall<T>&);
    void (*update)(const UpdateCall<T>&);
    // Gives the sum of the squares of all gradients.
    double (*descend)(const Descent<T>* all, ptrdiff_t count);
    ptrdiff_t lanes;  // of a vector
};

template <class T>
const OnlineKernels<T>& online_kernels_baseline();
template <class T>
const OnlineKernels<T>& online_kernels_avx2();
template <class T>
const OnlineKernels<T>& online_kernels_avx512();
template <class T>
const OnlineKernels<T>& online_kernels_portable();

}  // namespace bptt
