// One window of the online loop; see online_window.h.
#include "online_window.h"

#include <algorithm>
#include <cstring>

namespace bptt::online {

template <class T>
Window<T>::Window(const Plan& plan, Memory<T>& memory, const OnlineKernels<T>& online, const Kernels<T>& kernels)
    : plan_(plan), memory_(memory), online_(online), kernels_(kernels) {
    counted_rows_.assign(static_cast<size_t>(plan_.steps * lanes()), 0);
    const int64_t width = memory_.width(plan_.prediction);
    gathered_.assign(static_cast<size_t>(plan_.steps * lanes() * width), T(0));
    gathered_index_.assign(static_cast<size_t>(plan_.steps * lanes()), 0);
}

template <class T>
void Window<T>::bind() {
    prepare_ = memory_.bind(plan_.prepare, false);
    for (Bound& bound : bounds_) bound.steps = -1;
    counted_bound_ = -1;
    for (const auto& op : prepare_) memory_.run(op);
    memory_.pack_all();
    forget();
}

template <class T>
void Window<T>::look_at(const Data& data) {
    data_ = data;
    dirty_ = true;
}

template <class T>
double Window<T>::find_slopes() {
    read_out();
    const double loss = find_loss();
    run(read_backward_);
    backward();
    return loss;
}

template <class T>
void Window<T>::read_last(void* to) {
    in_order_ = true;
    counted_ = lanes();
    counted_rows_[0] = static_cast<int32_t>((steps_ - 1) * lanes());
    read_out();
    std::memcpy(to, memory_.array(plan_.prediction),
                static_cast<size_t>(lanes() * memory_.width(plan_.prediction)) * sizeof(T));
}

// -- running bound instructions ------------------------------------------------------------------

// What is derived from the parameters, if they changed.
template <class T>
void Window<T>::refresh() {
    if (!dirty_) return;
    for (const auto& op : prepare_) memory_.run(op);
    memory_.pack_changed();
    dirty_ = false;
}

template <class T>
void Window<T>::rebind() {
    for (Bound& known : bounds_) {
        if (known.steps != steps_ || known.resetting != resetting_) continue;
        bound_ = &known;
        return;
    }
    bound_ = &bounds_[oldest_++ % most_bound];
    const int64_t rows = steps_ * lanes();
    bound_->ahead = memory_.bind(plan_.ahead, rows, resetting_);
    bound_->forward = memory_.bind_loop(plan_.forward, 1, resetting_);
    bound_->back_ahead = memory_.bind(plan_.back_ahead, rows, resetting_);
    bound_->backward = memory_.bind_loop(plan_.backward, -1, resetting_);
    bound_->behind = memory_.bind(plan_.behind, rows, resetting_);
    bound_->after = memory_.bind(plan_.after, resetting_);
    bound_->steps = steps_;
    bound_->resetting = resetting_;
}

template <class T>
void Window<T>::rebind_readout() {
    if (counted_bound_ == counted_) return;
    read_forward_ = memory_.bind(plan_.read_forward, counted_, false);
    read_backward_ = memory_.bind(plan_.read_backward, counted_, false);
    counted_bound_ = counted_;
}

template <class T>
void Window<T>::run(const std::vector<BoundRow<T>>& ops) const {
    for (const BoundRow<T>& op : ops) op.run();
}

template <class T>
void Window<T>::prepare(const Kept<T>& context) {
    refresh();
    put_states(context);
    forget();
}

template <class T>
int64_t Window<T>::usual_until(int64_t from, int64_t counted_from, int64_t to) const {
    to = std::min(to, data_.base + (data_.lengths == nullptr ? data_.steps : std::min(data_.steps, data_.lengths[0])));
    const auto find = [&](const uint8_t* flags, int64_t first, int wanted) {
        if (flags == nullptr || first >= to) return;
        const uint8_t* start = flags + (first - data_.base);
        const void* found = std::memchr(start, wanted, static_cast<size_t>(to - first));
        if (found != nullptr) to = first + (static_cast<const uint8_t*>(found) - start);
    };
    find(data_.reset, from, 1);
    find(data_.mask, counted_from, 0);
    return to;
}

// -- a window forward ----------------------------------------------------------------------------

// The state before step 0.
template <class T>
void Window<T>::put_states(const Kept<T>& kept) {
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
void Window<T>::keep(int64_t step, Kept<T>& kept) const {
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
void Window<T>::take(int64_t from, int64_t steps) {
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
void Window<T>::forward() {
    forget();
    run(bound_->ahead);
    BoundLoop<T>& loop = bound_->forward;
    loop.go_to(0);
    if (!resetting_ && !ending_) return loop.run(steps_);
    for (int64_t t = 0; t < steps_; ++t) {
        if (resetting_) enter_states(t);
        loop.run(1);
        if (ending_) freeze(t);
    }
}

template <class T>
void Window<T>::enter_states(int64_t t) {
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
void Window<T>::freeze(int64_t t) {
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
int64_t Window<T>::count_rows(int64_t first) {
    counted_ = 0;
    const uint8_t* mask = data_.mask + origin_ * lanes();
    for (int64_t i = first * lanes(); i < steps_ * lanes(); ++i)
        if (mask[i] != 0) counted_rows_[static_cast<size_t>(counted_++)] = static_cast<int32_t>(i);
    in_order_ = counted_ == (steps_ - first) * lanes();
    return counted_;
}

template <class T>
void Window<T>::read_out() {
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
double Window<T>::find_loss() {
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
bool Window<T>::wants_start() const {
    bool learned = false, entered = at_initial_;
    for (const Leaf& leaf : plan_.leaves) learned = learned || leaf.initial_gradient >= 0;
    for (int64_t lane = 0; lane < lanes(); ++lane) entered = entered || is_reset(0, lane);
    return learned && entered;
}

template <class T>
void Window<T>::backward() {
    const bool start_too = wants_start();
    for (const Leaf& leaf : plan_.leaves) {
        std::memset(memory_.at(leaf.carries, steps_), 0, static_cast<size_t>(lanes() * leaf.width) * sizeof(T));
        if (leaf.initial_gradient >= 0)
            std::memset(memory_.buffer(leaf.initial_gradient), 0, static_cast<size_t>(leaf.width) * sizeof(T));
    }
    const Leaf& out = leaf(static_cast<size_t>(plan_.output));
    const T* upstream = memory_.array(plan_.upstream) + counted_ * out.width;
    const bool settling = plan_.clip_state >= 0 || resetting_ || ending_;
    BoundLoop<T>& loop = bound_->backward;
    int64_t left = counted_;
    run(bound_->back_ahead);
    loop.go_to(steps_ - 1);
    for (int64_t t = steps_ - 1; t >= 0;) {
        T* carry = memory_.at(out.carries, t + 1);
        for (; left > 0 && counted_rows_[static_cast<size_t>(left - 1)] >= t * lanes(); --left) {
            upstream -= out.width;
            kernels_.accumulate(carry + (counted_rows_[static_cast<size_t>(left - 1)] - t * lanes()) * out.width, upstream,
                                out.width);
        }
        // As far as nothing is to be done between steps.
        const int64_t next = settling ? t - 1 : left > 0 ? counted_rows_[static_cast<size_t>(left - 1)] / lanes() : -1;
        if (next < 0 && !start_too) {
            loop.run(t);
            loop.run_first();
            break;
        }
        loop.run(t - next);
        if (settling) settle(t);
        t = next;
    }
    run(bound_->behind);
    if (ending_) zero_deltas();
    if (!at_initial_) return;
    for (const Leaf& leaf : plan_.leaves)
        for (int64_t lane = 0; leaf.initial_gradient >= 0 && lane < lanes(); ++lane)
            kernels_.accumulate(memory_.buffer(leaf.initial_gradient), memory_.at(leaf.carries, 0) + lane * leaf.width,
                                leaf.width);
}

// Clipping; at a reset the gradient goes to the initial state and no further; past a lane's end the carry waits.
template <class T>
void Window<T>::settle(int64_t t) {
    if (plan_.clip_state >= 0)
        for (const Leaf& leaf : plan_.leaves)
            kernels_.clamp(memory_.at(leaf.carries, t), lanes() * leaf.width, static_cast<T>(plan_.clip_state));
    for (int64_t lane = 0; lane < lanes() && (resetting_ || ending_); ++lane) {
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
void Window<T>::zero_deltas() {
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
double Window<T>::find_gradients(bool mean, const std::vector<Descent<T>>* matrices) {
    const T share = mean ? T(1) / static_cast<T>(steps_) : T(1);
    double squares = 0;
    for (BoundFixed<T>& bound : bound_->after) {
        if (bound.op->kind != FixedOp::cross) {
            memory_.run(bound);
            continue;
        }
        bound.cross.rows = bound.op->rows == Domain::counted ? counted_ : steps_ * lanes();
        bound.cross.factor = bound.op->scaled ? share : T(1);
        const Descent<T>* matrix = matrices == nullptr ? nullptr : &(*matrices)[static_cast<size_t>(bound.op->dst.buffer)];
        if (matrix == nullptr || matrix->weight == nullptr) {
            bound.sum_rows(bound.cross);
            continue;
        }
        Cross<T> down = bound.cross;
        down.dst = matrix->weight, down.step = matrix->step;
        squares += online_.cross_descend(down);
    }
    return squares;
}

// -- once more, or not ----------------------------------------------------------------------------

// In pieces as long as a window may be.
template <class T>
void Window<T>::pass_over(Kept<T>& state, int64_t from, int64_t to) {
    refresh();
    put_states(state);
    while (from < to) {
        const int64_t steps = to - from < plan_.steps ? to - from : plan_.steps;
        take(from, steps);
        forward();
        keep(steps, state);
        from += steps;
        if (from < to) put_states(state);
    }
}

template <class T>
void Window<T>::remember(int64_t start) {
    unfolded_.start = start, unfolded_.steps = steps_;
    unfolded_.weights.clear();
    for (int i = 0; i < plan_.sources; ++i) {
        const T* weights = memory_.buffer(i);
        unfolded_.weights.insert(unfolded_.weights.end(), weights, weights + plan_.buffers[static_cast<size_t>(i)]);
    }
}

template <class T>
bool Window<T>::is_unfolded(int64_t start, int64_t steps) const {
    if (start != unfolded_.start || steps != unfolded_.steps) return false;
    if (data_.reset != nullptr || data_.lengths != nullptr) return false;
    const int64_t row = lanes() * memory_.width(plan_.inputs);
    const T* inputs = static_cast<const T*>(data_.inputs) + (start - data_.base) * row;
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
void Window<T>::unfold(const Kept<T>& context, int64_t start, int64_t steps) {
    const bool known = is_unfolded(start, steps);
    if (!known) {
        refresh();
        put_states(context);
    }
    at_initial_ = !context.given;
    take(start, steps);
    initial_entered_ = at_initial_ || resetting_;
    if (known) dirty_ = false, forget();
    else forward();
}

template class Window<float>;
template class Window<double>;

}  // namespace bptt::online
