// The class Learner of the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace bptt {

void bind_online(nanobind::module_& m);

}  // namespace bptt
