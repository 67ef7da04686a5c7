// A plan of the online loop out of dictionaries and tuples.
#pragma once

#include <nanobind/nanobind.h>

#include "../online.h"

namespace bptt {

online::Plan plan_of(const nanobind::dict& d);

}  // namespace bptt
