// One window of the online loop: its states, its loss, and the gradients of the parameters in their buffers.
#pragma once

#include <vector>

#include "online_memory.h"

namespace bptt::online {

// States of all leaves, [lanes, width] side by side; `given` false: the initial state.
template <class T>
struct Kept {
    std::vector<T> values;
    bool given = false;
};

template <class T>
class Window {
public:
    Window(const Plan& plan, Memory<T>& memory, const OnlineKernels<T>& online, const Kernels<T>& kernels);

    void bind();  // the memory's sources lie elsewhere
    void look_at(const Data& data);  // from now on; parameters may have changed as well
    void changed() { dirty_ = true; }  // the parameters
    void forget() { unfolded_.start = -1; }

    // The states of the steps start .. start + steps - 1.
    void unfold(const Kept<T>& context, int64_t start, int64_t steps);
    // The state after the steps from .. to - 1.
    void pass_over(Kept<T>& state, int64_t from, int64_t to);
    // The states at hand are of all steps from `start` on: to unfold these again from the same context is no work, as
    // long as inputs and parameters are the same.
    void remember(int64_t start);
    // The state before a step, counted from the window's start.
    void keep(int64_t step, Kept<T>& kept) const;

    // For who makes windows in another way: what is derived from the parameters is found, the state before step 0 put.
    void prepare(const Kept<T>& context);
    // The first step, `to` at the most, that is not at hand, has a reset or is over, or, from `counted_from` on, does not
    // count; one lane.
    int64_t usual_until(int64_t from, int64_t counted_from, int64_t to) const;
    const Data& data() const { return data_; }

    // The prediction after the last step, [lanes, width].
    void read_last(void* to);
    // Which rows count, from a step on; how many.
    int64_t count_rows(int64_t first);
    // The loss, and its gradient with respect to all that the parameters made.
    double find_slopes();
    // The gradients of the parameters, of the cost averaged over the copies or (not `mean`) summed. Weights of `matrices`
    // (by the gradient's buffer; null: none) go down by theirs at once; gives the sum of its squares.
    double find_gradients(bool mean, const std::vector<Descent<T>>* matrices);

    int64_t steps() const { return steps_; }
    bool initial_entered() const { return initial_entered_; }  // at the start, or at a reset
    bool covers(int64_t from, int64_t to) const { return data_.base <= from && to <= data_.base + data_.steps; }

private:
    const Plan& plan_;
    Memory<T>& memory_;
    const OnlineKernels<T>& online_;
    const Kernels<T>& kernels_;

    Data data_;
    bool dirty_ = true;  // whether the parameters changed since what is derived from them was found
    int64_t steps_ = 0, counted_ = 0, origin_ = 0;  // steps; counted rows; its first row in the data
    bool resetting_ = false, ending_ = false, in_order_ = true;
    bool at_initial_ = false, initial_entered_ = false;
    std::vector<int32_t> counted_rows_;  // step * lanes + lane
    std::vector<T> gathered_;
    std::vector<int64_t> gathered_index_;

    // What was unfolded when it was to be remembered.
    struct Unfolded {
        int64_t start = -1, steps = 0;
        std::vector<T> weights;
    };
    Unfolded unfolded_;

    // Instructions bound for windows of so many steps: the usual one, that of the advance, and a few others.
    struct Bound {
        int64_t steps = -1;
        bool resetting = false;
        std::vector<BoundRow<T>> ahead, back_ahead, behind;
        BoundLoop<T> forward, backward;
        std::vector<BoundFixed<T>> after;
    };
    static constexpr size_t most_bound = 4;
    Bound bounds_[most_bound];
    Bound* bound_ = bounds_;
    size_t oldest_ = 0;
    int64_t counted_bound_ = -1;  // and for so many counted rows
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

    void refresh();
    void rebind();
    void rebind_readout();
    void run(const std::vector<BoundRow<T>>& ops) const;

    void put_states(const Kept<T>& kept);
    void take(int64_t from, int64_t steps);
    void forward();
    void enter_states(int64_t t);
    void freeze(int64_t t);
    void read_out();
    double find_loss();
    bool wants_start() const;
    void backward();
    void settle(int64_t t);
    void zero_deltas();
    bool is_unfolded(int64_t start, int64_t steps) const;
};

}  // namespace bptt::online
