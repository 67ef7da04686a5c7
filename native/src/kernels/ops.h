// The arithmetic of each pointwise instruction: one struct per word of opcodes.h, of static functions on vectors.
//
// Semantics are PyTorch's: minimum, maximum, relu and amax let NaN through, sign(NaN) = 0, comparisons with NaN are
// false but for ne. Masks are 0 and 1; any non-zero value counts as true.
#pragma once

#include "elementary.h"

namespace bptt::BPTT_VARIANT {

#define BPTT_OP1(name, ...)                                        \
    struct op_##name {                                             \
        template <class T>                                         \
        static BPTT_INLINE Vec<T> apply(Vec<T> a) {                \
            __VA_ARGS__                                            \
        }                                                          \
    };
#define BPTT_OP2(name, ...)                                        \
    struct op_##name {                                             \
        template <class T>                                         \
        static BPTT_INLINE Vec<T> apply(Vec<T> a, Vec<T> b) {      \
            __VA_ARGS__                                            \
        }                                                          \
    };
#define BPTT_OP3(name, ...)                                                  \
    struct op_##name {                                                       \
        template <class T>                                                   \
        static BPTT_INLINE Vec<T> apply(Vec<T> a, Vec<T> b, Vec<T> c) {      \
            __VA_ARGS__                                                      \
        }                                                                    \
    };

BPTT_OP1(copy, return a;)
BPTT_OP1(neg, return -a;)
BPTT_OP1(abs, return magnitude<T>(a);)
BPTT_OP1(sign, return one_where<T>(a > Vec<T>{}) - one_where<T>(a < Vec<T>{});)
BPTT_OP1(reciprocal, return splat<T>(1) / a;)
BPTT_OP1(sqrt, return square_root(a);)
BPTT_OP1(rsqrt, return splat<T>(1) / square_root(a);)
BPTT_OP1(exp, return exponential<T>(a);)
BPTT_OP1(expm1, return exponential_minus_one<T>(a);)
BPTT_OP1(log, return logarithm<T>(a);)
BPTT_OP1(log1p, return logarithm_of_one_plus<T>(a);)
BPTT_OP1(tanh, return hyperbolic_tangent<T>(a);)
BPTT_OP1(sigmoid, return logistic<T>(a);)
BPTT_OP1(relu, return select<T>(a < Vec<T>{}, Vec<T>{}, a);)
BPTT_OP1(softplus, return soft_plus<T>(a);)
BPTT_OP1(erf, return error_function<T>(a);)
BPTT_OP1(not_, return one_where<T>(a == Vec<T>{});)

BPTT_OP2(add, return a + b;)
BPTT_OP2(sub, return a - b;)
BPTT_OP2(mul, return a * b;)
BPTT_OP2(div, return a / b;)
// b where a is not the smaller and not NaN: either NaN comes through.
BPTT_OP2(minimum, return select<T>((a < b) | (a != a), a, b);)
BPTT_OP2(maximum, return select<T>((a > b) | (a != a), a, b);)
BPTT_OP2(gt, return one_where<T>(a > b);)
BPTT_OP2(ge, return one_where<T>(a >= b);)
BPTT_OP2(lt, return one_where<T>(a < b);)
BPTT_OP2(le, return one_where<T>(a <= b);)
BPTT_OP2(eq, return one_where<T>(a == b);)
BPTT_OP2(ne, return one_where<T>(a != b);)
BPTT_OP2(and_, return one_where<T>((a != Vec<T>{}) & (b != Vec<T>{}));)
BPTT_OP2(or_, return one_where<T>((a != Vec<T>{}) | (b != Vec<T>{}));)
BPTT_OP2(tanh_backward, return a * (splat<T>(1) - b * b);)
BPTT_OP2(sigmoid_backward, return a * b * (splat<T>(1) - b);)

BPTT_OP2(pow, for (int i = 0; i < lanes<T>; ++i) a[i] = power(a[i], b[i]); return a;)

BPTT_OP3(mul_add, return fma(a, b, c);)
BPTT_OP3(where, return select<T>(a != Vec<T>{}, b, c);)

#undef BPTT_OP1
#undef BPTT_OP2
#undef BPTT_OP3

}  // namespace bptt::BPTT_VARIANT
