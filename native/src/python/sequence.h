// Entries of what PySequence_Fast gives, a list or a tuple: CPython's own macros for them are not in the stable ABI.
#pragma once

#include <nanobind/nanobind.h>

namespace bptt {

inline Py_ssize_t size_of_fast(PyObject* fast) { return PyList_Check(fast) ? NB_LIST_GET_SIZE(fast) : NB_TUPLE_GET_SIZE(fast); }

// Borrowed; `i` is below the size.
inline PyObject* item_of_fast(PyObject* fast, Py_ssize_t i) {
    return PyList_Check(fast) ? NB_LIST_GET_ITEM(fast, i) : NB_TUPLE_GET_ITEM(fast, i);
}

}  // namespace bptt
