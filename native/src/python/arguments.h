// What Python hands over, piece by piece: sequences of arrays, sizes, gradients.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "arrays.h"
#include "sequence.h"

namespace bptt {

// A sequence of arguments with the expected number of entries.
class Group {
public:
    Group(nb::handle object, const char* name, size_t count, bool may_be_empty = false) : name_(name) {
        sequence_ = nb::steal(PySequence_Fast(object.ptr(), ""));
        if (!sequence_.is_valid()) {
            PyErr_Clear();
            throw nb::type_error((std::string(name) + ": expected a sequence of arrays").c_str());
        }
        size_ = static_cast<size_t>(size_of_fast(sequence_.ptr()));
        if (size_ != count && !(may_be_empty && size_ == 0))
            throw nb::value_error((std::string(name) + ": expected " + std::to_string(count) + " arrays, got " +
                                   std::to_string(size_)).c_str());
    }
    size_t size() const { return size_; }
    // Importing an array may run Python code, which may shorten a list: looked at anew each time.
    nb::object operator[](size_t i) const {
        if (static_cast<Py_ssize_t>(i) >= size_of_fast(sequence_.ptr()))
            throw nb::value_error((std::string(name_) + " changed during the call").c_str());
        return nb::borrow(item_of_fast(sequence_.ptr(), static_cast<Py_ssize_t>(i)));
    }
    Where where(size_t i) const { return {name_, static_cast<int64_t>(i)}; }

private:
    const char* name_;
    nb::object sequence_;
    size_t size_ = 0;
};

struct CoreProgram {
    Program program;
    WorkspaceCache cache;
};

[[noreturn]] void missing(Where where, const char* why);
void check_size(const CoreProgram& core, bool reverse, int64_t steps, int64_t batch);
int threads_of(int64_t threads);

// Gradients by leaf: [steps, batch, n] or [batch, n]; none, or one entry a leaf.
void take_gradients(const Program& p, nb::handle object, const char* name, bool over_time, Use use, Arrays& arrays,
                    std::vector<Plane>& out, int64_t steps);
void take_clip(nb::handle clip, Run& run);

}  // namespace bptt
