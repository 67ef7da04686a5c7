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

template <class T>
struct Tables {
    const Kernels<T>& kernels;
    const OnlineKernels<T>& online;
};

// The tables in use at the moment of the call.
template <class T>
const Kernels<T>& kernels();
// Those for an online loop whose widest part of the state has so many numbers. One vector of AVX-512 has too few chains
// of multiply-adds, and weights of a part of a vector would be packed after every update: both are left to AVX2.
template <class T>
Tables<T> online_tables(ptrdiff_t state);

}  // namespace bptt
