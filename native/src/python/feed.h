// Live data: a step read, learned from and answered with a prediction in one call. What it means is told in
// src/bptt/_core.pyi.
#pragma once

#include <nanobind/nanobind.h>

#include <limits>
#include <vector>

#include "learner.h"
#include "watch.h"

namespace bptt {

// A contiguous buffer [capacity, lanes, ...] that steps are written into as they come.
class Rows {
public:
    explicit Rows(nb::object buffer);

    // buffer[index] = row, without the lane where there is one; gives the row's dimensions. Negative, and nothing
    // written, for what is no tensor like the buffer, does not fit, or holds what is no number, or no class where there
    // are classes.
    int put(int64_t index, nb::handle row, int64_t classes) const;

    const void* data() const { return data_; }
    int64_t capacity() const { return shape_[0]; }
    int64_t width() const { return width_; }
    dlpack::DataType dtype() const { return dtype_; }

private:
    nb::object buffer_;
    char* data_ = nullptr;
    dlpack::DataType dtype_{};
    std::vector<int64_t> shape_;
    int64_t width_ = 1;  // elements of a row
};

// Where a learner of live data stands.
struct Standing {
    int64_t steps = 0, updates = 0, start = 0, reached = 0;
    double loss = std::numeric_limits<double>::quiet_NaN(), gradient_norm = loss;
};

class Feed {
public:
    Feed(nb::object learner, nb::object watch, nb::object check, nb::object standing, nb::object inputs, nb::object targets,
         nb::object mask, int64_t horizon, nb::object predictions);

    nb::object step(nb::handle input, nb::handle target);

    int64_t base = 0;  // the step in the buffers' first row

    int traverse(visitproc visit, void* arg) const;
    void clear();

private:
    // A tensor for a prediction, made beforehand with others: one alone takes as long as half an update.
    struct Spare {
        nb::object tensor;
        void* data = nullptr;
    };
    nb::object learner_, watch_, check_, standing_, inputs_, targets_, mask_, predictions_;
    std::vector<Spare> spare_[2];
    uint8_t* flags_ = nullptr;
    int64_t horizon_, classes_ = 0, width_ = 0;
    bool long_ = false;

    Spare next(bool alone);
};

void bind_feed(nb::module_& m);

}  // namespace bptt
