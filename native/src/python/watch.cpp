// Comparisons by identity; see watch.h.
#include "watch.h"

#include "arrays.h"
#include "collected.h"

namespace bptt {
namespace {

nb::object part(nb::handle entry, size_t i, size_t count) {
    if (!PyTuple_Check(entry.ptr()) || nb::len(entry) != count) throw nb::type_error("an entry is no tuple of that length");
    return nb::borrow(PyTuple_GetItem(entry.ptr(), static_cast<Py_ssize_t>(i)));
}

PyObject* word(const char* text) { return PyUnicode_InternFromString(text); }

// An attribute, or a method's result, is this very object; errors count as a difference.
bool is_same(PyObject* found, nb::handle expected) {
    if (found == nullptr) PyErr_Clear();
    Py_XDECREF(found);
    return found == expected.ptr();
}

bool is_equal(PyObject* found, nb::handle expected) {
    const int equal = found == nullptr ? 0 : PyObject_RichCompareBool(found, expected.ptr(), Py_EQ);
    Py_XDECREF(found);
    if (equal != 1) PyErr_Clear();
    return equal == 1;
}

}  // namespace

Watch::Watch(const nb::list& same, const nb::list& sizes, const nb::list& tensors, const nb::list& places,
             const nb::list& equal) {
    for (nb::handle e : same) {
        Entry entry{part(e, 0, 3), part(e, 1, 3), part(e, 2, 3)};
        if (PyDict_Check(entry.table.ptr())) {
            same_.push_back(std::move(entry));
        } else if (PyList_Check(entry.table.ptr())) {
            entry.place = nb::cast<Py_ssize_t>(entry.key);
            items_.push_back(std::move(entry));
        } else {
            throw nb::type_error("same: neither in a dict nor in a list");
        }
    }
    for (nb::handle e : sizes) {
        Size size{part(e, 0, 2), nb::cast<Py_ssize_t>(part(e, 1, 2))};
        const bool dict = PyDict_Check(size.container.ptr());
        (dict ? dict_sizes_ : sizes_).push_back(std::move(size));
    }
    for (nb::handle e : equal) {
        equal_.push_back({part(e, 0, 3), part(e, 1, 3), part(e, 2, 3)});
        if (!PyDict_Check(equal_.back().table.ptr())) throw nb::type_error("equal: not in a dict");
    }
    for (nb::handle e : tensors) tensors_.push_back({part(e, 0, 4), part(e, 1, 4), part(e, 2, 4), part(e, 3, 4)});
    for (nb::handle e : places) {
        Place place{part(e, 0, 2), part(e, 1, 2), nullptr, {}, {}};
        dlpack::Tensor x{};
        if (!look_quickly(place.tensor, x)) throw nb::type_error("places: not in the CPU's memory");
        place.address = static_cast<char*>(x.data) + x.byte_offset;
        place.dtype = x.dtype;
        place.shape.assign(x.shape, x.shape + x.ndim);
        places_.push_back(std::move(place));
    }
}

// With the memory that it had, as the core reads it, and without a gradient, which an update would add to.
bool Watch::is_there(const Place& place) {
    static PyObject *const requires_grad = word("requires_grad"), *const grad = word("grad");
    PyObject* const tensor = place.tensor.ptr();
    if (!is_same(PyObject_GetAttr(tensor, requires_grad), place.needs_gradient)) return false;
    if (!is_same(PyObject_GetAttr(tensor, grad), nb::handle(Py_None))) return false;
    dlpack::Tensor x{};
    if (!look_quickly(place.tensor, x) || static_cast<char*>(x.data) + x.byte_offset != place.address) return false;
    if (x.dtype.code != place.dtype.code || x.dtype.bits != place.dtype.bits) return false;
    if (static_cast<size_t>(x.ndim) != place.shape.size()) return false;
    int64_t step = 1;
    for (int i = x.ndim - 1; i >= 0; --i) {
        if (x.shape[i] != place.shape[static_cast<size_t>(i)]) return false;
        if (x.strides != nullptr && x.shape[i] > 1 && x.strides[i] != step) return false;
        step *= x.shape[i];
    }
    return true;
}

bool Watch::dicts_hold() const {
    for (const Entry& e : same_)
        if (PyDict_GetItemWithError(e.table.ptr(), e.key.ptr()) != e.value.ptr()) return PyErr_Clear(), false;
    for (const Size& s : dict_sizes_)
        if (NB_DICT_GET_SIZE(s.container.ptr()) != s.size) return false;
    for (const Entry& e : equal_) {  // may run Python code
        PyObject* found = PyDict_GetItemWithError(e.table.ptr(), e.key.ptr());
        Py_XINCREF(found);
        if (!is_equal(found, e.value)) return PyErr_Clear(), false;
    }
    return true;
}

bool Watch::holds() const {
    static PyObject *const requires_grad = word("requires_grad"), *const dtype = word("dtype"), *const shape = word("shape");
    if (!dicts_hold()) return false;
    for (const Entry& e : items_) {
        if (e.place < 0 || e.place >= NB_LIST_GET_SIZE(e.table.ptr())) return false;
        if (NB_LIST_GET_ITEM(e.table.ptr(), e.place) != e.value.ptr()) return false;
    }
    for (const Size& s : sizes_)
        if (PyObject_Size(s.container.ptr()) != s.size) return PyErr_Clear(), false;
    for (const Place& place : places_)
        if (!is_there(place)) return false;
    for (const Kind& kind : tensors_) {
        PyObject* const tensor = kind.tensor.ptr();
        if (!is_same(PyObject_GetAttr(tensor, requires_grad), kind.needs_gradient)) return false;
        if (!is_same(PyObject_GetAttr(tensor, dtype), kind.dtype)) return false;
        if (!is_equal(PyObject_GetAttr(tensor, shape), kind.shape)) return false;
    }
    return true;
}

int Watch::traverse(visitproc visit, void* arg) const {
    for (const auto* entries : {&same_, &equal_, &items_})
        for (const Entry& e : *entries) {
            Py_VISIT(e.table.ptr());
            Py_VISIT(e.value.ptr());
        }
    for (const auto* sizes : {&dict_sizes_, &sizes_})
        for (const Size& s : *sizes) Py_VISIT(s.container.ptr());
    for (const Kind& kind : tensors_) Py_VISIT(kind.tensor.ptr());
    for (const Place& place : places_) Py_VISIT(place.tensor.ptr());
    return 0;
}

void Watch::clear() {
    for (auto* entries : {&same_, &equal_, &items_}) entries->clear();
    dict_sizes_.clear(), sizes_.clear(), tensors_.clear(), places_.clear();
}

void bind_watch(nb::module_& m) {
    const nb::object none = nb::list();
    nb::class_<Watch>(m, "Watch", nb::type_slots(collected<Watch>()))
        .def(nb::init<const nb::list&, const nb::list&, const nb::list&, const nb::list&, const nb::list&>(), nb::arg("same"),
             nb::arg("sizes"), nb::arg("tensors") = none, nb::arg("places") = none, nb::arg("equal") = none)
        .def("holds", &Watch::holds);
}

}  // namespace bptt
