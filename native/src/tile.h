// A tile: some rows of the batch, carried through all of time by one thread.
//
// All arrays of a program (scratch, time, states, ...) are entries of one table of base pointers at the tile's first row
// and the present step. The instructions are bound once to kernels and pointers; at each step only the pointers into
// arrays that move with time are patched.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "run.h"

namespace bptt {

// What all tiles of a run share.
template <class T>
struct Shared {
    const Program& program;
    const Run& run;
    const Kernels<T>& kernels;
    std::vector<const T*> packed;  // per matrix
    const T* constants;
    struct Packed {
        const T* weight;
        const T* bias;  // null: none
    };
    std::vector<Packed> projections;
    int64_t steps_ahead = 1;  // so many steps are projected at a time
};

// Enough steps for the product, few enough for the cache.
template <class T>
int64_t steps_ahead(const Program& program, const Run& run, int64_t rows);

// Elements of working memory that a tile of `rows` rows needs.
template <class T>
size_t tile_elements(const Program& program, const Run& run, int64_t rows);

template <class T>
class Tile {
public:
    Tile(const Shared<T>& shared, int64_t first_row, int64_t rows, T* memory);
    void forward();
    void reverse();

private:
    struct Patch {
        const T** where;
        int array;
        int64_t offset;
    };
    struct Mover {
        int array;
        ptrdiff_t step;
    };

    const Program& program_;
    const Run& run_;
    const Kernels<T>& kernels_;
    const Shared<T>& shared_;
    int64_t first_row_, rows_;
    size_t leaves_;
    std::vector<T*> base_;
    std::vector<ptrdiff_t> stride_;
    std::vector<Call<T>> calls_;
    std::vector<Kernel<T>> kernel_;
    std::vector<char> flat_;  // the instruction's rows follow each other: one long row
    std::vector<Patch> patches_;
    std::vector<Mover> movers_;
    bool descending_ = false;  // order of the panels of weights, alternating from step to step
    std::vector<T*> reset_tile_, carry_, next_carry_;
    std::vector<T*> projected_;  // where the next steps of each projection go, if not into its own array
    int64_t projected_until_ = 0;

    // Binding, once a tile.
    T* take(T*& memory, int64_t width) const;
    void place(T* memory);
    void place_projection(const Projection& projection, T*& memory);
    void place_plane(Space space, size_t index, const Plane& plane);
    void bind_all();
    void bind(const Instruction& instruction);
    const T* point(const Operand& operand, const T** where, ptrdiff_t& stride);
    bool is_flat(const Instruction& instruction, const Call<T>& call) const;

    // Stepping.
    int64_t width(size_t leaf) const { return program_.text.states[leaf]; }
    int leaf_id(Space space, size_t leaf) const { return program_.id(space, static_cast<int64_t>(leaf)); }
    T* at(const Plane& plane, int64_t t, int64_t row) const;
    void seek(int64_t t);
    void move();
    void project(int64_t t);
    void project_steps(const Projection& projection, size_t index, int64_t t, int64_t count);
    void patch();
    void compute();
    void chunks(const Segment& segment);
    bool is_reset(int64_t t, int64_t row) const;
    bool is_over(int64_t t, int64_t row) const;
    bool any_reset(int64_t t) const;
    // A state whose rows are spaced out cannot be swapped for its copy at single steps: strides are bound once.
    bool always_copied(size_t leaf) const { return run_.reset != nullptr && run_.states[leaf].row != width(leaf); }
    bool all_over(int64_t t) const;
    void enter_states(int64_t t);
    void leave_states(int64_t t);
    void compute_at(int64_t t);
    void freeze(int64_t t);
    void zero_outputs(int64_t row);
    void start_carry();
    void gather_gradients(int64_t t);
    void settle_gradients(int64_t t);
    void settle_row(int64_t t, int64_t row);
    void finish_carry();
};

}  // namespace bptt
