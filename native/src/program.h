// A low-level step program: what a step computes, as validated plain data. No Python, no pointers.
//
// A `Description` is what the caller gives; `build` checks it and resolves it into a `Program`, whose operands name
// entries of one table of arrays (all spaces together), so that a step needs one base pointer per array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "opcodes.h"

namespace bptt {

enum class Space : int { scratch, time, row, unit, state, next, grad, grad_in, constant, count };
constexpr int space_count = static_cast<int>(Space::count);
const char* space_name(Space space);

enum class Dtype { float32, float64 };
inline size_t size_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 8; }

// An operand as given: columns offset .. offset + width of array `index` of a space, or a constant.
struct Slot {
    Space space = Space::constant;
    int64_t index = 0, offset = 0, width = 1;
    double value = 0;
    bool absent = false;  // only matmul's init
};

struct InstructionText {
    Op op = Op::copy;
    Slot dst;
    Slot operands[3];  // matmul: init, a
    int64_t matrix = 0;
};

struct TimeArray {
    int64_t width;
    bool written;
};

struct Shape2 {
    int64_t k, n;
};

struct Description {
    Dtype dtype = Dtype::float32;
    bool reverse = false;
    std::vector<int64_t> states, scratch, rows, units;
    std::vector<TimeArray> time;
    std::vector<Shape2> matrices;
    std::vector<InstructionText> instructions;
};

// An operand as resolved: entry of the table of arrays, first column.
struct Operand {
    int array = -1;  // -1: absent
    int64_t offset = 0;
};

struct Instruction {
    Op op;
    int scalars;  // bits of kernels.h: which operands are broadcast
    Operand dst, a, b, c;
    int64_t width;  // of the result; of the operand for a reduction
    int matrix;     // matmul
};

// A run of consecutive instructions executed together: one matmul, or pointwise ones over chunks of rows.
struct Segment {
    int first, last;
    bool matmul;
    int64_t chunk_rows;
};

struct ArrayInfo {
    Space space;
    int64_t index, width;
    bool read = false, written = false;
};

struct Program {
    Description text;
    std::vector<ArrayInfo> arrays;  // by space in the order of `Space`; the constants are the last entry
    std::vector<double> constants;
    std::vector<Instruction> instructions;
    std::vector<Segment> segments;
    double flops_per_row = 0;  // rough work of one row and step, for the choice of threads
    int first_array[space_count];

    int id(Space space, int64_t index) const { return first_array[static_cast<int>(space)] + static_cast<int>(index); }
    const ArrayInfo& info(Space space, int64_t index) const { return arrays[static_cast<size_t>(id(space, index))]; }
};

// Throws std::invalid_argument that names the instruction at fault.
Program build(Description text);

}  // namespace bptt
