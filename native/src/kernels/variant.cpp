// The table of one instruction set. Compiled once per set, with BPTT_VARIANT naming it (see CMakeLists.txt).
#include "kernels.h"
#include "matmul.h"
#include "outer.h"
#include "pointwise.h"
#include "reduce.h"

namespace bptt {
namespace BPTT_VARIANT {

template <class T>
void clamp_all(T* x, ptrdiff_t count, T bound) {
    for (ptrdiff_t i = 0; i < count; ++i) x[i] = x[i] > bound ? bound : x[i] < -bound ? -bound : x[i];
}

template <class T>
void accumulate_all(T* x, const T* y, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; ++i) x[i] += y[i];
}

template <class T>
double multiply_adds(ptrdiff_t rounds, T& value) {
    constexpr int chains = vector_registers == 32 ? 24 : 12;
    Vec<T> sum[chains], total = {};
    for (int c = 0; c < chains; ++c) sum[c] = splat<T>(T(c));  // all different, or the compiler makes one of them
    Vec<T> factor = splat<T>(T(0.5)), term = splat<T>(T(1));
    keep_in_register<T>(factor), keep_in_register<T>(term);
    for (ptrdiff_t i = 0; i < rounds; ++i)
#pragma GCC unroll 24
        for (int c = 0; c < chains; ++c) sum[c] = fma(sum[c], factor, term);
    for (int c = 0; c < chains; ++c) total += sum[c];
    value = total[0];
    return static_cast<double>(rounds) * chains * lanes<T>;
}

template <class Op, class T, int arity, int mask>
void fill_masks(Kernel<T> (&row)[scalar_masks]) {
    row[mask] = run_pointwise<Op, T, mask, arity>;
    if constexpr (mask + 1 < (1 << arity)) fill_masks<Op, T, arity, mask + 1>(row);
}

template <class T>
Kernels<T> make_table() {
    Kernels<T> table{};
#define BPTT_FILL(name, arity) fill_masks<op_##name, T, arity, 0>(table.op[static_cast<int>(Op::name)]);
#define BPTT_ONE(name) BPTT_FILL(name, 1)
#define BPTT_TWO(name) BPTT_FILL(name, 2)
#define BPTT_THREE(name) BPTT_FILL(name, 3)
    BPTT_UNARY(BPTT_ONE)
    BPTT_BINARY(BPTT_TWO)
    BPTT_TERNARY(BPTT_THREE)
    table.op[static_cast<int>(Op::sum)][0] = run_reduction<Sum, T>;
    table.op[static_cast<int>(Op::amax)][0] = run_reduction<Maximum, T>;
    table.op[static_cast<int>(Op::dot)][0] = run_dot<T>;
    table.op[static_cast<int>(Op::matmul)][0] = run_matmul<T>;
    table.pack = pack<T>;
    table.packed_size = packed_size<T>;
    table.clamp = clamp_all<T>;
    table.accumulate = accumulate_all<T>;
    table.outer = run_outer<T>;
    table.outer_memory = outer_memory<T>;
    table.column_sum = run_column_sum<T>;
    table.column_dot = run_column_dot<T>;
    table.multiply_adds = multiply_adds<T>;
    return table;
}

}  // namespace BPTT_VARIANT

#define BPTT_JOIN_(a, b) a##b
#define BPTT_JOIN(a, b) BPTT_JOIN_(a, b)

template <class T>
const Kernels<T>& BPTT_JOIN(kernels_, BPTT_VARIANT)() {
    static const Kernels<T> table = BPTT_VARIANT::make_table<T>();
    return table;
}

template const Kernels<float>& BPTT_JOIN(kernels_, BPTT_VARIANT)<float>();
template const Kernels<double>& BPTT_JOIN(kernels_, BPTT_VARIANT)<double>();

}  // namespace bptt
