// Whether Python objects are still what they were, asked in every call; see src/bptt/_core.pyi.
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "dlpack.h"

namespace bptt {

namespace nb = nanobind;

class Watch {
public:
    Watch(const nb::list& same, const nb::list& sizes, const nb::list& tensors, const nb::list& places, const nb::list& equal);

    bool holds() const;
    // For Python's garbage collector, which has to see what is held here.
    int traverse(visitproc visit, void* arg) const;
    void clear();

private:
    struct Entry {
        nb::object table, key, value;  // of a list, the key is a place in it
        Py_ssize_t place = -1;
    };
    struct Size {
        nb::object container;
        Py_ssize_t size = 0;
    };
    struct Kind {
        nb::object tensor, needs_gradient, dtype, shape;
    };
    struct Place {
        nb::object tensor, needs_gradient;
        const char* address = nullptr;
        dlpack::DataType dtype{};
        std::vector<int64_t> shape;
    };
    std::vector<Entry> same_, equal_, items_;
    std::vector<Size> dict_sizes_, sizes_;
    std::vector<Kind> tensors_;
    std::vector<Place> places_;

    bool dicts_hold() const;
    static bool is_there(const Place& place);
};

void bind_watch(nb::module_& m);

}  // namespace bptt
