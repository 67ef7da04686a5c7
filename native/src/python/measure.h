// Parts of the core alone, for measurement and for tests of accuracy.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

namespace bptt {

void elementwise(const std::string& name, nanobind::handle x, nanobind::handle out);
void multiply(nanobind::handle a, nanobind::handle matrix, nanobind::handle out, int64_t threads, int64_t repeat);
double multiply_adds(int64_t rounds);

}  // namespace bptt
