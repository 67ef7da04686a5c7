// The class Learner of the Python module: arrays checked, the loop run without the interpreter. What the arguments mean is
// told in src/bptt/_core.pyi.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <string>
#include <vector>

#include "../online.h"
#include "reader.h"

namespace bptt {

class CoreLearner {
public:
    explicit CoreLearner(const nb::dict& plan);

    void bind(const nb::list& sources);
    void set_buffer(int index, nb::handle values);
    void configure(int64_t depth, int64_t stride, const std::string& counted, bool recomputed, bool mean, double clip,
                   const nb::list& slots);
    void enter(nb::handle context, int64_t length, int64_t start, int64_t reached, nb::handle pending);
    void extend(int64_t length);
    nb::tuple run(nb::handle inputs, nb::handle targets, nb::handle mask, nb::handle reset, nb::handle lengths, int64_t base,
                  int64_t steps, double seconds, nb::handle losses, nb::handle norms, nb::handle counts, int64_t most);
    nb::tuple report() const;
    bool state(const std::string& what, const nb::list& to) const;
    void predict(nb::handle inputs, nb::handle reset, int64_t base, int64_t steps, int64_t first, nb::handle to);
    std::vector<bool> fresh() const { return learner_->fresh(); }
    int64_t needed() const { return learner_->needed(); }
    bool is_classic() const { return learner_->is_classic(); }
    nb::tuple position() const;

    const online::Plan& plan() const { return plan_; }
    // Where training stands, for who runs it step by step; throws before `bind` and `configure`.
    online::Learner& ready() const {
        if (!bound_ || !configured_) wrong("bind and configure come first");
        return *learner_;
    }
    const online::Method& method() const { return method_; }
    dlpack::DataType real() const {
        return {dlpack::code_float, static_cast<uint8_t>(plan_.dtype == Dtype::float32 ? 32 : 64), 1};
    }
    int64_t width(int array) const { return plan_.arrays[static_cast<size_t>(array)].width; }

private:
    online::Plan plan_;
    std::unique_ptr<online::Learner> learner_;
    online::Method method_;
    std::vector<int64_t> state_;
    nb::list sources_, states_;
    bool bound_ = false, configured_ = false;
    online::Report report_;

    online::Data data_of(Taken& taken, nb::handle inputs, nb::handle targets, nb::handle mask, nb::handle reset,
                         nb::handle lengths, int64_t base, int64_t steps) const;
    online::Slot slot_of(const nb::dict& d, nb::list& held) const;
};

void bind_learner(nb::module_& m);

}  // namespace bptt
