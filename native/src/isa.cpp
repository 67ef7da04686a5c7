// Choice of the instruction set; see isa.h. The environment variable BPTT_NATIVE_ISA forces one for a whole process.
#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace bptt {
namespace {

bool supported(Isa isa) {
    if (isa == Isa::baseline) return true;
#if defined(BPTT_HAS_AVX2)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

Isa parse(const std::string& name) {
    for (const auto& [known, usable] : variants()) {
        if (known != name) continue;
        if (!usable) throw std::invalid_argument("instruction set '" + name + "' is not supported by this CPU");
        return name == "avx2" ? Isa::avx2 : Isa::baseline;
    }
    throw std::invalid_argument("instruction set '" + name + "' was not compiled in");
}

Isa choice_at_start() {
    const char* forced = std::getenv("BPTT_NATIVE_ISA");
    if (forced != nullptr && *forced != '\0') return parse(forced);
    return supported(Isa::avx2) ? Isa::avx2 : Isa::baseline;
}

std::atomic<Isa>& current() {
    static std::atomic<Isa> isa{choice_at_start()};
    return isa;
}

}  // namespace

std::vector<std::pair<std::string, bool>> variants() {
    std::vector<std::pair<std::string, bool>> list{{"baseline", true}};
#if defined(BPTT_HAS_AVX2)
    list.emplace_back("avx2", supported(Isa::avx2));
#endif
    return list;
}

std::string current_isa() { return current() == Isa::avx2 ? "avx2" : "baseline"; }

void use_isa(const std::string& name) { current() = name.empty() ? choice_at_start() : parse(name); }

template <class T>
const Kernels<T>& kernels() {
#if defined(BPTT_HAS_AVX2)
    if (current() == Isa::avx2) return kernels_avx2<T>();
#endif
    return kernels_baseline<T>();
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();

}  // namespace bptt
