// Choice of the instruction set at run time.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/online.h"

namespace bptt {

std::vector<std::pair<std::string, bool>> variants();  // compiled ones, slowest first; supported here?
std::string current_isa();
void use_isa(const std::string& name);  // empty: the choice at start; throws std::invalid_argument

// The tables in use at the moment of the call.
template <class T>
const Kernels<T>& kernels();
template <class T>
const OnlineKernels<T>& online_kernels();

}  // namespace bptt
