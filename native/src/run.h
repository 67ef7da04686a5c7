// One run of a program over time: the arrays of a call and the loop over steps.
#pragma once

#include <cstdint>
#include <vector>

#include "program.h"
#include "workspace.h"

namespace bptt {

// An external array, checked: strides count elements; the last dimension is contiguous. Null: not given.
struct Plane {
    void* data = nullptr;
    ptrdiff_t time = 0, row = 0;
};

struct MatrixView {
    void* data = nullptr;
    ptrdiff_t row = 0, column = 0;
};

// An array over time that is not given but computed as the loop goes: rows of `input` @ weight + biases. Where `kept`
// has memory it is written there, else a few steps at a time into the tile's own.
struct Projection {
    size_t time;  // which of the arrays over time
    Plane input, kept;
    int64_t depth;      // columns of input
    MatrixView weight;  // [depth, width of the array]
    std::vector<const void*> biases;
};

struct Run {
    int64_t steps = 0, batch = 0;
    int threads = 1;
    std::vector<Plane> states, time, rows, units, initial;
    std::vector<Plane> final_grads, step_grads, start_grads, initial_grads;  // reverse; empty or one a leaf
    std::vector<MatrixView> matrices;
    const uint8_t* reset = nullptr;  // null: none
    ptrdiff_t reset_time = 0, reset_row = 0;
    const int64_t* lengths = nullptr;  // null: all full
    ptrdiff_t lengths_row = 0;
    bool has_clip = false;
    double clip = 0;
    std::vector<Projection> projections;  // forward
};


// Not more threads than the work (in operations) is worth, at least one.
int useful_threads(double work, int64_t most);

// Runs the whole loop. Everything in `run` has been checked against the program.
void execute(const Program& program, const Run& run, WorkspaceCache& cache);

}  // namespace bptt
