// Choice of the instruction set at run time.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels/kernels.h"

namespace bptt {

enum class Isa { baseline, avx2 };

std::vector<std::pair<std::string, bool>> variants();  // compiled ones, slowest first; supported here?
std::string current_isa();
void use_isa(const std::string& name);  // empty: the choice at start; throws std::invalid_argument

// The table in use at the moment of the call.
template <class T>
const Kernels<T>& kernels();

}  // namespace bptt
