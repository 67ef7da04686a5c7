// The loop over windows; see online.h.
#include "online.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "online_classic.h"
#include "online_memory.h"
#include "online_update.h"
#include "online_window.h"

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
    bool is_classic() const override { return classic_.is_bound(); }
    Position position() const override { return {at_.start, at_.reached, at_.pending}; }
    int64_t needed() const override { return at_.pending.follow >= 0 ? at_.pending.start : at_.start; }

private:
    const Plan plan_;
    const Tables<T> tables_;
    Memory<T> memory_;
    Updater<T> updater_;
    Window<T> window_;
    ClassicLoop<T> classic_;
    Method method_;
    int64_t state_size_ = 0;

    // Where training stands.
    struct Standing {
        Kept<T> context, end;  // what goes on; of the last update, see What
        // Of the last update: what went into it, unless that is still the context, which is to be renewed.
        Kept<T> entry;
        bool entry_is_context = false;
        int64_t start = 0, reached = 0;
        Span pending{0, 0, 0, -1};
    };
    Standing at_, marked_;
    int64_t length_ = 0;
    Kept<T> state_;  // of a prediction on its way

    const Leaf& leaf(size_t j) const { return plan_.leaves[j]; }
    int64_t lanes() const { return plan_.lanes; }

    void renew();
    Span next_span() const;
    void move(const Span& span);
    Halt advance(Report& report, int64_t most, int64_t look, Clock::time_point end, double* losses, double* norms,
                 int64_t* counts);
    bool learn(const Span& span, int64_t counted, Report& report, double* losses, double* norms, int64_t* counts);
    int64_t usual_windows(int64_t most) const;
    bool learn_usual(int64_t windows, Report& report, double* losses, double* norms, int64_t* counts);
};

int64_t widest(const Plan& plan) {
    int64_t most = 0;
    for (const Leaf& leaf : plan.leaves) most = std::max(most, leaf.width);
    return most;
}

template <class T>
TypedLearner<T>::TypedLearner(Plan plan)
    : plan_(std::move(plan)),
      tables_(online_tables<T>(widest(plan_))),
      memory_(plan_, tables_.online, tables_.kernels),
      updater_(plan_, memory_, tables_.online),
      window_(plan_, memory_, tables_.online, tables_.kernels),
      classic_(plan_, memory_, tables_.online) {
    for (const Leaf& leaf : plan_.leaves) state_size_ += lanes() * leaf.width;
    for (Kept<T>* kept : {&at_.context, &at_.entry, &at_.end})
        kept->values.assign(static_cast<size_t>(state_size_), T(0));
}

template <class T>
void TypedLearner<T>::bind(const std::vector<void*>& sources) {
    for (size_t i = 0; i < sources.size(); ++i) memory_.set_source(static_cast<int>(i), static_cast<T*>(sources[i]));
    window_.bind();
    window_.changed();
    updater_.bind();
    classic_.bind(method_, updater_.slots(), updater_);
}

template <class T>
void TypedLearner<T>::set_buffer(int buffer, const void* values) {
    std::memcpy(memory_.buffer(buffer), values, static_cast<size_t>(plan_.buffers[static_cast<size_t>(buffer)]) * sizeof(T));
    window_.forget();
}

template <class T>
void TypedLearner<T>::configure(const Method& method, const std::vector<Slot>& slots) {
    method_ = method;
    updater_.configure(slots);
    classic_.bind(method_, updater_.slots(), updater_);
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
    at_.entry_is_context = false;
    length_ = length, at_.start = start, at_.reached = reached, at_.pending = pending;
    window_.forget();
}

template <class T>
bool TypedLearner<T>::copy_state(What what, const std::vector<void*>& to) const {
    const Kept<T>& entry = at_.entry_is_context ? at_.context : at_.entry;
    const Kept<T>* const all[] = {&entry, method_.recomputed ? &entry : &at_.context, &at_.end, &at_.context};
    const Kept<T>& kept = *all[static_cast<int>(what)];
    if (!kept.given) return false;
    const T* from = kept.values.data();
    for (size_t j = 0; j < to.size(); ++j) {
        const auto count = static_cast<size_t>(lanes() * leaf(j).width);
        std::memcpy(to[j], from, count * sizeof(T));
        from += count;
    }
    return true;
}

// -- from window to window -----------------------------------------------------------------------

template <class T>
void TypedLearner<T>::renew() {
    const Span pending = at_.pending;
    at_.pending.follow = -1;
    if (!method_.recomputed) return;
    if (at_.entry_is_context) at_.entry = at_.context, at_.entry_is_context = false;
    window_.pass_over(at_.context, pending.start, pending.follow);
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
        window_.keep(span.follow - span.start, at_.context);
        return;
    }
    window_.keep(window_.steps(), at_.context);
    if (span.follow > span.stop) window_.pass_over(at_.context, span.stop, span.follow);
}

// Loss, gradient and update of the window; false: not finite, or huge. The update may have been made, all the same.
template <class T>
bool TypedLearner<T>::learn(const Span& span, int64_t counted, Report& report, double* losses, double* norms,
                            int64_t* counts) {
    const bool entered = window_.initial_entered();
    // A context that goes on beyond the window takes its place before the update.
    const bool stays = method_.recomputed || span.follow <= span.stop;
    const bool at_once = method_.clip < 0 && updater_.is_descent() && stays;
    const auto loss = static_cast<double>(static_cast<T>(window_.find_slopes()));
    double norm = 0;
    if (!at_once) window_.find_gradients(method_.mean, nullptr), norm = updater_.norm(entered);
    losses[report.updates] = loss;
    norms[report.updates] = norm;
    counts[report.updates] = counted;
    if (!std::isfinite(loss) || !(norm < huge)) return false;
    window_.keep(window_.steps(), at_.end);
    at_.entry_is_context = method_.recomputed;
    if (!method_.recomputed) at_.entry = at_.context;
    move(span);
    window_.changed();
    if (at_once) {
        const double squares = window_.find_gradients(method_.mean, &updater_.matrices());
        norms[report.updates] = norm = updater_.descend(squares, entered);
        if (!(norm < huge)) return false;
    } else {
        updater_.apply(method_.clip < 0 ? 1.0 : std::min(1.0, method_.clip / (norm + 1e-6)), entered);
    }
    report.last = span;
    ++report.updates;
    return true;
}

// How many windows on from here are like each other, and like what the kernel of whole windows makes of them: full, all
// that is new counts, the next one begins before the end.
template <class T>
int64_t TypedLearner<T>::usual_windows(int64_t most) const {
    if (most < 2 || !classic_.is_bound() || !at_.context.given) return 0;
    const int64_t depth = method_.depth, stride = method_.stride, from = at_.start - (method_.recomputed ? stride : 0);
    if (method_.recomputed && (at_.pending.follow != at_.start || at_.pending.start != from)) return 0;
    if (method_.counted == 0 && at_.reached != at_.start + depth - stride) return 0;
    if (from < window_.data().base) return 0;
    const int64_t end = std::min(length_ - 1, at_.start + (most - 1) * stride + depth);
    const int64_t stop = window_.usual_until(from, next_span().first + at_.start, end);
    return stop < at_.start + depth ? 0 : (stop - at_.start - depth) / stride + 1;
}

// These windows; false: as `learn`.
template <class T>
bool TypedLearner<T>::learn_usual(int64_t windows, Report& report, double* losses, double* norms, int64_t* counts) {
    window_.prepare(at_.context);
    Span last = next_span();
    const int64_t counted = method_.depth - last.first;
    const int64_t made = classic_.run(window_.data(), at_.start, counted, windows, losses + report.updates, norms + report.updates);
    window_.changed();
    report.updates += made;
    if (made < windows) return false;
    std::fill_n(counts + report.updates - windows, windows, counted);
    const int64_t passed = (windows - 1) * method_.stride;
    last.start += passed, last.stop += passed, last.follow += passed;
    at_.entry_is_context = method_.recomputed;
    window_.keep(0, method_.recomputed ? at_.context : at_.entry);
    if (!method_.recomputed) window_.keep(method_.stride, at_.context);
    window_.keep(method_.depth, at_.end);
    at_.start = last.follow, at_.reached = last.stop, at_.pending = report.last = last;
    return true;
}

// Window after window, until there are `most` updates in all; the clock is looked at after every `look` windows.
template <class T>
Halt TypedLearner<T>::advance(Report& report, int64_t most, int64_t look, Clock::time_point end, double* losses,
                              double* norms, int64_t* counts) {
    for (int64_t windows = 1;; ++windows) {
        if (const int64_t usual = usual_windows(most - report.updates); usual > 1) {
            if (!learn_usual(usual, report, losses, norms, counts)) return Halt::nonfinite;
            if (report.updates >= most) return Halt::updates;
            if (Clock::now() >= end) return Halt::time;
        }
        if (at_.pending.follow >= 0) {
            if (!window_.covers(at_.pending.start, at_.pending.follow)) return Halt::data;
            renew();
        }
        if (at_.start >= length_) return Halt::done;
        const Span span = next_span();
        if (!window_.covers(span.start, std::max(span.stop, span.follow))) return Halt::data;
        window_.unfold(at_.context, span.start, span.stop - span.start);
        const int64_t counted = window_.count_rows(span.first);
        if (counted == 0) move(span);
        else if (!learn(span, counted, report, losses, norms, counts)) return Halt::nonfinite;
        at_.start = span.follow;
        at_.reached = span.stop;
        at_.pending = span;
        if (report.updates >= most) return Halt::updates;
        if (windows % look == 0 && Clock::now() >= end) return Halt::time;
    }
}

// Whether an optimizer made weights that are not finite, or huge, is looked at only now and then. If so, or if a gradient
// was, we go back to the look before, come again one by one, and stop before the very update that did it.
template <class T>
Report TypedLearner<T>::run(const Data& data, int64_t most, double seconds, double* losses, double* norms,
                            int64_t* counts) {
    window_.look_at(data);
    Report report;
    auto now = Clock::now();
    const auto end = now + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::min(seconds, 1e9)));
    for (int64_t interval = slow_interval;;) {
        marked_ = at_;
        const Report before = report;
        updater_.mark();
        const int64_t next = std::min(most, before.updates + interval), look = interval == usual_interval ? slow_interval : 1;
        report.halt = advance(report, next, look, end, losses, norms, counts);
        const int64_t made = report.updates - before.updates;
        const bool finite = report.halt != Halt::nonfinite;
        if (!finite || (made > 0 && !updater_.in_range())) {
            const bool found = made == (finite ? 1 : 0);  // else: it may have been an earlier update
            at_ = marked_;
            report = before;
            updater_.go_back();
            window_.changed();
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
    window_.look_at(data);
    if (at_.pending.follow >= 0 && window_.covers(at_.pending.start, at_.pending.follow)) renew();
    state_ = at_.context;
    const int64_t stop = data.base + data.steps;
    window_.pass_over(state_, first, stop);
    if (window_.steps() == stop - first && data.reset == nullptr) window_.remember(first);
    window_.read_last(to);
}

}  // namespace

std::unique_ptr<Learner> make_learner(Plan plan) {
    check_plan(plan);
    if (plan.dtype == Dtype::float32) return std::make_unique<TypedLearner<float>>(std::move(plan));
    return std::make_unique<TypedLearner<double>>(std::move(plan));
}

}  // namespace bptt::online
