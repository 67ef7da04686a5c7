// One run of a program over time: the arrays of a call and the loop over steps.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "program.h"

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
};

// Memory kept between runs of one program, so that a run allocates nothing it had before.
class Workspace {
public:
    // At least `bytes`, aligned to 64.
    std::byte* reserve(size_t bytes);
    size_t size() const { return size_; }

private:
    std::unique_ptr<std::byte[]> memory_;
    size_t size_ = 0;
};

class WorkspaceCache {
public:
    std::unique_ptr<Workspace> take();
    void give(std::unique_ptr<Workspace> workspace);

private:
    std::mutex mutex_;
    std::unique_ptr<Workspace> kept_;
};

// Runs the whole loop. Everything in `run` has been checked against the program.
void execute(const Program& program, const Run& run, WorkspaceCache& cache);

}  // namespace bptt
