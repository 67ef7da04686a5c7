// The comparisons of bptt.engine.guard, which are made in every call; see src/bptt/_core.pyi.
#include "guard.h"

namespace bptt {
namespace {

// An attribute, or a method's result, is this very object; errors count as a difference.
bool is_same(PyObject* found, PyObject* expected) {
    if (found == nullptr) PyErr_Clear();
    Py_XDECREF(found);
    return found == expected;
}

PyObject* part(nb::handle entry, Py_ssize_t i) {
    PyObject* found = PyTuple_Check(entry.ptr()) ? PyTuple_GetItem(entry.ptr(), i) : nullptr;
    if (found == nullptr) throw nb::type_error("an entry is no tuple, or too short");
    return found;
}

PyObject* word(const char* text) { return PyUnicode_InternFromString(text); }

// [(table, key, value)], [(container, size)], [(tensor, needs gradient, dtype, shape)].
bool unchanged(const nb::list& same, const nb::list& sizes, const nb::list& tensors) {
    static PyObject *const requires_grad = word("requires_grad"), *const dtype = word("dtype"), *const shape = word("shape");
    for (nb::handle entry : same) {
        PyObject* found = PyDict_GetItemWithError(part(entry, 0), part(entry, 1));
        if (found != part(entry, 2)) return PyErr_Clear(), false;
    }
    for (nb::handle entry : sizes)
        if (PyObject_Size(part(entry, 0)) != PyLong_AsSsize_t(part(entry, 1)))
            return PyErr_Clear(), false;
    for (nb::handle entry : tensors) {
        PyObject* tensor = part(entry, 0);
        if (!is_same(PyObject_GetAttr(tensor, requires_grad), part(entry, 1))) return false;
        if (!is_same(PyObject_GetAttr(tensor, dtype), part(entry, 2))) return false;
        PyObject* size = PyObject_GetAttr(tensor, shape);
        const int equal = size == nullptr ? 0 : PyObject_RichCompareBool(size, part(entry, 3), Py_EQ);
        Py_XDECREF(size);
        if (equal != 1) return PyErr_Clear(), false;
    }
    return true;
}

// [(tensor, address)].
bool in_place(const nb::list& tensors) {
    static PyObject *const grad = word("grad"), *const data_ptr = word("data_ptr"), *const is_contiguous = word("is_contiguous");
    for (nb::handle entry : tensors) {
        PyObject* tensor = part(entry, 0);
        if (!is_same(PyObject_GetAttr(tensor, grad), Py_None)) return false;
        if (!is_same(PyObject_CallMethodNoArgs(tensor, is_contiguous), Py_True)) return false;
        PyObject* address = PyObject_CallMethodNoArgs(tensor, data_ptr);
        const int equal = address == nullptr ? 0 : PyObject_RichCompareBool(address, part(entry, 1), Py_EQ);
        Py_XDECREF(address);
        if (equal != 1) return PyErr_Clear(), false;
    }
    return true;
}

}  // namespace

void bind_guard(nb::module_& m) {
    m.def("unchanged", &unchanged, nb::arg("same"), nb::arg("sizes"), nb::arg("tensors"));
    m.def("in_place", &in_place, nb::arg("tensors"));
}

}  // namespace bptt
