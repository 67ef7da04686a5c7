// Choice of the instruction set; see isa.h. The environment variable BPTT_NATIVE_ISA forces one for a whole process.
#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace bptt {
namespace {

template <class T>
struct Tables {
    const Kernels<T>& (*kernels)();
    const OnlineKernels<T>& (*online)();
};

struct Variant {
    const char* name;
    bool (*supported)();
    Tables<float> singles;
    Tables<double> doubles;

    template <class T>
    const Tables<T>& tables() const {
        if constexpr (sizeof(T) == sizeof(float)) return singles;
        else return doubles;
    }
};

#define BPTT_TABLES(isa)                                               \
    {kernels_##isa<float>, online_kernels_##isa<float>}, {             \
        kernels_##isa<double>, online_kernels_##isa<double>            \
    }

// Slowest first.
const Variant all[] = {
    {"baseline", [] { return true; }, BPTT_TABLES(baseline)},
#if defined(BPTT_X86)
    {"avx2",
     [] {
         __builtin_cpu_init();
         return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
     },
     BPTT_TABLES(avx2)},
    {"avx512",
     [] {
         __builtin_cpu_init();
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
     },
     BPTT_TABLES(avx512)},
#endif
};

const Variant* find(const std::string& name) {
    for (const Variant& v : all) {
        if (name != v.name) continue;
        if (!v.supported()) throw std::invalid_argument("instruction set '" + name + "' is not supported by this CPU");
        return &v;
    }
    throw std::invalid_argument("instruction set '" + name + "' was not compiled in");
}

const Variant* choice_at_start() {
    const char* forced = std::getenv("BPTT_NATIVE_ISA");
    if (forced != nullptr && *forced != '\0') return find(forced);
    const Variant* best = all;
    for (const Variant& v : all)
        if (v.supported()) best = &v;
    return best;
}

std::atomic<const Variant*>& current() {
    static std::atomic<const Variant*> isa{choice_at_start()};
    return isa;
}

}  // namespace

std::vector<std::pair<std::string, bool>> variants() {
    std::vector<std::pair<std::string, bool>> list;
    for (const Variant& v : all) list.emplace_back(v.name, v.supported());
    return list;
}

std::string current_isa() { return current().load()->name; }

void use_isa(const std::string& name) { current() = name.empty() ? choice_at_start() : find(name); }

template <class T>
const Kernels<T>& kernels() {
    return current().load()->tables<T>().kernels();
}
template <class T>
const OnlineKernels<T>& online_kernels() {
    return current().load()->tables<T>().online();
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();
template const OnlineKernels<float>& online_kernels<float>();
template const OnlineKernels<double>& online_kernels<double>();

}  // namespace bptt
