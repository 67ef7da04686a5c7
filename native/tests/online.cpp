// Test of the online loop without Python, to be run under the sanitizers: whole runs of a small recurrent network with
// masks, resets, lengths, gaps and every optimizer.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "../src/isa.h"
#include "../src/online_memory.h"
#include "check.h"

using namespace bptt;
using namespace bptt::online;

namespace {

Place rows_of(int array, int64_t width, int shift = 0) { return {Place::array, array, shift, 0, width, 0}; }

// next = tanh(input @ U + state @ W), the output itself the prediction.
Plan small_plan(Dtype dtype, int64_t inputs, int64_t hidden, int64_t steps, int64_t lanes) {
    enum { x, states, entered, carries, drive, pre, delta, outputs, slope };
    Plan plan;
    plan.dtype = dtype;
    plan.steps = steps, plan.lanes = lanes, plan.sources = 2;
    plan.buffers = {inputs * hidden, hidden * hidden, inputs * hidden, hidden * hidden, lanes * hidden};
    plan.arrays = {{inputs, Domain::window}, {hidden, Domain::window}, {hidden, Domain::window}, {hidden, Domain::window},
                   {hidden, Domain::window}, {hidden, Domain::step},   {hidden, Domain::window}, {hidden, Domain::counted},
                   {hidden, Domain::counted}};
    const View u{0, 0, inputs, hidden, hidden, 1}, w{1, 0, hidden, hidden, hidden, 1}, back{1, 0, hidden, hidden, 1, hidden};
    plan.matrices = {{u, true}, {w, true}, {back, true}};
    plan.leaves = {{hidden, states, entered, carries, 4, false, -1}};
    plan.ahead = {{Op::matmul, rows_of(drive, hidden), rows_of(x, inputs), {}, {}, 0, true}};
    plan.forward = {{Op::matmul, rows_of(pre, hidden), rows_of(states, hidden), rows_of(drive, hidden), {}, 1, true},
                    {Op::tanh, rows_of(states, hidden, 1), rows_of(pre, hidden), {}, {}, -1, true}};
    plan.backward = {{Op::tanh_backward, rows_of(delta, hidden), rows_of(carries, hidden, 1), rows_of(states, hidden, 1), {}, -1, true},
                     {Op::matmul, rows_of(carries, hidden), rows_of(delta, hidden), {}, {}, 2, false}};
    plan.deltas = {delta};
    FixedOp gradient;
    gradient.kind = FixedOp::cross;
    gradient.scaled = true;
    gradient.left = rows_of(x, inputs), gradient.right = rows_of(delta, hidden);
    gradient.dst = {2, 0, inputs, hidden, hidden, 1};
    plan.after.push_back(gradient);
    gradient.left = rows_of(states, hidden);
    gradient.dst = {3, 0, hidden, hidden, hidden, 1};
    plan.after.push_back(gradient);
    plan.inputs = x, plan.output = 0, plan.outputs = plan.prediction = outputs, plan.slope = plan.upstream = slope;
    return plan;
}

// The same, with a linear readout: y = state @ V^T + c.
Plan plan_with_readout(Dtype dtype, int64_t inputs, int64_t hidden, int64_t outputs, int64_t steps) {
    Plan plan = small_plan(dtype, inputs, hidden, steps, 1);
    plan.buffers = {plan.buffers[0],  plan.buffers[1], outputs * hidden, outputs, plan.buffers[2],
                    plan.buffers[3], outputs * hidden, outputs,          hidden};
    plan.sources = 4;
    plan.leaves[0].initial = 8;
    plan.after[0].dst.buffer = 4, plan.after[1].dst.buffer = 5;
    const int states = static_cast<int>(plan.arrays.size()) - 2, slope = states + 1;
    const int prediction = states + 2, upstream = states + 3;
    plan.arrays[static_cast<size_t>(slope)].width = outputs;
    plan.arrays.push_back({outputs, Domain::counted});
    plan.arrays.push_back({hidden, Domain::counted});
    plan.matrices.push_back({View{2, 0, hidden, outputs, 1, hidden}, true});
    plan.matrices.push_back({View{2, 0, outputs, hidden, hidden, 1}, true});
    Place bias{Place::buffer, 3, 0, 0, outputs, 0};
    plan.read_forward = {{Op::matmul, rows_of(prediction, outputs), rows_of(states, hidden), bias, {}, 3, true}};
    plan.read_backward = {{Op::matmul, rows_of(upstream, hidden), rows_of(slope, outputs), {}, {}, 4, true}};
    FixedOp gradient;
    gradient.kind = FixedOp::cross;
    gradient.rows = Domain::counted;
    gradient.left = rows_of(slope, outputs), gradient.right = rows_of(states, hidden);
    gradient.dst = {6, 0, outputs, hidden, hidden, 1};
    plan.after.push_back(gradient);
    gradient.right = {};
    gradient.dst = {7, 0, outputs, 1, 1, 1};
    plan.after.push_back(gradient);
    plan.outputs = states, plan.prediction = prediction, plan.slope = slope, plan.upstream = upstream;
    return plan;
}

// Many windows in one call of a kernel are those made one by one, to the bit, also where gaps and resets come between.
template <class T>
void test_whole_windows(int64_t inputs, int64_t outputs, int64_t hidden, int64_t depth, int64_t stride, int counted, bool recomputed) {
    const int64_t length = 90;
    const auto x = random_array<T>(static_cast<size_t>(length * inputs), 3), y = random_array<T>(static_cast<size_t>(length * outputs), 4);
    std::vector<uint8_t> mask(static_cast<size_t>(length), 1), reset(mask.size(), 0);
    mask[40] = mask[62] = 0, reset[25] = 1;
    const auto run = [&](int64_t most, int64_t at_hand) {
        auto learner = make_learner(plan_with_readout(sizeof(T) == 4 ? Dtype::float32 : Dtype::float64, inputs, hidden, outputs, depth));
        std::vector<T> parameters[4];
        std::vector<void*> lie;
        std::vector<online::Slot> slots(4);
        const int64_t sizes[] = {inputs * hidden, hidden * hidden, outputs * hidden, outputs};
        for (size_t i = 0; i < 4; ++i) {
            parameters[i] = random_array<T>(static_cast<size_t>(sizes[i]), static_cast<unsigned>(5 + i));
            for (T& v : parameters[i]) v *= T(0.5) / std::sqrt(static_cast<T>(hidden));
            lie.push_back(parameters[i].data());
            slots[i].source = static_cast<int>(i), slots[i].gradient = static_cast<int>(4 + i), slots[i].rate = 0.02;
        }
        learner->bind(lie);
        learner->configure({depth, stride, counted, recomputed, true, -1}, slots);
        CHECK(learner->is_classic(), "hidden %lld", static_cast<long long>(hidden));
        const auto context = random_array<T>(static_cast<size_t>(hidden), 9);
        const std::vector<const void*> given = recomputed ? std::vector<const void*>{} : std::vector<const void*>{context.data()};
        learner->enter(given, length, 0, 0, {0, 0, 0, -1});
        std::vector<double> losses(200), norms(200), found;
        std::vector<int64_t> counts(200);
        Report report;
        int64_t at_most = at_hand;
        do {
            const int64_t base = learner->needed(), steps = std::min(length, base + at_most) - base;
            const auto at = static_cast<size_t>(base);
            report = learner->run({x.data() + at * static_cast<size_t>(inputs), y.data() + at * static_cast<size_t>(outputs),
                                   mask.data() + at, reset.data() + at, nullptr, base, steps},
                                  most, 10.0, losses.data(), norms.data(), counts.data());
            for (size_t i = 0; i < static_cast<size_t>(report.updates); ++i)
                for (const double v : {losses[i], norms[i], static_cast<double>(counts[i])}) found.push_back(v);
            if (report.halt == Halt::data && report.updates == 0) at_most += depth;
        } while (report.halt == Halt::updates || report.halt == Halt::data);
        CHECK(report.halt == Halt::done && found.size() > 60, "halt %d, hidden %lld, %lld at once", static_cast<int>(report.halt),
              static_cast<long long>(hidden), static_cast<long long>(most));
        std::vector<T> state(static_cast<size_t>(hidden));
        for (const auto what : {Learner::What::entry, Learner::What::context, Learner::What::end, Learner::What::present}) {
            learner->copy_state(what, {state.data()});
            for (const T v : state) found.push_back(static_cast<double>(v));
        }
        for (const auto& all : parameters)
            for (const T v : all) found.push_back(static_cast<double>(v));
        return found;
    };
    const auto wanted = run(1, length);
    for (const auto& [most, at_hand] : {std::pair<int64_t, int64_t>{2, length}, {200, length}, {7, 20}})
        CHECK(run(most, at_hand) == wanted, "hidden %lld, depth %lld, stride %lld, counted %d, recomputed %d, %lld at a time",
              static_cast<long long>(hidden), static_cast<long long>(depth), static_cast<long long>(stride), counted,
              static_cast<int>(recomputed), static_cast<long long>(most));
}

template <class T>
void test_whole_windows() {
    const int64_t lanes = online_tables<T>(1024).online.lanes;
    for (const int64_t vectors : {1, 2, 4, 8}) {
        const int64_t hidden = vectors * lanes;
        if (hidden < 8) continue;
        for (const auto& [depth, stride] : {std::pair<int64_t, int64_t>{1, 1}, {5, 1}, {4, 3}})
            for (int counted = 0; counted < 3; ++counted)
                for (const bool recomputed : {false, true}) test_whole_windows<T>(1, 1, hidden, depth, stride, counted, recomputed);
        test_whole_windows<T>(3, 4, hidden, 4, 2, 0, true);
        test_whole_windows<T>(4, 2, hidden, 3, 3, 0, false);
    }
}

// How many windows hold a row that counts.
int64_t windows_that_count(const std::vector<uint8_t>& mask, int64_t length, int64_t lanes, int64_t depth, int64_t stride,
                           int counted) {
    int64_t found = 0, reached = 0, stop = 0;
    for (int64_t start = 0; stop < length; start += stride) {
        stop = std::min(start + depth, length);
        const int64_t first = counted == 0 ? std::max(start, reached) : counted == 1 ? stop - 1 : start;
        bool any = false;
        for (int64_t i = first * lanes; i < stop * lanes; ++i) any = any || mask[static_cast<size_t>(i)] != 0;
        found += any ? 1 : 0;
        reached = stop;
        if (start + stride >= length) break;
    }
    return found;
}

template <class T>
void test_runs(OptimizerKind kind, int counted, bool recomputed, int64_t depth, int64_t stride, int64_t hidden, int64_t lanes) {
    const int64_t inputs = 3, length = 40;
    auto learner = make_learner(small_plan(sizeof(T) == 4 ? Dtype::float32 : Dtype::float64, inputs, hidden, depth, lanes));
    auto u = random_array<T>(static_cast<size_t>(inputs * hidden), 1), w = random_array<T>(static_cast<size_t>(hidden * hidden), 2);
    for (T& x : w) x *= T(0.3);
    learner->bind({u.data(), w.data()});
    std::vector<std::vector<T>> state(4, std::vector<T>(static_cast<size_t>(hidden * hidden), T(0)));
    std::vector<double> count(2, 0.0);
    std::vector<online::Slot> slots(2);
    for (int i = 0; i < 2; ++i) {
        auto& slot = slots[static_cast<size_t>(i)];
        slot.source = i, slot.gradient = 2 + i, slot.kind = kind;
        slot.rate = 0.01, slot.decay = 0.01, slot.momentum = 0.5, slot.beta1 = 0.9, slot.beta2 = 0.99, slot.epsilon = 1e-8;
        slot.state[0] = state[static_cast<size_t>(2 * i)].data();
        slot.state[1] = state[static_cast<size_t>(2 * i + 1)].data();
        slot.count = &count[static_cast<size_t>(i)], slot.count_is_double = true, slot.fresh = true;
    }
    learner->configure({depth, stride, counted, recomputed, true, 1.0}, slots);
    const auto x = random_array<T>(static_cast<size_t>(length * lanes * inputs), 3);
    const auto y = random_array<T>(static_cast<size_t>(length * lanes * hidden), 4);
    std::vector<uint8_t> mask(static_cast<size_t>(length * lanes), 1), reset(mask.size(), 0);
    for (size_t i = 0; i < mask.size(); i += 3) mask[i] = 0;
    for (size_t i = 30; i < mask.size(); ++i) mask[i] = i % 2 == 1 ? 0 : mask[i];
    reset[20] = reset[33] = 1;
    const std::vector<int64_t> lengths = lanes == 1 ? std::vector<int64_t>{length} : std::vector<int64_t>{length, 15};
    std::vector<double> losses(64), norms(64);
    std::vector<int64_t> counts(64);
    learner->enter({}, length, 0, 0, {0, 0, 0, -1});
    Report report;
    int64_t made = 0;
    do {
        const int64_t base = learner->needed(), steps = length - base;
        const auto at = static_cast<size_t>(base * lanes);
        std::vector<int64_t> left = lengths;
        for (int64_t& n : left) n = n > base ? n - base : 0;
        report = learner->run({x.data() + at * inputs, y.data() + at * hidden, mask.data() + at, reset.data() + at, left.data(),
                               base, steps},
                              2, 1.0, losses.data(), norms.data(), counts.data());
        made += report.updates;
        for (int64_t i = 0; i < report.updates; ++i) CHECK(std::isfinite(losses[static_cast<size_t>(i)]), "loss");
    } while (report.halt == Halt::updates);
    CHECK(report.halt == Halt::done, "halt %d", static_cast<int>(report.halt));
    const int64_t expected = windows_that_count(mask, length, lanes, depth, stride, counted);
    CHECK(made == expected, "%lld updates, not %lld", static_cast<long long>(made), static_cast<long long>(expected));
    std::vector<T> context(static_cast<size_t>(lanes * hidden));
    CHECK(learner->copy_state(Learner::What::present, {context.data()}), "a state");
    for (const T v : w) CHECK(std::isfinite(v), "weight");
}

// Updates after a prediction of the same steps take over what it unfolded: the numbers are those of unfolding anew, also
// where weights or inputs change in between.
template <class T>
void test_predicting_first(int64_t depth, int64_t stride, int64_t hidden) {
    const int64_t inputs = 2, length = 40;
    const auto y = random_array<T>(static_cast<size_t>(length * hidden), 4);
    const std::vector<uint8_t> mask(static_cast<size_t>(length), 1);
    const std::vector<uint8_t> resets(static_cast<size_t>(length), 0);  // with resets nothing is taken over
    const auto run = [&](bool taken_over) {
        auto learner = make_learner(small_plan(sizeof(T) == 4 ? Dtype::float32 : Dtype::float64, inputs, hidden, depth, 1));
        auto x = random_array<T>(static_cast<size_t>(length * inputs), 3);
        auto u = random_array<T>(static_cast<size_t>(inputs * hidden), 1), w = random_array<T>(static_cast<size_t>(hidden * hidden), 2);
        learner->bind({u.data(), w.data()});
        std::vector<online::Slot> slots(2);
        for (int i = 0; i < 2; ++i) {
            auto& slot = slots[static_cast<size_t>(i)];
            slot.source = i, slot.gradient = 2 + i, slot.rate = 0.05;
        }
        learner->configure({depth, stride, 0, true, false, -1}, slots);
        learner->enter({}, length, 0, 0, {0, 0, 0, -1});
        std::vector<double> losses;
        std::vector<T> prediction(static_cast<size_t>(hidden));
        for (int64_t t = 0; t + depth <= length; ++t) {
            const Data data{x.data(), y.data(), mask.data(), nullptr, nullptr, 0, t + depth};
            Data seen = data;
            seen.reset = taken_over ? nullptr : resets.data();
            learner->predict(seen, learner->position().start, prediction.data());
            if (t % 5 == 2) w[3] += T(0.1);
            if (t % 5 == 3) x[static_cast<size_t>((t + depth - 1) * inputs)] += T(0.5);
            double loss = 0, norm = 0;
            int64_t count = 0;
            const Report report = learner->run(data, 1, 0.0, &loss, &norm, &count);
            if (report.updates > 0) losses.push_back(loss), losses.push_back(norm);
        }
        for (const T v : w) losses.push_back(static_cast<double>(v));
        return losses;
    };
    CHECK(run(true) == run(false), "depth %lld stride %lld", static_cast<long long>(depth), static_cast<long long>(stride));
}

// Weights that leave the range at an update in the middle of a stretch: all before it is made, that one is not.
template <class T>
void test_going_back(OptimizerKind kind) {
    const int64_t inputs = 2, hidden = 5, depth = 3, length = 60;
    const auto x = random_array<T>(static_cast<size_t>(length * inputs), 3), y = random_array<T>(static_cast<size_t>(length * hidden), 4);
    const std::vector<uint8_t> mask(static_cast<size_t>(length), 1);
    std::vector<double> losses(64), norms(64);
    std::vector<int64_t> counts(64);
    struct Found {
        std::vector<T> numbers;
        std::vector<double> counts;
        Report report;
        Position position;
    };
    const auto run = [&](int64_t most) {
        auto learner = make_learner(small_plan(sizeof(T) == 4 ? Dtype::float32 : Dtype::float64, inputs, hidden, depth, 1));
        Found found;
        auto u = random_array<T>(static_cast<size_t>(inputs * hidden), 1), w = random_array<T>(static_cast<size_t>(hidden * hidden), 2);
        std::vector<T> state[2] = {std::vector<T>(w.size(), T(0)), std::vector<T>(w.size(), T(0))};
        learner->bind({u.data(), w.data()});
        double count = 0;
        std::vector<online::Slot> slots(2);
        for (int i = 0; i < 2; ++i) slots[static_cast<size_t>(i)].source = i, slots[static_cast<size_t>(i)].gradient = 2 + i;
        online::Slot& slot = slots[1];
        slot.kind = kind, slot.rate = 1, slot.decay = 4, slot.decoupled = true, slot.momentum = 0.5, slot.beta1 = 0.9, slot.beta2 = 0.99;
        slot.epsilon = 1e-8, slot.fresh = true, slot.count = &count, slot.count_is_double = true;
        slot.state[0] = state[0].data(), slot.state[1] = state[1].data();
        learner->configure({depth, 1, 0, true, false, -1}, slots);
        learner->enter({}, length, 0, 0, {0, 0, 0, -1});
        found.report = learner->run({x.data(), y.data(), mask.data(), nullptr, nullptr, 0, length}, most, 10.0, losses.data(),
                                    norms.data(), counts.data());
        found.position = learner->position();
        for (const auto* part : {&u, &w, &state[0], &state[1]})
            found.numbers.insert(found.numbers.end(), part->begin(), part->end());
        std::vector<T> context(static_cast<size_t>(hidden)), end(context);
        learner->copy_state(Learner::What::context, {context.data()});
        learner->copy_state(Learner::What::end, {end.data()});
        found.numbers.insert(found.numbers.end(), context.begin(), context.end());
        found.numbers.insert(found.numbers.end(), end.begin(), end.end());
        found.counts = {count, slot.fresh ? 1.0 : 0.0, learner->fresh()[1] ? 1.0 : 0.0};
        return found;
    };
    const Found whole = run(64);
    CHECK(whole.report.halt == Halt::nonfinite, "halt %d", static_cast<int>(whole.report.halt));
    const int64_t made = whole.report.updates;
    CHECK(made > 8 && made < 56, "%lld updates", static_cast<long long>(made));
    const Found stopped = run(made), further = run(made + 1);
    CHECK(stopped.report.halt == Halt::updates && stopped.report.updates == made, "the updates before");
    CHECK(further.report.halt == Halt::nonfinite && further.report.updates == made, "the update itself");
    for (const Found& other : {stopped, further}) {
        CHECK(other.numbers == whole.numbers, "weights, optimizer or states differ");
        CHECK(other.counts == whole.counts, "counts");
        CHECK(other.position.start == whole.position.start && other.position.reached == whole.position.reached, "position");
        CHECK(other.report.last.start == whole.report.last.start, "last");
    }
}

template <class T>
void all() {
    for (const int64_t hidden : {5, 8, 16}) {
        test_predicting_first<T>(4, 1, hidden);
        test_predicting_first<T>(5, 2, hidden);
    }
    test_whole_windows<T>();
    test_going_back<T>(OptimizerKind::sgd);
    test_going_back<T>(OptimizerKind::adam);
    for (const auto kind : {OptimizerKind::sgd, OptimizerKind::adam, OptimizerKind::rmsprop})
        for (int counted = 0; counted < 3; ++counted)
            for (const bool recomputed : {false, true})
                for (const auto& [depth, stride] : {std::pair<int64_t, int64_t>{4, 1}, {4, 4}, {3, 5}, {50, 7}})
                    for (const auto& [hidden, lanes] : {std::pair<int64_t, int64_t>{5, 2}, {8, 1}})
                        test_runs<T>(kind, counted, recomputed, depth, stride, hidden, lanes);
}

void test_refusals() {
    Plan plan = small_plan(Dtype::float32, 2, 3, 4, 1);
    plan.forward[0].matrix = 7;
    bool refused = false;
    try {
        make_learner(plan);
    } catch (const std::invalid_argument&) {
        refused = true;
    }
    CHECK(refused, "a matrix that is not there");
}

}  // namespace

int main() {
    on_every_variant("online", [] {
        all<float>();
        all<double>();
    });
    test_refusals();
    return 0;
}
