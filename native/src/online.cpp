// The loop over windows; see online.h.
#include "online.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "online_memory.h"
#include "online_update.h"

namespace bptt::online {
namespace {

using Clock = std::chrono::steady_clock;

// Updates between two looks at the weights, and where windows take longer than that many seconds.
constexpr int64_t usual_interval = 64, slow_interval = 8;
constexpr double slow = 2e-5;

template <class T>
class TypedLearner final : public Learner {
public:
    explicit TypedLearner(Plan plan);

    void bind(const std::vector<void*>& sources) override;
    void set_buffer(int buffer, const void* values) override;
    void configure(const Method& method, const std::vector<Slot>& slots) override;
    void enter(const std::vector<const void*>& context, int64_t length, int64_t start, int64_t reached,
               const Span& pending) override;
    void extend(int64_t length) override { length_ = length; }
    Report run(const Data& data, int64_t most, double seconds, double* losses, double* norms, int64_t* counts) override;
    bool copy_state(What what, const std::vector<void*>& to) const override;
    std::vector<bool> fresh() const override { return updater_.fresh(); }
    void predict(const Data& data, int64_t first, void* to) override;
    Position position() const override { return {at_.start, at_.reached, at_.pending}; }
    int64_t needed() const override { return at_.pending.follow >= 0 ? at_.pending.start : at_.start; }

private:
    // States of all leaves, [lanes, width] side by side; `given` false: the initial state.
    struct Kept {
        std::vector<T> values;
        bool given = false;
    };

    const Plan plan_;
    const Kernels<T>& kernels_;
    const OnlineKernels<T>& online_;
    Memory<T> memory_;
    Updater<T> updater_;
    Method method_;
    int64_t state_size_ = 0;

    // Where training stands.
    struct Standing {
        Kept context, entry, moved, end;  // what goes on; of the last update, see What
        int64_t start = 0, reached = 0;
        Span pending{0, 0, 0, -1};
    };
    Standing at_, marked_;
    int64_t length_ = 0;
    bool dirty_ = true;  // whether the parameters changed since what is derived from them was found

    // What the latest prediction unfolded; a window over the same steps from the same weights need not do it again.
    struct Unfolded {
        int64_t start = -1, steps = 0;
        std::vector<T> weights;
    };
    Unfolded unfolded_;
    Kept state_;  // of a prediction on its way

    // The window at hand.
    Data data_;
    int64_t steps_ = 0, counted_ = 0, origin_ = 0;  // steps; counted rows; its first row in the data
    bool resetting_ = false, ending_ = false, in_order_ = true;
    bool at_initial_ = false, initial_entered_ = false;  // at its start; there or at a reset
    std::vector<int32_t> counted_rows_;  // step * lanes + lane
    std::vector<T> gathered_;
    std::vector<int64_t> gathered_index_;

    // Instructions bound for windows of so many steps: the usual one, that of the advance, and a few others.
    struct Window {
        int64_t steps = -1;
        bool resetting = false;
        std::vector<BoundRow<T>> ahead, forward, back_ahead, backward, behind;
        std::vector<BoundFixed<T>> after;
    };
    static constexpr size_t most_windows = 4;
    Window windows_[most_windows];
    Window* window_ = windows_;
    size_t oldest_ = 0;
    int64_t bound_counted_ = -1;  // and for so many counted rows
    std::vector<BoundRow<T>> read_forward_, read_backward_;
    std::vector<BoundFixed<T>> prepare_;

    const Leaf& leaf(size_t j) const { return plan_.leaves[j]; }
    int64_t lanes() const { return plan_.lanes; }
    bool is_reset(int64_t t, int64_t lane) const {
        return data_.reset != nullptr && data_.reset[(origin_ + t) * lanes() + lane] != 0;
    }
    bool is_over(int64_t t, int64_t lane) const {
        return data_.lengths != nullptr && origin_ + t >= data_.lengths[lane];
    }
    bool covered(int64_t from, int64_t to) const { return data_.base <= from && to <= data_.base + data_.steps; }

    void refresh();
    void rebind();
    void rebind_readout();
    void one(const BoundRow<T>& op) const;
    void run(const std::vector<BoundRow<T>>& ops) const;
    static void start(std::vector<BoundRow<T>>& ops, int64_t step);
    static void advance(BoundRow<T>& op, ptrdiff_t direction);

    void put_states(const Kept& kept);
    void keep(int64_t step, Kept& kept) const;
    void take_window(int64_t from, int64_t steps);
    void forward();
    void enter_states(int64_t t);
    void freeze(int64_t t);
    void count_rows(int64_t first);
    void read_out();
    double find_loss();
    void backward();
    bool wants_start() const;
    void settle(int64_t t);
    void zero_deltas();
    void find_gradients();
    void pass_over(Kept& state, int64_t from, int64_t to);
    void renew();
    void remember(int64_t start);
    bool is_unfolded(const Span& span) const;
    void unfold(const Span& span);
    Span next_span() const;
    void move(const Span& span);
    Halt advance(Report& report, int64_t most, int64_t look, Clock::time_point end, double* losses, double* norms,
                 int64_t* counts);
    bool learn(const Span& span, Report& report, double* losses, double* norms, int64_t* counts);
};

template <class T>
TypedLearner<T>::TypedLearner(Plan plan)
    : plan_(std::move(plan)),
      kernels_(kernels<T>()),
      online_(online_kernels<T>()),
      memory_(plan_, online_, kernels_),
      updater_(plan_, memory_, online_) {
    for (const Leaf& leaf : plan_.leaves) state_size_ += lanes() * leaf.width;
    for (Kept* kept : {&at_.context, &at_.entry, &at_.moved, &at_.end})
        kept->values.assign(static_cast<size_t>(state_size_), T(0));
    counted_rows_.assign(static_cast<size_t>(plan_.steps * lanes()), 0);
    const int64_t width = memory_.width(plan_.prediction);
    gathered_.assign(static_cast<size_t>(plan_.steps * lanes() * width), T(0));
    gathered_index_.assign(static_cast<size_t>(plan_.steps * lanes()), 0);
}

template <class T>
void TypedLearner<T>::bind(const std::vector<void*>& sources) {
    for (size_t i = 0; i < sources.size(); ++i) memory_.set_source(static_cast<int>(i), static_cast<T*>(sources[i]));
    prepare_ = memory_.bind(plan_.prepare, false);
    for (Window& window : windows_) window.steps = -1;
    bound_counted_ = -1;
    for (const auto& op : prepare_) memory_.run(op);
    memory_.pack(true);
    updater_.bind();
    dirty_ = true;
    unfolded_.start = -1;
}

template <class T>
void TypedLearner<T>::set_buffer(int buffer, const void* values) {
    std::memcpy(memory_.buffer(buffer), values, static_cast<size_t>(plan_.buffers[static_cast<size_t>(buffer)]) * sizeof(T));
    unfolded_.start = -1;
}

template <class T>
void TypedLearner<T>::configure(const Method& method, const std::vector<Slot>& slots) {
    method_ = method;
    updater_.configure(slots);
}

template <class T>
void TypedLearner<T>::enter(const std::vector<const void*>& context, int64_t length, int64_t start, int64_t reached,
                            const Span& pending) {
    at_.context.given = !context.empty();
    T* to = at_.context.values.data();
    for (size_t j = 0; j < context.size(); ++j) {
        const auto count = static_cast<size_t>(lanes() * leaf(j).width);
        std::memcpy(to, context[j], count * sizeof(T));
        to += count;
    }
    length_ = length, at_.start = start, at_.reached = reached, at_.pending = pending;
    unfolded_.start = -1;
}

template <class T>
bool TypedLearner<T>::copy_state(What what, const std::vector<void*>& to) const {
    const Kept* const all[] = {&at_.entry, &at_.moved, &at_.end, &at_.context};
    const Kept& kept = *all[static_cast<int>(what)];
    if (!kept.given) return false;
    const T* from = kept.values.data();
    for (size_t j = 0; j < to.size(); ++j) {
        const auto count = static_cast<size_t>(lanes() * leaf(j).width);
        std::memcpy(to[j], from, count * sizeof(T));
        from += count;
    }
    return true;
}

// -- running bound instructions ------------------------------------------------------------------

// What is derived from the parameters, if they changed.
template <class T>
void TypedLearner<T>::refresh() {
    if (!dirty_) return;
    for (const auto& op : prepare_) memory_.run(op);
    memory_.pack(false);
    dirty_ = false;
}

template <class T>
void TypedLearner<T>::rebind() {
    for (Window& known : windows_) {
        if (known.steps != steps_ || known.resetting != resetting_) continue;
        window_ = &known;
        return;
    }
    window_ = &windows_[oldest_++ % most_windows];
    const int64_t rows = steps_ * lanes();
    window_->ahead = memory_.bind(plan_.ahead, rows, resetting_);
    window_->forward = memory_.bind(plan_.forward, lanes(), resetting_);
    window_->back_ahead = memory_.bind(plan_.back_ahead, rows, resetting_);
    window_->backward = memory_.bind(plan_.backward, lanes(), resetting_);
    window_->behind = memory_.bind(plan_.behind, rows, resetting_);
    window_->after = memory_.bind(plan_.after, resetting_);
    window_->steps = steps_;
    window_->resetting = resetting_;
}

template <class T>
void TypedLearner<T>::rebind_readout() {
    if (bound_counted_ == counted_) return;
    read_forward_ = memory_.bind(plan_.read_forward, counted_, false);
    read_backward_ = memory_.bind(plan_.read_backward, counted_, false);
    bound_counted_ = counted_;
}

template <class T>
void TypedLearner<T>::one(const BoundRow<T>& op) const {
    if (op.kernel == nullptr) op.multiply(op.product);
    else op.kernel(op.call);
}

template <class T>
void TypedLearner<T>::run(const std::vector<BoundRow<T>>& ops) const {
    for (const BoundRow<T>& op : ops) one(op);
}

template <class T>
void TypedLearner<T>::start(std::vector<BoundRow<T>>& ops, int64_t step) {
    for (BoundRow<T>& op : ops) {
        T* dst = op.dst + step * op.dst_step;
        const T* a = op.a + step * op.a_step;
        const T* b = op.b + step * op.b_step;  // where there is none, the step is 0
        const T* c = op.c + step * op.c_step;
        if (op.kernel == nullptr) op.product.dst = dst, op.product.a = a, op.product.init = b;
        else op.call.dst = dst, op.call.a = a, op.call.b = b, op.call.c = c;
    }
}

template <class T>
void TypedLearner<T>::advance(BoundRow<T>& op, ptrdiff_t direction) {
    if (op.kernel == nullptr) {
        op.product.dst += direction * op.dst_step;
        op.product.a += direction * op.a_step;
        op.product.init += direction * op.b_step;  // where there is none, the step is 0
    } else {
        op.call.dst += direction * op.dst_step;
        op.call.a += direction * op.a_step;
        op.call.b += direction * op.b_step;
        op.call.c += direction * op.c_step;
    }
}

// -- a window forward ----------------------------------------------------------------------------

// The state before step 0.
template <class T>
void TypedLearner<T>::put_states(const Kept& kept) {
    const T* from = kept.values.data();
    for (size_t j = 0; j < plan_.leaves.size(); ++j) {
        const auto width = static_cast<size_t>(leaf(j).width), count = width * static_cast<size_t>(lanes());
        T* to = memory_.at(leaf(j).states, 0);
        if (kept.given) {
            std::memcpy(to, from, count * sizeof(T));
        } else {
            const T* initial = memory_.buffer(leaf(j).initial);
            for (int64_t lane = 0; lane < lanes(); ++lane, to += width)
                std::memcpy(to, initial + (leaf(j).initial_is_shared ? 0 : lane * leaf(j).width), width * sizeof(T));
        }
        from += count;
    }
}

template <class T>
void TypedLearner<T>::keep(int64_t step, Kept& kept) const {
    T* to = kept.values.data();
    for (size_t j = 0; j < plan_.leaves.size(); ++j) {
        const auto count = static_cast<size_t>(lanes() * leaf(j).width);
        std::memcpy(to, memory_.at(leaf(j).states, step), count * sizeof(T));
        to += count;
    }
    kept.given = true;
}

// Inputs and flags of the steps from `from` (of the batch) on.
template <class T>
void TypedLearner<T>::take_window(int64_t from, int64_t steps) {
    steps_ = steps;
    origin_ = from - data_.base;
    const int64_t row = lanes() * memory_.width(plan_.inputs);
    std::memcpy(memory_.array(plan_.inputs), static_cast<const T*>(data_.inputs) + origin_ * row,
                static_cast<size_t>(steps * row) * sizeof(T));
    resetting_ = ending_ = false;
    if (data_.reset != nullptr)
        resetting_ = std::memchr(data_.reset + origin_ * lanes(), 1, static_cast<size_t>(steps * lanes())) != nullptr;
    for (int64_t lane = 0; lane < lanes(); ++lane) ending_ = ending_ || is_over(steps - 1, lane);
    rebind();
}

template <class T>
void TypedLearner<T>::forward() {
    unfolded_.start = -1;
    run(window_->ahead);
    start(window_->forward, 0);
    for (int64_t t = 0; t < steps_; ++t) {
        if (resetting_) enter_states(t);
        for (BoundRow<T>& op : window_->forward) {
            one(op);
            advance(op, 1);
        }
        if (ending_) freeze(t);
    }
}

template <class T>
void TypedLearner<T>::enter_states(int64_t t) {
    for (size_t j = 0; j < plan_.leaves.size(); ++j) {
        const int64_t width = leaf(j).width;
        const T* states = memory_.at(leaf(j).states, t);
        const T* initial = memory_.buffer(leaf(j).initial);
        T* entered = memory_.at(leaf(j).entered, t);
        for (int64_t lane = 0; lane < lanes(); ++lane) {
            const T* back = initial + (leaf(j).initial_is_shared ? 0 : lane * width);
            std::memcpy(entered + lane * width, is_reset(t, lane) ? back : states + lane * width,
                        static_cast<size_t>(width) * sizeof(T));
        }
    }
}

template <class T>
void TypedLearner<T>::freeze(int64_t t) {
    for (int64_t lane = 0; lane < lanes(); ++lane) {
        if (!is_over(t, lane)) continue;
        for (size_t j = 0; j < plan_.leaves.size(); ++j) {
            const int64_t width = leaf(j).width;
            std::memcpy(memory_.at(leaf(j).states, t + 1) + lane * width, memory_.at(leaf(j).states, t) + lane * width,
                        static_cast<size_t>(width) * sizeof(T));
        }
    }
}

// -- readout and loss ----------------------------------------------------------------------------

template <class T>
void TypedLearner<T>::count_rows(int64_t first) {
    counted_ = 0;
    const uint8_t* mask = data_.mask + origin_ * lanes();
    for (int64_t i = first * lanes(); i < steps_ * lanes(); ++i)
        if (mask[i] != 0) counted_rows_[static_cast<size_t>(counted_++)] = static_cast<int32_t>(i);
    in_order_ = counted_ == (steps_ - first) * lanes();
}

template <class T>
void TypedLearner<T>::read_out() {
    const Leaf& out = leaf(static_cast<size_t>(plan_.output));
    const auto row = static_cast<size_t>(out.width) * sizeof(T);
    const T* states = memory_.at(out.states, 1);
    T* to = memory_.array(plan_.outputs);
    if (in_order_) {
        std::memcpy(to, states + counted_rows_[0] * out.width, row * static_cast<size_t>(counted_));
    } else {
        for (int64_t i = 0; i < counted_; ++i)
            std::memcpy(to + i * out.width, states + counted_rows_[static_cast<size_t>(i)] * out.width, row);
    }
    rebind_readout();
    run(read_forward_);
}

template <class T>
double TypedLearner<T>::find_loss() {
    const int64_t width = memory_.width(plan_.prediction);
    LossCall<T> call{memory_.array(plan_.prediction), nullptr, nullptr, memory_.array(plan_.slope), counted_, width,
                     T(1) / static_cast<T>(counted_)};
    const int64_t begin = origin_ * lanes();
    if (plan_.loss == LossKind::indices) {
        const int64_t* all = static_cast<const int64_t*>(data_.targets) + begin;
        call.index = in_order_ ? all + counted_rows_[0] : gathered_index_.data();
        for (int64_t i = 0; !in_order_ && i < counted_; ++i)
            gathered_index_[static_cast<size_t>(i)] = all[counted_rows_[static_cast<size_t>(i)]];
    } else {
        const T* all = static_cast<const T*>(data_.targets) + begin * width;
        call.target = in_order_ ? all + counted_rows_[0] * width : gathered_.data();
        for (int64_t i = 0; !in_order_ && i < counted_; ++i)
            std::memcpy(gathered_.data() + i * width, all + counted_rows_[static_cast<size_t>(i)] * width,
                        static_cast<size_t>(width) * sizeof(T));
    }
    return online_.loss[static_cast<int>(plan_.loss)](call) / static_cast<double>(counted_);
}

// -- a window backward ---------------------------------------------------------------------------

// Whether the gradient of the state before step 0 goes anywhere.
template <class T>
bool TypedLearner<T>::wants_start() const {
    bool learned = false, entered = at_initial_;
    for (const Leaf& leaf : plan_.leaves) learned = learned || leaf.initial_gradient >= 0;
    for (int64_t lane = 0; lane < lanes(); ++lane) entered = entered || is_reset(0, lane);
    return learned && entered;
}

template <class T>
void TypedLearner<T>::backward() {
    const bool start_too = wants_start();
    for (const Leaf& leaf : plan_.leaves) {
        std::memset(memory_.at(leaf.carries, steps_), 0, static_cast<size_t>(lanes() * leaf.width) * sizeof(T));
        if (leaf.initial_gradient >= 0)
            std::memset(memory_.buffer(leaf.initial_gradient), 0, static_cast<size_t>(leaf.width) * sizeof(T));
    }
    const Leaf& out = leaf(static_cast<size_t>(plan_.output));
    const T* upstream = memory_.array(plan_.upstream) + counted_ * out.width;
    int64_t left = counted_;
    run(window_->back_ahead);
    start(window_->backward, steps_ - 1);
    for (int64_t t = steps_ - 1; t >= 0; --t) {
        T* carry = memory_.at(out.carries, t + 1);
        for (; left > 0 && counted_rows_[static_cast<size_t>(left - 1)] >= t * lanes(); --left) {
            upstream -= out.width;
            kernels_.accumulate(carry + (counted_rows_[static_cast<size_t>(left - 1)] - t * lanes()) * out.width, upstream,
                                out.width);
        }
        const bool all = t > 0 || start_too;
        for (BoundRow<T>& op : window_->backward) {
            if (all || op.needed_at_first) one(op);
            advance(op, -1);
        }
        if (all) settle(t);
    }
    run(window_->behind);
    if (ending_) zero_deltas();
    if (!at_initial_) return;
    for (const Leaf& leaf : plan_.leaves)
        for (int64_t lane = 0; leaf.initial_gradient >= 0 && lane < lanes(); ++lane)
            kernels_.accumulate(memory_.buffer(leaf.initial_gradient), memory_.at(leaf.carries, 0) + lane * leaf.width,
                                leaf.width);
}

// Clipping; at a reset the gradient goes to the initial state and no further; past a lane's end the carry waits.
template <class T>
void TypedLearner<T>::settle(int64_t t) {
    if (plan_.clip_state >= 0)
        for (const Leaf& leaf : plan_.leaves)
            kernels_.clamp(memory_.at(leaf.carries, t), lanes() * leaf.width, static_cast<T>(plan_.clip_state));
    if (!resetting_ && !ending_) return;
    for (int64_t lane = 0; lane < lanes(); ++lane) {
        const bool over = is_over(t, lane);
        if (!over && !is_reset(t, lane)) continue;
        for (const Leaf& leaf : plan_.leaves) {
            T* gradient = memory_.at(leaf.carries, t) + lane * leaf.width;
            const auto bytes = static_cast<size_t>(leaf.width) * sizeof(T);
            if (over) {
                std::memcpy(gradient, memory_.at(leaf.carries, t + 1) + lane * leaf.width, bytes);
                continue;
            }
            if (leaf.initial_gradient >= 0) kernels_.accumulate(memory_.buffer(leaf.initial_gradient), gradient, leaf.width);
            std::memset(gradient, 0, bytes);
        }
    }
}

template <class T>
void TypedLearner<T>::zero_deltas() {
    for (int64_t t = 0; t < steps_; ++t)
        for (int64_t lane = 0; lane < lanes(); ++lane) {
            if (!is_over(t, lane)) continue;
            for (const int index : plan_.deltas) {
                const int64_t width = memory_.width(index);
                std::memset(memory_.at(index, t) + lane * width, 0, static_cast<size_t>(width) * sizeof(T));
            }
        }
}

template <class T>
void TypedLearner<T>::find_gradients() {
    const T share = method_.mean ? T(1) / static_cast<T>(steps_) : T(1);
    for (BoundFixed<T>& bound : window_->after) {
        if (bound.op->kind == FixedOp::cross) {
            bound.cross.rows = bound.op->rows == Domain::counted ? counted_ : steps_ * lanes();
            bound.cross.factor = bound.op->scaled ? share : T(1);
        }
        memory_.run(bound);
    }
}

// -- from window to window -----------------------------------------------------------------------

// Run over the steps from .. to - 1, in pieces as long as a window may be.
template <class T>
void TypedLearner<T>::pass_over(Kept& state, int64_t from, int64_t to) {
    put_states(state);
    while (from < to) {
        const int64_t steps = to - from < plan_.steps ? to - from : plan_.steps;
        take_window(from, steps);
        forward();
        keep(steps, state);
        from += steps;
        if (from < to) put_states(state);
    }
}

template <class T>
void TypedLearner<T>::renew() {
    if (method_.recomputed) {
        refresh();
        pass_over(at_.context, at_.pending.start, at_.pending.follow);
    }
    at_.pending.follow = -1;
}

template <class T>
void TypedLearner<T>::remember(int64_t start) {
    unfolded_.start = start, unfolded_.steps = steps_;
    unfolded_.weights.clear();
    for (int i = 0; i < plan_.sources; ++i) {
        const T* weights = memory_.buffer(i);
        unfolded_.weights.insert(unfolded_.weights.end(), weights, weights + plan_.buffers[static_cast<size_t>(i)]);
    }
}

template <class T>
bool TypedLearner<T>::is_unfolded(const Span& span) const {
    if (span.start != unfolded_.start || span.stop - span.start != unfolded_.steps) return false;
    if (data_.reset != nullptr || data_.lengths != nullptr) return false;
    const int64_t row = lanes() * memory_.width(plan_.inputs);
    const T* inputs = static_cast<const T*>(data_.inputs) + (span.start - data_.base) * row;
    if (std::memcmp(memory_.array(plan_.inputs), inputs, static_cast<size_t>(unfolded_.steps * row) * sizeof(T)) != 0) return false;
    const T* seen = unfolded_.weights.data();
    for (int i = 0; i < plan_.sources; ++i) {
        const auto count = static_cast<size_t>(plan_.buffers[static_cast<size_t>(i)]);
        if (std::memcmp(seen, memory_.buffer(i), count * sizeof(T)) != 0) return false;
        seen += count;
    }
    return true;
}

// The window's states.
template <class T>
void TypedLearner<T>::unfold(const Span& span) {
    const bool known = is_unfolded(span);
    if (!known) {
        refresh();
        put_states(at_.context);
    }
    at_initial_ = !at_.context.given;
    take_window(span.start, span.stop - span.start);
    initial_entered_ = at_initial_ || resetting_;
    if (known) dirty_ = false, unfolded_.start = -1;
    else forward();
}

template <class T>
Span TypedLearner<T>::next_span() const {
    Span span;
    span.start = at_.start;
    span.stop = std::min(at_.start + method_.depth, length_);
    span.follow = span.stop == length_ ? length_ : std::min(at_.start + method_.stride, length_);
    const int64_t unseen = at_.reached > at_.start ? at_.reached - at_.start : 0;
    span.first = method_.counted == 0 ? unseen : method_.counted == 1 ? span.stop - at_.start - 1 : 0;
    return span;
}

// A carried context goes on, with the weights from before the update.
template <class T>
void TypedLearner<T>::move(const Span& span) {
    if (method_.recomputed) return;
    if (span.follow < span.stop) {
        keep(span.follow - span.start, at_.context);
        return;
    }
    keep(steps_, at_.context);
    if (span.follow > span.stop) pass_over(at_.context, span.stop, span.follow);
}

// Loss, gradient and update of the window; false: not finite, or huge, and not made.
template <class T>
bool TypedLearner<T>::learn(const Span& span, Report& report, double* losses, double* norms, int64_t* counts) {
    read_out();
    const auto loss = static_cast<double>(static_cast<T>(find_loss()));
    run(read_backward_);
    backward();
    find_gradients();
    const double norm = updater_.norm(initial_entered_);
    losses[report.updates] = loss;
    norms[report.updates] = norm;
    counts[report.updates] = counted_;
    if (!std::isfinite(loss) || !(norm < huge)) return false;
    at_.entry = at_.context;
    keep(steps_, at_.end);
    move(span);
    at_.moved = at_.context;
    updater_.apply(method_.clip < 0 ? 1.0 : std::min(1.0, method_.clip / (norm + 1e-6)), initial_entered_);
    dirty_ = true;
    report.last = span;
    ++report.updates;
    return true;
}

// Window after window, until there are `most` updates in all; the clock is looked at after every `look` windows.
template <class T>
Halt TypedLearner<T>::advance(Report& report, int64_t most, int64_t look, Clock::time_point end, double* losses,
                              double* norms, int64_t* counts) {
    for (int64_t windows = 1;; ++windows) {
        if (at_.pending.follow >= 0) {
            if (!covered(at_.pending.start, at_.pending.follow)) return Halt::data;
            renew();
        }
        if (at_.start >= length_) return Halt::done;
        const Span span = next_span();
        if (!covered(span.start, std::max(span.stop, span.follow))) return Halt::data;
        unfold(span);
        count_rows(span.first);
        if (counted_ == 0) move(span);
        else if (!learn(span, report, losses, norms, counts)) return Halt::nonfinite;
        at_.start = span.follow;
        at_.reached = span.stop;
        at_.pending = span;
        if (report.updates >= most) return Halt::updates;
        if (windows % look == 0 && Clock::now() >= end) return Halt::time;
    }
}

// Whether an optimizer made weights that are not finite, or huge, is looked at only now and then; if so, we go back to
// the look before, come again one by one, and stop before the very update that did it.
template <class T>
Report TypedLearner<T>::run(const Data& data, int64_t most, double seconds, double* losses, double* norms,
                            int64_t* counts) {
    data_ = data;
    dirty_ = true;
    Report report;
    auto now = Clock::now();
    const auto end = now + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::min(seconds, 1e9)));
    for (int64_t interval = slow_interval;;) {
        marked_ = at_;
        const Report before = report;
        updater_.mark();
        const int64_t next = std::min(most, before.updates + interval);
        report.halt = advance(report, next, interval == usual_interval ? slow_interval : 1, end, losses, norms, counts);
        const int64_t made = report.updates - before.updates;
        const bool finite = report.halt != Halt::nonfinite;
        if (made > 0 && !(finite && updater_.in_range())) {
            const bool found = finite && made == 1;  // else: it may have been an earlier update
            at_ = marked_;
            report = before;
            updater_.go_back();
            dirty_ = true;
            if (found) return report.halt = Halt::nonfinite, report;
            interval = 1;
            continue;
        }
        if (report.halt != Halt::updates || report.updates >= most) return report;
        const auto then = std::exchange(now, Clock::now());
        if (now >= end) return report.halt = Halt::time, report;
        const std::chrono::duration<double> spent = now - then;
        if (interval > 1) interval = spent.count() < slow * static_cast<double>(made) ? usual_interval : slow_interval;
    }
}

template <class T>
void TypedLearner<T>::predict(const Data& data, int64_t first, void* to) {
    data_ = data;
    dirty_ = true;
    if (at_.pending.follow >= 0 && covered(at_.pending.start, at_.pending.follow)) renew();
    refresh();
    state_ = at_.context;
    const int64_t stop = data.base + data.steps;
    pass_over(state_, first, stop);
    if (steps_ == stop - first && data.reset == nullptr) remember(first);
    in_order_ = true;
    counted_ = lanes();
    counted_rows_[0] = static_cast<int32_t>((steps_ - 1) * lanes());
    read_out();
    std::memcpy(to, memory_.array(plan_.prediction),
                static_cast<size_t>(lanes() * memory_.width(plan_.prediction)) * sizeof(T));
}

}  // namespace

std::unique_ptr<Learner> make_learner(Plan plan) {
    check_plan(plan);
    if (plan.dtype == Dtype::float32) return std::make_unique<TypedLearner<float>>(std::move(plan));
    return std::make_unique<TypedLearner<double>>(std::move(plan));
}

}  // namespace bptt::online
