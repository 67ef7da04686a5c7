// The online loop: unfold, loss, backward, clip, update, advance, for many windows in one call.
//
// A `Plan` is plain data made by bptt.engine.online.learner: what one window computes, as instructions on rows (lanes, or lanes
// and steps together), and what is done with parameters alone. A `Learner` binds it to memory once and runs windows
// without allocating. Weights and the optimizer's state are the caller's own arrays, changed in place, so that after
// every update they are what PyTorch would have made of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/online.h"
#include "program.h"

namespace bptt::online {

// Part of a buffer (parameters, gradients, what is derived from them), as a matrix with strides.
struct View {
    int buffer = -1;  // -1: none
    int64_t offset = 0, rows = 1, columns = 1, row_stride = 0, column_stride = 0;
};

// Columns of an array of rows; or of a buffer, the same for every row; or a number.
struct Place {
    enum Kind : int { none, array, buffer, constant } kind = none;
    int index = 0;
    int shift = 0;  // steps later
    int64_t offset = 0, width = 1;
    double value = 0;
};

struct RowOp {
    Op op = Op::copy;
    Place dst, a, b, c;  // matmul: b is init
    int matrix = -1;
    bool needed_at_first = true;  // in the backward loop: also at step 0, where no state's gradient is asked for
};

// window: rows of all steps and one more; step: of one step, forgotten; counted: of the counted rows.
enum class Domain : int { window, step, counted };
struct Array {
    int64_t width = 0;
    Domain domain = Domain::window;
};

struct Matrix {
    View view;         // [k, n]
    bool changes = true;  // with the parameters
};

// What is done with buffers alone, or from rows to a buffer.
struct FixedOp {
    enum Kind : int { pointwise, sum, product, cross } kind = pointwise;
    Op op = Op::copy;
    View dst, a, b, c;
    double constants[3] = {0, 0, 0};  // of operands without a view
    Place left, right;                // cross: right none is a column of ones
    Domain rows = Domain::window;     // cross
    bool scaled = false;              // cross: divided by the number of copies
    bool accumulate = false;          // cross
};

struct Leaf {
    int64_t width = 0;
    int states = -1, entered = -1, carries = -1;  // arrays
    int initial = -1;                             // buffer
    bool initial_is_shared = false;               // one row for all lanes
    int initial_gradient = -1;                    // buffer
};

struct Plan {
    Dtype dtype = Dtype::float32;
    int64_t steps = 0, lanes = 0;  // the longest window
    int sources = 0;               // the first buffers are the caller's
    std::vector<int64_t> buffers;
    std::vector<Array> arrays;
    std::vector<Matrix> matrices;
    std::vector<Leaf> leaves;
    std::vector<FixedOp> prepare, after;
    std::vector<RowOp> ahead, forward, back_ahead, backward, behind;
    std::vector<RowOp> read_forward, read_backward;
    std::vector<int> deltas;  // arrays that are zero where a lane is over
    int inputs = -1;          // array
    int output = 0;           // leaf
    int outputs = -1, prediction = -1, slope = -1, upstream = -1;  // arrays of counted rows
    LossKind loss = LossKind::mse;
    double clip_state = -1;  // negative: not
};

// An optimizer's hyperparameters for one parameter, and where its state lies.
struct Slot {
    int source = 0, gradient = 0;  // buffers
    bool learned_initial = false;  // has a gradient only where the initial state entered
    OptimizerKind kind = OptimizerKind::sgd;
    double rate = 0, decay = 0, momentum = 0, dampening = 0, beta1 = 0, beta2 = 0, epsilon = 0;
    bool nesterov = false, maximize = false, decoupled = false;
    void* state[3] = {nullptr, nullptr, nullptr};
    void* count = nullptr;  // the number of updates, float32 or float64
    bool count_is_double = false;
    bool fresh = false;  // the momentum buffer holds nothing yet
};

struct Method {
    int64_t depth = 1, stride = 1;
    int counted = 0;  // 0 new, 1 last, 2 all
    bool recomputed = false, mean = false;
    double clip = -1;  // negative: not
};

// Steps of the stream, contiguous [steps, lanes, ...]; the first is step `base` of its batch.
struct Data {
    const void* inputs = nullptr;
    const void* targets = nullptr;  // of the dtype, or int64
    const uint8_t* mask = nullptr;
    const uint8_t* reset = nullptr;    // null: none
    const int64_t* lengths = nullptr;  // null: all full
    int64_t base = 0, steps = 0;
};

struct Span {
    int64_t start = 0, stop = 0, first = 0, follow = 0;
};

// Where the next window starts, how far windows have reached, and the one that is still to be followed by a renewal.
struct Position {
    int64_t start, reached;
    Span pending;
};

// nonfinite: the next update's loss or gradient, or the weights it would make, are not finite, or huge; it is not made.
enum class Halt : int { done, updates, time, data, nonfinite };

// What one call did. Arrays are the caller's.
struct Report {
    Halt halt = Halt::done;
    int64_t updates = 0;
    Span last;  // the window of the last update
};

class Learner {
public:
    virtual ~Learner() = default;
    // The caller's arrays: one pointer for each source, and for the other buffers that hold initial states.
    virtual void bind(const std::vector<void*>& sources) = 0;
    virtual void set_buffer(int buffer, const void* values) = 0;
    virtual void configure(const Method& method, const std::vector<Slot>& slots) = 0;
    // Begin a batch, or go on in it: the context (null: the initial state), the next window's start, how far windows
    // have reached, and the window after which the context is still to be renewed (follow < 0: none).
    virtual void enter(const std::vector<const void*>& context, int64_t length, int64_t start, int64_t reached,
                       const Span& pending) = 0;
    // The batch has so many steps.
    virtual void extend(int64_t length) = 0;
    virtual Report run(const Data& data, int64_t most, double seconds, double* losses, double* norms,
                       int64_t* counts) = 0;
    // Of the last update: the context that went into the window, that which goes on (before it is renewed), the state at
    // the window's end; or the present context.
    enum class What : int { entry, context, end, present };
    virtual bool copy_state(What what, const std::vector<void*>& to) const = 0;  // false: at the initial state
    virtual std::vector<bool> fresh() const = 0;
    // The prediction after the last of `data`'s steps from `first` on, from the present context; [lanes, width].
    virtual void predict(const Data& data, int64_t first, void* to) = 0;
    // Whether windows that are like each other are made many in one call of a kernel; see kernels/online_classic.h.
    virtual bool is_classic() const = 0;
    // The first step that the next call looks at.
    virtual int64_t needed() const = 0;
    virtual Position position() const = 0;
};

// Throws std::invalid_argument.
std::unique_ptr<Learner> make_learner(Plan plan);

}  // namespace bptt::online
