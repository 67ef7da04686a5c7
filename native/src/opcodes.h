// The words of a low-level program, in one place: name of each instruction and its number of operands.
//
// To add a word: a line here, its arithmetic in kernels/ops.h (one struct), a line in the oracle of
// tests/native. Python reads the same list through `bptt._core.OPCODES`.
#pragma once

// UNARY(name), BINARY(name), TERNARY(name) are pointwise; REDUCTION(name) of one row and DOT(name) of two yield width 1.
// Names that C++ reserves (and, or, not) carry an underscore here, which the name shown to Python drops.
#define BPTT_UNARY(X) \
    X(copy) X(neg) X(abs) X(sign) X(reciprocal) X(sqrt) X(rsqrt) X(exp) X(expm1) X(log) X(log1p) \
    X(tanh) X(sigmoid) X(relu) X(softplus) X(erf) X(not_)
#define BPTT_BINARY(X) \
    X(add) X(sub) X(mul) X(div) X(minimum) X(maximum) X(pow) X(gt) X(ge) X(lt) X(le) X(eq) X(ne) \
    X(and_) X(or_) X(tanh_backward) X(sigmoid_backward)
#define BPTT_TERNARY(X) X(mul_add) X(where)
#define BPTT_REDUCTION(X) X(sum) X(amax)
#define BPTT_DOT(X) X(dot)

namespace bptt {

enum class Op : int {
#define BPTT_ENUM(name) name,
    BPTT_UNARY(BPTT_ENUM) BPTT_BINARY(BPTT_ENUM) BPTT_TERNARY(BPTT_ENUM) BPTT_REDUCTION(BPTT_ENUM) BPTT_DOT(BPTT_ENUM)
#undef BPTT_ENUM
    matmul,
    count
};

constexpr int op_count = static_cast<int>(Op::count);

// Name as Python spells it, and number of operands after the destination (matmul: init, a, matrix).
const char* op_name(Op op);
int op_operands(Op op);
bool op_is_reduction(Op op);

}  // namespace bptt
