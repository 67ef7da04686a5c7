// One Python object to a DLPack tensor; see arrays.h.
#include <nanobind/stl/string.h>

#include <array>

#include "arrays.h"

namespace bptt {
namespace {

struct Known {
    PyTypeObject* type;  // a reference is held, so that the address stays its own
    dlpack::FromObject from_object;
};

// The exchange function of a type, or null. Looked up once a type; guarded by the GIL.
dlpack::FromObject exchange(PyTypeObject* type) {
    static std::array<Known, 16> known{};
    static size_t count = 0;
    for (size_t i = 0; i < count; ++i)
        if (known[i].type == type) return known[i].from_object;
    dlpack::FromObject found = nullptr;
    PyObject* capsule = PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__");
    if (capsule != nullptr) {
        auto* api = static_cast<dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
        while (api != nullptr && api->version.major != 1) api = api->previous;
        if (api != nullptr) found = api->from_object;
        Py_DECREF(capsule);
    }
    PyErr_Clear();
    if (count < known.size()) {
        Py_INCREF(reinterpret_cast<PyObject*>(type));
        known[count++] = {type, found};
    }
    return found;
}

[[noreturn]] void no_array(Where where, nb::handle object) {
    const auto message = [&] {
        const auto name = nb::cast<std::string>(object.type().attr("__name__"));
        return where.text() + ": " + name + " cannot be read as an array in memory";
    };
    if (PyErr_Occurred() == nullptr) throw nb::type_error(message().c_str());
    nb::python_error cause;  // takes the error, so that the name can be asked for
    nb::raise_from(cause, PyExc_TypeError, "%s", message().c_str());
}

template <class Array>
dlpack::Tensor describe(const Array& array) {
    const auto dtype = array.dtype();
    dlpack::Tensor out{};
    out.data = const_cast<void*>(static_cast<const void*>(array.data()));
    out.device = {array.device_type(), array.device_id()};
    out.ndim = static_cast<int32_t>(array.ndim());
    out.dtype = {dtype.code, dtype.bits, dtype.lanes};
    out.shape = const_cast<int64_t*>(array.shape_ptr());
    out.strides = const_cast<int64_t*>(array.stride_ptr());
    return out;
}

template <class Array>
dlpack::Tensor general(nb::handle object, Where where, std::vector<Array>& kept) {
    Array array;
    if (!nb::try_cast(object, array, false)) no_array(where, object);
    kept.push_back(array);
    return describe(kept.back());
}

}  // namespace

dlpack::Tensor Arrays::import(nb::handle object, Where where, Use use) {
    kept_.push_back(nb::borrow(object));
    if (const auto from_object = exchange(Py_TYPE(object.ptr()))) {
        dlpack::Tensor out{};
        if (from_object(object.ptr(), &out) != 0) no_array(where, object);
        return out;
    }
    return use == Use::write ? general(object, where, imported_) : general(object, where, imported_read_);
}

dlpack::Tensor import_array(nb::handle object, Where where, std::vector<nb::ndarray<nb::ro>>& kept) {
    return general(object, where, kept);
}

dlpack::Tensor import_quickly(nb::handle object, Where where, std::vector<nb::ndarray<nb::ro>>& kept) {
    const auto from_object = exchange(Py_TYPE(object.ptr()));
    if (from_object == nullptr) return general(object, where, kept);
    dlpack::Tensor out{};
    if (from_object(object.ptr(), &out) != 0) no_array(where, object);
    return out;
}

bool look_quickly(nb::handle object, dlpack::Tensor& out) {
    const auto from_object = exchange(Py_TYPE(object.ptr()));
    if (from_object == nullptr) return false;
    if (from_object(object.ptr(), &out) == 0) return true;
    PyErr_Clear();
    return false;
}

}  // namespace bptt
