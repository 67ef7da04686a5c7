// See learner.h.
#include "learner.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "plan.h"

namespace bptt {

using namespace nb::literals;
using namespace online;

namespace {

constexpr dlpack::DataType flag{dlpack::code_bool, 8, 1};

}  // namespace

CoreLearner::CoreLearner(const nb::dict& d) : plan_(plan_of(d)), learner_(make_learner(plan_)) {
    for (const Leaf& leaf : plan_.leaves) state_.push_back(leaf.width * plan_.lanes);
}

// Held until the next call: their memory is used in between.
void CoreLearner::bind(const nb::list& sources) {
    if (static_cast<int>(nb::len(sources)) != plan_.sources) wrong("sources: another number of arrays is expected");
    std::vector<void*> found;
    Taken taken;
    for (size_t i = 0; i < nb::len(sources); ++i) found.push_back(taken.take(sources[i], "sources", real(), plan_.buffers[i]));
    learner_->bind(found);
    sources_ = nb::list(sources);
    bound_ = true;
}

void CoreLearner::set_buffer(int index, nb::handle values) {
    if (index < plan_.sources || static_cast<size_t>(index) >= plan_.buffers.size()) wrong("there is no such buffer");
    Taken taken;
    learner_->set_buffer(index, taken.take(values, "buffer", real(), plan_.buffers[static_cast<size_t>(index)]));
}

void CoreLearner::configure(int64_t depth, int64_t stride, const std::string& counted, bool recomputed, bool mean, double clip,
               const nb::list& slots) {
    if (depth < 1 || stride < 1 || depth > plan_.steps) wrong("depth or stride is out of range");
    const Method method{depth, stride, counted == "new" ? 0 : counted == "last" ? 1 : 2, recomputed, mean, clip};
    std::vector<online::Slot> found;
    nb::list held;
    for (nb::handle item : slots) found.push_back(slot_of(nb::cast<nb::dict>(item), held));
    learner_->configure(method, found);
    method_ = method;
    states_ = held;
    configured_ = true;
}

void CoreLearner::enter(nb::handle context, int64_t length, int64_t start, int64_t reached, nb::handle pending) {
    std::vector<const void*> found;
    Taken taken;
    if (!context.is_none()) {
        size_t j = 0;
        for (nb::handle item : context) {
            if (j >= state_.size()) wrong("context: too many leaves");
            found.push_back(taken.take(item, "context", real(), state_[j++]));
        }
        if (j != state_.size()) wrong("context: too few leaves");
    }
    Span span{0, 0, 0, -1};
    if (!pending.is_none()) {
        Reader in(pending);
        span.start = in.next<int64_t>(), span.stop = in.next<int64_t>();
        span.first = in.next<int64_t>(), span.follow = in.next<int64_t>();
        if (span.start < 0 || span.follow < span.start) wrong("pending: out of range");
    }
    if (length < 0 || start < 0 || reached < 0) wrong("length, start or reached is negative");
    learner_->enter(found, length, start, reached, span);
}

nb::tuple CoreLearner::run(nb::handle inputs, nb::handle targets, nb::handle mask, nb::handle reset, nb::handle lengths, int64_t base,
              int64_t steps, double seconds, nb::handle losses, nb::handle norms, nb::handle counts, int64_t most) {
    if (!bound_ || !configured_) wrong("bind and configure come first");
    if (base < 0 || steps < 0 || most < 1) wrong("base, steps or most is out of range");
    Taken taken;
    const Data data = data_of(taken, inputs, targets, mask, reset, lengths, base, steps);
    auto* loss = static_cast<double*>(taken.take(losses, "losses", {dlpack::code_float, 64, 1}, most, true));
    auto* norm = static_cast<double*>(taken.take(norms, "norms", {dlpack::code_float, 64, 1}, most, true));
    auto* count = static_cast<int64_t*>(taken.take(counts, "counts", {dlpack::code_int, 64, 1}, most, true));
    report_ = Report{};
    {
        nb::gil_scoped_release unlocked;
        report_ = learner_->run(data, most, seconds, loss, norm, count);
    }
    return report();
}

nb::tuple CoreLearner::report() const {
    static const char* names[] = {"done", "updates", "time", "data", "nonfinite"};
    const auto tuple = [](const Span& s) { return nb::make_tuple(s.start, s.stop, s.first, s.follow); };
    return nb::make_tuple(names[static_cast<int>(report_.halt)], report_.updates, tuple(report_.last));
}

bool CoreLearner::state(const std::string& what, const nb::list& to) const {
    if (nb::len(to) != state_.size()) wrong("to: another number of leaves is expected");
    std::vector<void*> found;
    Taken taken;
    for (size_t j = 0; j < state_.size(); ++j) found.push_back(taken.take(to[j], "to", real(), state_[j]));
    static const std::string names[] = {"entry", "context", "end", "present"};
    for (int i = 0; i < 4; ++i)
        if (names[i] == what) return learner_->copy_state(static_cast<Learner::What>(i), found);
    wrong("there is no state '" + what + "'");
}

void CoreLearner::predict(nb::handle inputs, nb::handle reset, int64_t base, int64_t steps, int64_t first, nb::handle to) {
    if (!bound_ || !configured_) wrong("bind and configure come first");
    if (base < 0 || first < base || first >= base + steps) wrong("base, steps or first is out of range");
    Taken taken;
    Data data;
    data.base = base, data.steps = steps;
    const int64_t rows = steps * plan_.lanes;
    data.inputs = taken.take(inputs, "inputs", real(), rows * width(plan_.inputs), true);
    if (!reset.is_none()) data.reset = static_cast<uint8_t*>(taken.take(reset, "reset", flag, rows, true));
    void* out = taken.take(to, "to", real(), plan_.lanes * width(plan_.prediction));
    nb::gil_scoped_release unlocked;
    learner_->predict(data, first, out);
}

void CoreLearner::extend(int64_t length) {
    if (length < 0) wrong("length is negative");
    learner_->extend(length);
}
nb::tuple CoreLearner::position() const {
    const auto [start, reached, pending] = learner_->position();
    const nb::object left = pending.follow < 0 ? nb::object(nb::none())
        : nb::object(nb::make_tuple(pending.start, pending.stop, pending.first, pending.follow));
    return nb::make_tuple(start, reached, left);
}

Data CoreLearner::data_of(Taken& taken, nb::handle inputs, nb::handle targets, nb::handle mask, nb::handle reset, nb::handle lengths,
             int64_t base, int64_t steps) const {
    Data data;
    data.base = base, data.steps = steps;
    const int64_t rows = steps * plan_.lanes;
    data.inputs = taken.take(inputs, "inputs", real(), rows * width(plan_.inputs), true);
    if (plan_.loss == LossKind::indices) {
        const auto* index = static_cast<const int64_t*>(taken.take(targets, "targets", {dlpack::code_int, 64, 1}, rows, true));
        data.targets = index;
    } else {
        data.targets = taken.take(targets, "targets", real(), rows * width(plan_.prediction), true);
    }
    data.mask = static_cast<uint8_t*>(taken.take(mask, "mask", flag, rows, true));
    if (!reset.is_none()) data.reset = static_cast<uint8_t*>(taken.take(reset, "reset", flag, rows, true));
    if (!lengths.is_none())
        data.lengths = static_cast<int64_t*>(taken.take(lengths, "lengths", {dlpack::code_int, 64, 1}, plan_.lanes));
    return data;
}

online::Slot CoreLearner::slot_of(const nb::dict& d, nb::list& held) const {
    online::Slot slot;
    slot.source = nb::cast<int>(d["source"]);
    slot.gradient = nb::cast<int>(d["gradient"]);
    const auto buffers = static_cast<int>(plan_.buffers.size());
    if (slot.source < 0 || slot.source >= plan_.sources || slot.gradient < plan_.sources || slot.gradient >= buffers)
        wrong("slot: there is no such buffer");
    const int64_t count = plan_.buffers[static_cast<size_t>(slot.source)];
    if (plan_.buffers[static_cast<size_t>(slot.gradient)] != count) wrong("slot: a gradient of another size");
    const auto kind = nb::cast<std::string>(d["kind"]);
    slot.kind = kind == "sgd" ? OptimizerKind::sgd : kind == "adam" ? OptimizerKind::adam : OptimizerKind::rmsprop;
    slot.learned_initial = nb::cast<bool>(d["learned_initial"]);
    for (const auto& [name, to] : {std::pair{"rate", &slot.rate}, {"decay", &slot.decay}, {"momentum", &slot.momentum},
                                   {"dampening", &slot.dampening}, {"beta1", &slot.beta1}, {"beta2", &slot.beta2},
                                   {"epsilon", &slot.epsilon}})
        *to = nb::cast<double>(d[name]);
    for (const auto& [name, to] : {std::pair{"nesterov", &slot.nesterov}, {"maximize", &slot.maximize},
                                   {"decoupled", &slot.decoupled}, {"fresh", &slot.fresh}})
        *to = nb::cast<bool>(d[name]);
    size_t i = 0;
    Taken taken;
    for (nb::handle item : d["state"]) {
        if (i >= 3) wrong("slot: too many states");
        if (!item.is_none()) slot.state[i] = taken.take(item, "state", real(), count), held.append(item);
        ++i;
    }
    const bool complete = slot.kind == OptimizerKind::sgd || (slot.state[0] != nullptr &&
                          (slot.kind == OptimizerKind::rmsprop || slot.state[1] != nullptr));
    if (!complete) wrong("slot: a state is missing");
    const nb::object updates = d["count"];
    if (!updates.is_none()) {
        slot.count_is_double = nb::cast<bool>(d["count_is_double"]);
        const auto bits = static_cast<uint8_t>(slot.count_is_double ? 64 : 32);
        slot.count = taken.take(updates, "count", {dlpack::code_float, bits, 1}, 1);
        held.append(updates);
    } else if (slot.kind == OptimizerKind::adam) {
        wrong("slot: the number of updates is missing");
    }
    return slot;
}

void bind_learner(nb::module_& m) {
    nb::class_<CoreLearner>(m, "Learner")
        .def(nb::init<const nb::dict&>(), "plan"_a)
        .def("bind", &CoreLearner::bind, "sources"_a)
        .def("set_buffer", &CoreLearner::set_buffer, "index"_a, "values"_a)
        .def("configure", &CoreLearner::configure, "depth"_a, "stride"_a, "counted"_a, "recomputed"_a, "mean"_a, "clip"_a,
             "slots"_a)
        .def("enter", &CoreLearner::enter, "context"_a.none(), "length"_a, "start"_a, "reached"_a, "pending"_a.none())
        .def("extend", &CoreLearner::extend, "length"_a)
        .def("run", &CoreLearner::run, "inputs"_a, "targets"_a, "mask"_a, "reset"_a.none(), "lengths"_a.none(), "base"_a,
             "steps"_a, "seconds"_a, "losses"_a, "norms"_a, "counts"_a, "most"_a)
        .def("state", &CoreLearner::state, "what"_a, "to"_a)
        .def("predict", &CoreLearner::predict, "inputs"_a, "reset"_a.none(), "base"_a, "steps"_a, "first"_a, "to"_a)
        .def("fresh", &CoreLearner::fresh)
        .def("report", &CoreLearner::report)
        .def_prop_ro("needed", &CoreLearner::needed)
        .def_prop_ro("is_classic", &CoreLearner::is_classic)
        .def("position", &CoreLearner::position);
}

}  // namespace bptt
