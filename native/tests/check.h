// The little that the test programs need of a test framework.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "../src/isa.h"

#define CHECK(condition, ...)                                                    \
    do {                                                                         \
        if (!(condition)) {                                                      \
            std::fprintf(stderr, "%s:%d: failed: %s: ", __FILE__, __LINE__, #condition); \
            std::fprintf(stderr, __VA_ARGS__);                                   \
            std::fprintf(stderr, "\n");                                          \
            std::exit(1);                                                        \
        }                                                                        \
    } while (0)

// A test on every instruction set that this machine has.
template <class F>
void on_every_variant(const char* what, F test) {
    for (const auto& [name, usable] : bptt::variants()) {
        if (!usable) continue;
        bptt::use_isa(name);
        test();
        std::printf("%s, %s: ok\n", what, name.c_str());
    }
}

// Exact-size heap arrays, so that a sanitizer sees one element too many.
template <class T>
std::vector<T> random_array(size_t size, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    std::vector<T> out(size);
    for (T& x : out) x = static_cast<T>(normal(generator));
    out.shrink_to_fit();
    return out;
}
