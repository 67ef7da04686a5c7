// The plainest networks: whether a plan is one of them, and their windows, many in one call of a kernel; see
// kernels/online_classic.h.
#pragma once

#include <vector>

#include "online_memory.h"
#include "online_update.h"

namespace bptt::online {

template <class T>
class ClassicLoop {
public:
    ClassicLoop(const Plan& plan, const Memory<T>& memory, const OnlineKernels<T>& online)
        : plan_(plan), memory_(memory), online_(online) {}

    // Parameters, method or optimizer are other ones.
    void bind(const Method& method, const std::vector<Slot>& slots, const Updater<T>& updater);
    bool is_bound() const { return kernel_ != nullptr; }
    // So many windows from the one that starts at `start` on; the state before it, or before the window before it where
    // contexts are recomputed, is in the memory's states. Gives how many were made; see `ClassicKernel`.
    int64_t run(const Data& data, int64_t start, int64_t counted, int64_t windows, double* losses, double* norms);

private:
    const Plan& plan_;
    const Memory<T>& memory_;
    const OnlineKernels<T>& online_;
    ClassicKernel<T> kernel_ = nullptr;
    Classic<T> call_{};

    // Sources, by what they are; -1: there is none.
    struct Roles {
        int recurrent = -1, ahead = -1, bias[2] = {-1, -1}, readout = -1, readout_bias = -1;
    };
    bool find_step(Roles& roles);
    bool find_readout(Roles& roles);
    bool find_gradients(const Roles& roles, const std::vector<Slot>& slots, const Updater<T>& updater);
    bool is_whole(const Place& place, int array) const;
    bool is_parameter(const View& v) const;
    const View& matrix(const RowOp& product) const;
    void pack_again(const View& v, const T* read);
};

}  // namespace bptt::online
