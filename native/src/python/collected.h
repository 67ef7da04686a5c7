// What Python's garbage collector has to know of a class that holds Python objects: T::traverse and T::clear.
#pragma once

#include <nanobind/nanobind.h>

namespace bptt {

template <class T>
PyType_Slot* collected() {
    static const traverseproc traverse = [](PyObject* self, visitproc visit, void* arg) -> int {
        Py_VISIT(Py_TYPE(self));
        return nanobind::inst_ready(self) ? nanobind::inst_ptr<T>(self)->traverse(visit, arg) : 0;
    };
    static const inquiry clear = [](PyObject* self) -> int {
        if (nanobind::inst_ready(self)) nanobind::inst_ptr<T>(self)->clear();
        return 0;
    };
    static PyType_Slot slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                                  {Py_tp_clear, reinterpret_cast<void*>(clear)},
                                  {0, nullptr}};
    return slots;
}

}  // namespace bptt
