// The comparisons of bptt.engine.guard, which are made in every call; see src/bptt/_core.pyi.
#include "guard.h"

#include "arrays.h"

namespace bptt {
namespace {

// An attribute, or a method's result, is this very object; errors count as a difference.
bool is_same(PyObject* found, PyObject* expected) {
    if (found == nullptr) PyErr_Clear();
    Py_XDECREF(found);
    return found == expected;
}

bool is_equal(PyObject* found, PyObject* expected) {
    const int equal = found == nullptr ? 0 : PyObject_RichCompareBool(found, expected, Py_EQ);
    Py_XDECREF(found);
    if (equal != 1) PyErr_Clear();
    return equal == 1;
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
        if (!is_equal(PyObject_GetAttr(tensor, shape), part(entry, 3))) return false;
    }
    return true;
}

bool is_shape(PyObject* shape, const dlpack::Tensor& x) {
    if (!PyTuple_Check(shape) || PyTuple_GET_SIZE(shape) != x.ndim) return false;
    int64_t step = 1;
    for (int i = x.ndim - 1; i >= 0; --i) {
        if (PyLong_AsLongLong(PyTuple_GET_ITEM(shape, i)) != x.shape[i]) return PyErr_Clear(), false;
        if (x.strides != nullptr && x.shape[i] > 1 && x.strides[i] != step) return false;
        step *= x.shape[i];
    }
    return true;
}

// [(tensor, needs gradient, address, shape)].
bool in_place(const nb::list& tensors) {
    static PyObject *const requires_grad = word("requires_grad"), *const grad = word("grad"), *const data_ptr = word("data_ptr"),
                    *const shape = word("shape"), *const is_contiguous = word("is_contiguous");
    for (nb::handle entry : tensors) {
        PyObject *tensor = part(entry, 0), *address = part(entry, 2);
        if (!is_same(PyObject_GetAttr(tensor, requires_grad), part(entry, 1))) return false;
        if (!is_same(PyObject_GetAttr(tensor, grad), Py_None)) return false;
        dlpack::Tensor x{};
        if (look_quickly(tensor, x)) {
            if (static_cast<char*>(x.data) + x.byte_offset != PyLong_AsVoidPtr(address)) return PyErr_Clear(), false;
            if (!is_shape(part(entry, 3), x)) return false;
            continue;
        }
        if (!is_same(PyObject_CallMethodNoArgs(tensor, is_contiguous), Py_True)) return false;
        if (!is_equal(PyObject_CallMethodNoArgs(tensor, data_ptr), address)) return false;
        if (!is_equal(PyObject_GetAttr(tensor, shape), part(entry, 3))) return false;
    }
    return true;
}

}  // namespace

void bind_guard(nb::module_& m) {
    m.def("unchanged", &unchanged, nb::arg("same"), nb::arg("sizes"), nb::arg("tensors"));
    m.def("in_place", &in_place, nb::arg("tensors"));
}

}  // namespace bptt
