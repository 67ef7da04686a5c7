// See feed.h.
#include "feed.h"

#include <cmath>
#include <cstring>

#include "collected.h"

namespace bptt {

using namespace online;

namespace {

// Multiply-adds of a window from which on other threads of the interpreter may run meanwhile.
constexpr double long_work = 2e5;

template <class T>
bool all_finite(const void* data, int64_t count) {
    const T* x = static_cast<const T*>(data);
    for (int64_t i = 0; i < count; ++i)
        if (!std::isfinite(x[i])) return false;
    return true;
}

bool all_below(const void* data, int64_t count, int64_t classes) {
    const auto* x = static_cast<const int64_t*>(data);
    for (int64_t i = 0; i < count; ++i)
        if (x[i] < 0 || x[i] >= classes) return false;
    return true;
}

// Whether row-major rows of these sizes follow each other.
bool is_contiguous(const dlpack::Tensor& x, int first) {
    int64_t step = 1;
    for (int i = x.ndim - 1; i >= first; --i) {
        if (x.strides != nullptr && x.shape[i] > 1 && x.strides[i] != step) return false;
        step *= x.shape[i];
    }
    return true;
}

char* start_of(const dlpack::Tensor& x) { return static_cast<char*>(x.data) + x.byte_offset; }

}  // namespace

Rows::Rows(nb::object buffer) : buffer_(std::move(buffer)) {
    dlpack::Tensor x{};
    if (!look_quickly(buffer_, x) || x.device.type != dlpack::device_cpu) throw nb::type_error("buffer: no tensor in the CPU's memory");
    if (x.ndim < 2 || !is_contiguous(x, 0)) wrong("buffer: not contiguous, or without lanes");
    data_ = start_of(x);
    dtype_ = x.dtype;
    shape_.assign(x.shape, x.shape + x.ndim);
    for (size_t i = 1; i < shape_.size(); ++i) width_ *= shape_[i];
}

int Rows::put(int64_t index, nb::handle row, int64_t classes) const {
    if (Py_TYPE(row.ptr()) != Py_TYPE(buffer_.ptr()) || index < 0 || index >= capacity()) return -1;
    dlpack::Tensor x{};
    if (!look_quickly(row, x) || x.device.type != dlpack::device_cpu) return -1;
    if (x.dtype.code != dtype_.code || x.dtype.bits != dtype_.bits) return -1;
    const auto rank = static_cast<int>(shape_.size());
    const int first = x.ndim == rank - 1 ? 1 : x.ndim == rank - 2 && shape_[1] == 1 ? 2 : 0;
    if (first == 0 || !is_contiguous(x, 0)) return -1;
    for (int i = first; i < rank; ++i)
        if (x.shape[i - first] != shape_[static_cast<size_t>(i)]) return -1;
    const char* from = start_of(x);
    if (dtype_.code == dlpack::code_float) {
        if (!(dtype_.bits == 32 ? all_finite<float>(from, width_) : dtype_.bits == 64 && all_finite<double>(from, width_))) return -1;
    } else if (classes > 0 && !(dtype_.bits == 64 && all_below(from, width_, classes))) {
        return -1;
    }
    const auto bytes = static_cast<size_t>(width_) * (dtype_.bits / 8);
    std::memcpy(data_ + static_cast<size_t>(index) * bytes, from, bytes);
    return x.ndim;
}

Feed::Feed(nb::object learner, nb::object watch, nb::object check, nb::object standing, nb::object inputs, nb::object targets,
           nb::object mask, int64_t horizon, nb::object predictions)
    : learner_(std::move(learner)), watch_(std::move(watch)), check_(std::move(check)), standing_(std::move(standing)),
      inputs_(std::move(inputs)), targets_(std::move(targets)), mask_(std::move(mask)), predictions_(std::move(predictions)),
      horizon_(horizon) {
    const auto& core = nb::cast<const CoreLearner&>(learner_);
    const auto& in = nb::cast<const Rows&>(inputs_);
    const auto& out = nb::cast<const Rows&>(targets_);
    nb::cast<const Watch&>(watch_);
    nb::cast<const Standing&>(standing_);
    const Plan& plan = core.plan();
    const bool indices = plan.loss == LossKind::indices;
    const int64_t predicted = core.width(plan.prediction);
    const dlpack::DataType wanted = indices ? dlpack::DataType{dlpack::code_int, 64, 1} : core.real();
    const auto is = [](dlpack::DataType a, dlpack::DataType b) { return a.code == b.code && a.bits == b.bits; };
    if (!is(in.dtype(), core.real()) || in.width() != plan.lanes * core.width(plan.inputs)) wrong("inputs: of another kind");
    if (!is(out.dtype(), wanted) || out.width() != plan.lanes * (indices ? 1 : predicted)) wrong("targets: of another kind");
    if (out.capacity() != in.capacity() || horizon < 0) wrong("targets: another capacity, or a negative horizon");
    Taken taken;
    flags_ = static_cast<uint8_t*>(taken.take(mask_, "mask", {dlpack::code_bool, 8, 1}, in.capacity() * plan.lanes));
    classes_ = indices ? predicted : 0;
    width_ = plan.lanes * predicted;
    double weights = 0;
    for (int i = 0; i < plan.sources; ++i) weights += static_cast<double>(plan.buffers[static_cast<size_t>(i)]);
    long_ = weights * static_cast<double>(plan.steps * plan.lanes) > long_work;
}

Feed::Spare Feed::next(bool alone) {
    std::vector<Spare>& spare = spare_[alone];
    if (spare.empty()) {
        const auto& core = nb::cast<const CoreLearner&>(learner_);
        Taken taken;
        for (nb::handle tensor : predictions_(alone))
            spare.push_back({nb::borrow(tensor), taken.take(tensor, "predictions", core.real(), width_)});
        if (spare.empty()) wrong("predictions: none");
    }
    Spare found = std::move(spare.back());
    spare.pop_back();
    return found;
}

nb::object Feed::step(nb::handle input, nb::handle target) {
    if (!learner_.is_valid()) return nb::none();  // it is being collected
    const auto& core = *nb::inst_ptr<CoreLearner>(learner_);
    const auto& in = *nb::inst_ptr<Rows>(inputs_);
    auto& at = *nb::inst_ptr<Standing>(standing_);
    Learner& learner = core.ready();
    const int64_t row = at.steps - base, compared = row - horizon_, lanes = core.plan().lanes;
    if (compared < 0 || !nb::inst_ptr<Watch>(watch_)->holds()) return nb::none();
    if (!check_.is_none() && !nb::cast<bool>(check_())) return nb::none();
    const int dimensions = in.put(row, input, 0);
    if (dimensions < 0 || nb::inst_ptr<Rows>(targets_)->put(compared, target, classes_) < 0) return nb::none();
    const Spare prediction = next(dimensions < 2);
    std::memset(flags_ + compared * lanes, 1, static_cast<size_t>(lanes));
    const Data data{in.data(), nb::inst_ptr<Rows>(targets_)->data(), flags_, nullptr, nullptr, base, row + 1};
    const int64_t stop = at.start + core.method().depth;
    const bool due = stop <= at.steps - horizon_ + 1;
    double loss = 0, norm = 0;
    int64_t count = 0;
    Report report;
    const auto learn = [&] {
        if (horizon_ == 0) learner.predict(data, learner.position().start, prediction.data);
        if (due) report = learner.run(data, 1, 0.0, &loss, &norm, &count);
        if (horizon_ > 0 && report.halt != Halt::nonfinite) learner.predict(data, learner.position().start, prediction.data);
    };
    if (long_) {
        nb::gil_scoped_release unlocked;
        learn();
    } else {
        learn();
    }
    if (report.halt == Halt::nonfinite) return nb::none();
    if (report.updates > 0) at.loss = loss, at.gradient_norm = norm, ++at.updates;
    if (due) at.reached = stop, at.start += core.method().stride;
    ++at.steps;
    return prediction.tensor;
}

int Feed::traverse(visitproc visit, void* arg) const {
    for (const nb::object* held : {&learner_, &watch_, &check_, &standing_, &inputs_, &targets_, &mask_, &predictions_})
        Py_VISIT(held->ptr());
    return 0;
}

void Feed::clear() {
    for (nb::object* held : {&learner_, &watch_, &check_, &standing_, &inputs_, &targets_, &mask_, &predictions_}) held->reset();
}

void bind_feed(nb::module_& m) {
    nb::class_<Rows>(m, "Rows")
        .def(nb::init<nb::object>(), nb::arg("buffer"))
        .def("put", [](const Rows& rows, int64_t index, nb::handle row, int64_t classes) { return rows.put(index, row, classes) >= 0; },
             nb::arg("index"), nb::arg("row").none(), nb::arg("classes") = 0);
    nb::class_<Standing>(m, "Standing")
        .def(nb::init<>())
        .def_rw("steps", &Standing::steps)
        .def_rw("updates", &Standing::updates)
        .def_rw("start", &Standing::start)
        .def_rw("reached", &Standing::reached)
        .def_rw("loss", &Standing::loss)
        .def_rw("gradient_norm", &Standing::gradient_norm);
    nb::class_<Feed>(m, "Feed", nb::type_slots(collected<Feed>()))
        .def(nb::init<nb::object, nb::object, nb::object, nb::object, nb::object, nb::object, nb::object, int64_t, nb::object>(),
             nb::arg("learner"), nb::arg("watch"), nb::arg("check").none(), nb::arg("standing"), nb::arg("inputs"),
             nb::arg("targets"), nb::arg("mask"), nb::arg("horizon"), nb::arg("predictions"))
        .def_rw("base", &Feed::base)
        .def("step", &Feed::step, nb::arg("input").none(), nb::arg("target").none());
}

}  // namespace bptt
