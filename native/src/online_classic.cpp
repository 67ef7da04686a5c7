// Which plans are the plainest; see online_classic.h.
#include "online_classic.h"

#include <algorithm>

namespace bptt::online {
namespace {

bool is_whole_row(const View& v, int64_t width) {
    return v.offset == 0 && v.rows * v.columns == width && (v.columns == 1 ? v.row_stride : v.column_stride) == 1;
}

}  // namespace

template <class T>
void ClassicLoop<T>::bind(const Method& method, const std::vector<Slot>& slots, const Updater<T>& updater) {
    kernel_ = nullptr;
    call_ = Classic<T>{};
    if (plan_.lanes != 1 || plan_.leaves.size() != 1 || plan_.clip_state >= 0) return;
    if (method.clip >= 0 || method.stride > method.depth || method.depth != plan_.steps || !updater.is_descent()) return;
    call_.depth = method.depth, call_.stride = method.stride, call_.recomputed = method.recomputed;
    call_.share = method.mean ? T(1) / static_cast<T>(method.depth) : T(1);
    call_.loss = online_.loss[static_cast<int>(plan_.loss)];
    call_.limit = huge;
    Roles roles;
    if (!find_step(roles) || !find_readout(roles) || !find_gradients(roles, slots, updater)) kernel_ = nullptr;
}

template <class T>
bool ClassicLoop<T>::is_whole(const Place& place, int array) const {
    return place.kind == Place::array && place.index == array && place.offset == 0 && place.width == memory_.width(array);
}

template <class T>
bool ClassicLoop<T>::is_parameter(const View& v) const {
    if (v.buffer < 0 || v.buffer >= plan_.sources || v.offset != 0) return false;
    return v.rows * v.columns == plan_.buffers[static_cast<size_t>(v.buffer)];
}

template <class T>
const View& ClassicLoop<T>::matrix(const RowOp& product) const {
    return plan_.matrices[static_cast<size_t>(product.matrix)].view;
}

// The matrix is read where it lies, or from a copy that is made again after every update.
template <class T>
void ClassicLoop<T>::pack_again(const View& v, const T* read) {
    const T* const lies = memory_.buffer(v.buffer);
    if (read == lies) return;
    Packing<T>& next = call_.packings[call_.packings[0].to == nullptr ? 0 : 1];
    next = {lies, v.row_stride, v.column_stride, v.rows, const_cast<T*>(read)};
}

// The step is tanh of a product of the state and, made ahead, one of few inputs and a bias, or a sum of two.
template <class T>
bool ClassicLoop<T>::find_step(Roles& roles) {
    if (plan_.ahead.size() != 1 || !plan_.back_ahead.empty() || !plan_.behind.empty()) return false;
    const RowOp& ahead = plan_.ahead[0];
    if (ahead.op != Op::matmul || !is_whole(ahead.a, plan_.inputs) || ahead.a.width > 4) return false;
    if (plan_.forward.size() != 2 || plan_.forward[1].op != Op::tanh) return false;
    const auto there = memory_.bind_loop(plan_.forward, 1, false), back = memory_.bind_loop(plan_.backward, -1, false);
    if (there.chain() == nullptr || back.chain() == nullptr) return false;
    const Chain<T>&forward = *there.chain(), &backward = *back.chain();
    call_.ahead = memory_.bind(plan_.ahead, 1, false)[0].product;
    const Leaf& leaf = plan_.leaves[0];
    const ptrdiff_t hidden = leaf.width;
    T *states = memory_.at(leaf.states, 0), *carries = memory_.at(leaf.carries, 0);
    if (forward.product.a != states || forward.call.dst != states + hidden || forward.product.init != call_.ahead.dst) return false;
    if (backward.product.dst != carries || backward.call.a != carries + hidden || backward.call.b != states + hidden) return false;
    if (backward.product.init != nullptr || backward.out_step != -hidden) return false;
    kernel_ = online_.classic(forward.product, backward.product);
    call_.forward = forward.product.m, call_.backward = backward.product.m;
    call_.states = states, call_.deltas = backward.call.dst, call_.slopes = memory_.at(plan_.slope, 0);

    const View &w = matrix(plan_.forward[0]), &w_back = matrix(plan_.backward[1]), &u = matrix(ahead);
    if (!is_parameter(w) || !is_parameter(u) || w_back.buffer != w.buffer || w_back.offset != 0) return false;
    if (w_back.row_stride != w.column_stride || w_back.column_stride != w.row_stride) return false;
    const bool by_units = w.row_stride == 1;
    T *first = by_units ? call_.deltas : states, *second = by_units ? states : call_.deltas;
    call_.recurrent = {memory_.buffer(w.buffer), first, second, hidden, hidden, hidden, call_.depth, hidden, hidden, call_.share,
                       false, T(0)};
    pack_again(w, call_.forward);
    pack_again(w_back, call_.backward);
    pack_again(u, call_.ahead.m);
    call_.ahead_row = u.row_stride, call_.ahead_step = u.column_stride;
    roles.recurrent = w.buffer, roles.ahead = u.buffer;

    if (ahead.b.kind == Place::none) return plan_.prepare.empty();
    if (ahead.b.kind != Place::buffer || ahead.b.offset != 0) return false;
    if (plan_.prepare.empty()) {
        roles.bias[0] = ahead.b.index;
        return ahead.b.index < plan_.sources && plan_.buffers[static_cast<size_t>(ahead.b.index)] == hidden;
    }
    const FixedOp& sum = plan_.prepare[0];
    if (plan_.prepare.size() != 1 || sum.kind != FixedOp::pointwise || sum.op != Op::add) return false;
    if (sum.dst.buffer != ahead.b.index || !is_parameter(sum.a) || !is_parameter(sum.b)) return false;
    for (const View* v : {&sum.dst, &sum.a, &sum.b})
        if (!is_whole_row(*v, hidden)) return false;
    roles.bias[0] = sum.a.buffer, roles.bias[1] = sum.b.buffer;
    call_.bias = memory_.buffer(sum.dst.buffer);
    call_.summands[0] = memory_.buffer(sum.a.buffer), call_.summands[1] = memory_.buffer(sum.b.buffer);
    return true;
}

// The readout is linear, to few outputs.
template <class T>
bool ClassicLoop<T>::find_readout(Roles& roles) {
    if (plan_.read_forward.size() != 1 || plan_.read_backward.empty()) return false;
    const RowOp &there = plan_.read_forward[0], &back = plan_.read_backward[0];
    for (const RowOp& op : plan_.read_backward)
        if (op.op != (&op == &back ? Op::matmul : Op::copy)) return false;
    if (there.op != Op::matmul || !is_whole(there.a, plan_.outputs) || !is_whole(there.dst, plan_.prediction)) return false;
    if (!is_whole(back.a, plan_.slope) || !is_whole(back.dst, plan_.upstream) || back.b.kind != Place::none) return false;
    const auto bound = memory_.bind(plan_.read_forward, 1, false)[0];
    if (bound.multiply != online_.dots) return false;
    call_.readout = bound.product;
    call_.back = memory_.bind(plan_.read_backward, 1, false)[0].product;
    const View &v = matrix(there), &v_back = matrix(back);
    const int64_t hidden = plan_.leaves[0].width, outputs = there.dst.width;
    if (!is_parameter(v) || v_back.buffer != v.buffer || call_.back.m != memory_.buffer(v.buffer)) return false;
    if (outputs > 1 && (v.column_stride != hidden || v_back.row_stride != hidden)) return false;
    roles.readout = v.buffer;
    if (there.b.kind == Place::none) return true;
    roles.readout_bias = there.b.index;
    return there.b.kind == Place::buffer && there.b.offset == 0 && there.b.index < plan_.sources &&
           plan_.buffers[static_cast<size_t>(there.b.index)] == outputs;
}

// Every parameter has one role, and goes down by a gradient of its own; the two biases by the same.
template <class T>
bool ClassicLoop<T>::find_gradients(const Roles& roles, const std::vector<Slot>& slots, const Updater<T>& updater) {
    std::vector<int> wanted, found;
    for (const int source : {roles.recurrent, roles.ahead, roles.bias[0], roles.bias[1], roles.readout, roles.readout_bias})
        if (source >= 0) wanted.push_back(source);
    for (const Slot& slot : slots)
        if (!slot.learned_initial) found.push_back(slot.source);
    std::sort(wanted.begin(), wanted.end());
    std::sort(found.begin(), found.end());
    if (wanted != found || std::adjacent_find(found.begin(), found.end()) != found.end()) return false;
    const auto gradient_of = [&](int source) {
        for (const Slot& slot : slots)
            if (slot.source == source && !slot.learned_initial) return slot.gradient;
        return -1;
    };
    const auto memory_of = [&](int source) { return source < 0 ? nullptr : memory_.buffer(gradient_of(source)); };
    if (roles.bias[1] >= 0 && gradient_of(roles.bias[0]) != gradient_of(roles.bias[1])) return false;
    for (const FixedOp& op : plan_.after)
        if (op.kind != FixedOp::cross || op.accumulate || op.scaled != (op.rows == Domain::window)) return false;
    const Descent<T>& matrix = updater.matrices()[static_cast<size_t>(gradient_of(roles.recurrent))];
    const auto& others = updater.others(false);
    if (matrix.weight != call_.recurrent.dst || others.size() + 1 != found.size()) return false;
    call_.recurrent.step = matrix.step;
    call_.descents = others.data(), call_.descents_count = static_cast<ptrdiff_t>(others.size());
    call_.bias_gradient = memory_of(roles.bias[0]), call_.ahead_gradient = memory_of(roles.ahead);
    call_.readout_gradient = memory_of(roles.readout), call_.readout_bias_gradient = memory_of(roles.readout_bias);
    return true;
}

template <class T>
int64_t ClassicLoop<T>::run(const Data& data, int64_t start, int64_t counted, int64_t windows, double* losses, double* norms) {
    const int64_t row = start - data.base, before = call_.recomputed ? call_.stride : 0, width = call_.readout.n;
    call_.counted = counted;
    call_.input = static_cast<const T*>(data.inputs) + (row - before) * call_.ahead.k;
    const bool indices = plan_.loss == LossKind::indices;
    call_.target = indices ? nullptr : static_cast<const T*>(data.targets) + row * width;
    call_.index = indices ? static_cast<const int64_t*>(data.targets) + row : nullptr;
    return kernel_(call_, windows, losses, norms);
}

template class ClassicLoop<float>;
template class ClassicLoop<double>;

}  // namespace bptt::online
