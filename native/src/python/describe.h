// Python lists to the description of a program.
#pragma once

#include <nanobind/nanobind.h>

#include "../program.h"

namespace bptt {

Description describe_program(nanobind::handle dtype, bool reverse, nanobind::handle states, nanobind::handle scratch,
                             nanobind::handle time, nanobind::handle rows, nanobind::handle units,
                             nanobind::handle matrices, nanobind::handle instructions);

}  // namespace bptt
