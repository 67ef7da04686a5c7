// A whole unfolding in one call: input projections, the loop, and the products after it.
#pragma once

#include <nanobind/nanobind.h>

namespace bptt {

void bind_unfolding(nanobind::module_& m);

}  // namespace bptt
