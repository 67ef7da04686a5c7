#pragma once

#include <nanobind/nanobind.h>

namespace bptt {

namespace nb = nanobind;

void bind_guard(nb::module_& m);

}  // namespace bptt
