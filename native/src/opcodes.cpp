// Names and operand counts of the instructions; see opcodes.h.
#include "opcodes.h"

#include <string>

namespace bptt {
namespace {

std::string spelled(const char* name) {
    std::string text(name);
    if (text.back() == '_') text.pop_back();
    return text;
}

struct Word {
    std::string name;
    int operands;
};

const Word* words() {
    static const Word table[op_count] = {
#define BPTT_ONE(name) {spelled(#name), 1},
#define BPTT_TWO(name) {spelled(#name), 2},
#define BPTT_THREE(name) {spelled(#name), 3},
        BPTT_UNARY(BPTT_ONE) BPTT_BINARY(BPTT_TWO) BPTT_TERNARY(BPTT_THREE) BPTT_REDUCTION(BPTT_ONE)
        BPTT_DOT(BPTT_TWO){"matmul", 3}};
#undef BPTT_ONE
#undef BPTT_TWO
#undef BPTT_THREE
    return table;
}

}  // namespace

const char* op_name(Op op) { return words()[static_cast<int>(op)].name.c_str(); }
int op_operands(Op op) { return words()[static_cast<int>(op)].operands; }
bool op_is_reduction(Op op) { return op == Op::sum || op == Op::amax || op == Op::dot; }

}  // namespace bptt
