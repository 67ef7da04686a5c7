// Tuples and contiguous arrays as Python hands them to the online loop.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "arrays.h"

namespace bptt {

[[noreturn]] inline void wrong(const std::string& message) { throw nb::value_error(message.c_str()); }

// Numbered entries of a tuple.
class Reader {
public:
    explicit Reader(nb::handle object) : tuple_(nb::cast<nb::tuple>(object)) {}
    template <class V>
    V next() {
        return nb::cast<V>(object());
    }
    nb::object object() {
        if (at_ >= nb::len(tuple_)) wrong("online plan: a tuple is too short");
        return tuple_[at_++];
    }

private:
    nb::tuple tuple_;
    size_t at_ = 0;
};

// Contiguous memory of one kind.
class Taken {
public:
    // `longer`: what comes after the first `count` elements is not looked at.
    void* take(nb::handle object, const char* name, dlpack::DataType dtype, int64_t count, bool longer = false) {
        const dlpack::Tensor x = import_quickly(object, {name}, kept_);
        if (x.device.type != dlpack::device_cpu) wrong(std::string(name) + ": not in the CPU's memory");
        if (x.dtype.code != dtype.code || x.dtype.bits != dtype.bits)
            throw nb::type_error((std::string(name) + ": of another dtype").c_str());
        int64_t size = 1;
        for (int i = 0; i < x.ndim; ++i) size *= x.shape[i];
        if (size < count || (size > count && !longer))
            wrong(std::string(name) + ": has " + std::to_string(size) + " elements, expected " + std::to_string(count));
        int64_t step = 1;
        for (int i = x.ndim - 1; i >= 0; --i) {
            if (size > 0 && x.strides != nullptr && x.shape[i] > 1 && x.strides[i] != step)
                wrong(std::string(name) + ": is not contiguous");
            step *= x.shape[i];
        }
        return static_cast<char*>(x.data) + x.byte_offset;
    }

private:
    std::vector<nb::ndarray<nb::ro>> kept_;
};

}  // namespace bptt
