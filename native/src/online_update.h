// The optimizer's side of a learner: the gradient's norm, the update, and the way back to a place some updates ago.
#pragma once

#include <vector>

#include "online_memory.h"

namespace bptt::online {

// A gradient's norm, or a sum of squared weights, from which on an update is left to the caller: float32 ends at 3e38.
constexpr double huge = 1e15;

template <class T>
class Updater {
public:
    Updater(const Plan& plan, const Memory<T>& memory, const OnlineKernels<T>& online)
        : plan_(plan), memory_(memory), online_(online) {}

    void configure(const std::vector<Slot>& slots);
    void bind();  // the parameters lie elsewhere
    const std::vector<Slot>& slots() const { return slots_; }
    std::vector<bool> fresh() const;

    // Of all gradients together. Learned initial states have one only where the initial state entered.
    double norm(bool initial_entered) const;
    // The update, with gradients times `scale`.
    void apply(double scale, bool initial_entered);
    // Both in one pass, where the optimizer is plain gradient descent. Weights of `matrices` go down as their gradients are
    // summed, see Window::find_gradients, which gives the sum of their squares; the others here.
    bool is_descent() const { return descent_; }
    const std::vector<Descent<T>>& matrices() const { return matrices_; }
    double descend(double squares, bool initial_entered);
    const std::vector<Descent<T>>& others(bool initial_entered) const { return descents_[initial_entered]; }
    // Whether the weights are finite, and not huge.
    bool in_range() const;

    // What updates change is kept, or put back.
    void mark();
    void go_back();

private:
    const Plan& plan_;
    const Memory<T>& memory_;
    const OnlineKernels<T>& online_;
    std::vector<Slot> slots_;
    std::vector<UpdateCall<T>> calls_;  // what of them does not change from update to update
    bool descent_ = false;
    // By whether the initial state entered: what is made where the optimizer is plain gradient descent; the gradients alone.
    std::vector<Descent<T>> descents_[2], gradients_[2], weights_;
    std::vector<Descent<T>> matrices_;  // by the gradient's buffer; weight null: not one of them

    std::vector<T> marked_;
    std::vector<double> marked_counts_;
    std::vector<bool> marked_fresh_;

    // Adam's corrections of the last number of updates met: mostly all parameters share it.
    double known_count_ = -1, known_beta1_ = 0, known_beta2_ = 0, first_correction_ = 1, second_correction_ = 1;

    double run(const std::vector<Descent<T>>& all) const { return online_.descend(all.data(), static_cast<ptrdiff_t>(all.size())); }
    int64_t size(int buffer) const { return plan_.buffers[static_cast<size_t>(buffer)]; }
    template <class F>
    void each_array(F visit) const;
    void correct(const Slot& slot, double count);
    bool is_one_sum(const Slot& slot) const;
};

}  // namespace bptt::online
