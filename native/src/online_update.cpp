// The update; see online_update.h.
#include "online_update.h"

#include <algorithm>
#include <cmath>

namespace bptt::online {
namespace {

double count_of(const Slot& slot) {
    if (slot.count == nullptr) return 0;
    return slot.count_is_double ? *static_cast<double*>(slot.count) : static_cast<double>(*static_cast<float*>(slot.count));
}

void set_count(const Slot& slot, double count) {
    if (slot.count == nullptr) return;
    if (slot.count_is_double) *static_cast<double*>(slot.count) = count;
    else *static_cast<float*>(slot.count) = static_cast<float>(count);
}

bool has_gradient(const Slot& slot, bool initial_entered) { return !slot.learned_initial || initial_entered; }

}  // namespace

template <class T>
void Updater<T>::configure(const std::vector<Slot>& slots) {
    slots_ = slots;
    bind();
}

template <class T>
void Updater<T>::bind() {
    calls_.clear();
    weights_.clear();
    for (const int entered : {0, 1}) descents_[entered].clear(), gradients_[entered].clear();
    descent_ = true;
    matrices_.assign(plan_.buffers.size(), {});
    for (const Slot& slot : slots_) {
        descent_ = descent_ && slot.kind == OptimizerKind::sgd && slot.state[0] == nullptr && slot.decay == 0;
        UpdateCall<T> call{};
        call.kind = slot.kind;
        call.weight = memory_.buffer(slot.source);
        call.gradient = memory_.buffer(slot.gradient);
        call.first = static_cast<T*>(slot.state[0]);
        call.second = static_cast<T*>(slot.state[1]);
        call.third = static_cast<T*>(slot.state[2]);
        call.count = size(slot.source);
        call.rate = static_cast<T>(slot.rate);
        call.decay = static_cast<T>(slot.decay);
        call.momentum = static_cast<T>(slot.momentum);
        call.dampening = static_cast<T>(slot.dampening);
        call.beta1 = static_cast<T>(slot.beta1);
        call.beta2 = static_cast<T>(slot.beta2);
        call.epsilon = static_cast<T>(slot.epsilon);
        call.nesterov = slot.nesterov;
        call.decoupled = slot.decoupled;
        calls_.push_back(call);
        weights_.push_back({nullptr, call.weight, call.count, T(0)});
        for (const int entered : {0, 1}) {
            if (!has_gradient(slot, entered != 0)) continue;
            gradients_[entered].push_back({nullptr, call.gradient, call.count, T(0)});
            const Descent<T> descent{call.weight, call.gradient, call.count, slot.maximize ? -call.rate : call.rate};
            if (is_one_sum(slot)) matrices_[static_cast<size_t>(slot.gradient)] = descent;
            else descents_[entered].push_back(descent);
        }
    }
}

// Whether the gradient is one sum over rows of pairs of columns, laid out as the weights are, and theirs alone. While
// sums are made no other instruction may read weights.
template <class T>
bool Updater<T>::is_one_sum(const Slot& slot) const {
    if (slot.learned_initial) return false;
    const auto is_its = [&](const auto& x) { return x.gradient == slot.gradient; };
    if (std::count_if(slots_.begin(), slots_.end(), is_its) != 1) return false;
    const FixedOp* found = nullptr;
    for (const FixedOp& op : plan_.after) {
        if (op.kind != FixedOp::cross) return false;
        if (op.dst.buffer != slot.gradient) continue;
        if (found != nullptr) return false;
        found = &op;
    }
    if (found == nullptr || found->right.kind == Place::none || found->accumulate) return false;
    const View& v = found->dst;
    return v.rows > 4 && v.columns > 4 && v.offset == 0 && v.row_stride == v.columns && v.rows * v.columns == size(slot.source);
}

template <class T>
std::vector<bool> Updater<T>::fresh() const {
    std::vector<bool> found;
    for (const Slot& slot : slots_) found.push_back(slot.fresh);
    return found;
}

template <class T>
double Updater<T>::norm(bool initial_entered) const {
    return static_cast<double>(static_cast<T>(std::sqrt(run(gradients_[initial_entered]))));
}

template <class T>
bool Updater<T>::in_range() const {
    return run(weights_) < huge;
}

template <class T>
void Updater<T>::correct(const Slot& slot, double count) {
    if (count == known_count_ && slot.beta1 == known_beta1_ && slot.beta2 == known_beta2_) return;
    known_count_ = count, known_beta1_ = slot.beta1, known_beta2_ = slot.beta2;
    first_correction_ = 1 - std::pow(slot.beta1, count);
    second_correction_ = std::sqrt(1 - std::pow(slot.beta2, count));
}

template <class T>
void Updater<T>::apply(double scale, bool initial_entered) {
    for (size_t i = 0; i < slots_.size(); ++i) {
        Slot& slot = slots_[i];
        if (!has_gradient(slot, initial_entered)) continue;
        UpdateCall<T>& call = calls_[i];
        call.scale = static_cast<T>(slot.maximize ? -scale : scale);
        call.fresh = slot.fresh;
        set_count(slot, count_of(slot) + 1);
        if (slot.kind == OptimizerKind::adam) {
            correct(slot, count_of(slot));
            call.step_size = static_cast<T>(slot.rate / first_correction_);
            call.correction = static_cast<T>(second_correction_);
        }
        online_.update(call);
        slot.fresh = false;
    }
}

template <class T>
double Updater<T>::descend(double squares, bool initial_entered) {
    return static_cast<double>(static_cast<T>(std::sqrt(squares + run(descents_[initial_entered]))));
}

// The arrays that updates change: weights, and what the optimizer keeps of each.
template <class T>
template <class F>
void Updater<T>::each_array(F visit) const {
    for (const UpdateCall<T>& call : calls_)
        for (T* array : {call.weight, call.first, call.second, call.third})
            if (array != nullptr) visit(array, static_cast<size_t>(call.count));
}

template <class T>
void Updater<T>::mark() {
    size_t total = 0;
    each_array([&](T*, size_t count) { total += count; });
    marked_.resize(total);
    T* to = marked_.data();
    each_array([&](const T* array, size_t count) {
        std::memcpy(to, array, count * sizeof(T));
        to += count;
    });
    marked_counts_.clear();
    for (const Slot& slot : slots_) marked_counts_.push_back(count_of(slot));
    marked_fresh_ = fresh();
}

template <class T>
void Updater<T>::go_back() {
    const T* from = marked_.data();
    each_array([&](T* array, size_t count) {
        std::memcpy(array, from, count * sizeof(T));
        from += count;
    });
    for (size_t i = 0; i < slots_.size(); ++i) {
        set_count(slots_[i], marked_counts_[i]);
        slots_[i].fresh = marked_fresh_[i];
    }
}

template class Updater<float>;
template class Updater<double>;

}  // namespace bptt::online
