// Choice of the instruction set; see isa.h. The environment variable BPTT_NATIVE_ISA forces one for a whole process.
#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(BPTT_X86) && defined(_WIN32)
#include <intrin.h>
#endif

namespace bptt {
namespace {

struct Variant {
    const char* name;
    bool (*supported)();
    Tables<float> (*singles)();
    Tables<double> (*doubles)();
    ptrdiff_t vector;  // bytes; of an online loop's state a whole number, and two at the least, or the one before serves

    template <class T>
    Tables<T> tables() const {
        if constexpr (sizeof(T) == sizeof(float)) return singles();
        else return doubles();
    }
};

#define BPTT_TABLES(isa)                                                                 \
    [] { return Tables<float>{kernels_##isa<float>(), online_kernels_##isa<float>()}; }, \
        [] { return Tables<double>{kernels_##isa<double>(), online_kernels_##isa<double>()}; }

#if defined(BPTT_X86)
#if defined(_WIN32)
// clang-cl links no library that __builtin_cpu_supports could ask. Registers of CPUID leaf 7, and of leaf 1 for FMA; the
// operating system must save the wide registers (XCR0) as well.
__attribute__((target("xsave"))) bool has(int leaf, int index, unsigned bits, unsigned saved) {
    int info[4];
    __cpuid(info, 0);
    if (info[0] < 7) return false;
    __cpuid(info, 1);
    const bool xgetbv = (static_cast<unsigned>(info[2]) >> 27 & 1) != 0;
    if (!xgetbv || (_xgetbv(0) & saved) != saved) return false;
    __cpuidex(info, leaf, 0);
    return (static_cast<unsigned>(info[index]) & bits) == bits;
}
bool has_avx2() { return has(7, 1, 1u << 5, 0x6) && has(1, 2, 1u << 12, 0x6); }
bool has_avx512() { return has_avx2() && has(7, 1, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, 0xe6); }  // F, DQ, BW, VL
#else
bool has_avx2() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif
#endif

// Slowest first. One with a `vector` needs all that the one before needs.
const Variant all[] = {
#if defined(BPTT_PORTABLE)
    {"portable", [] { return true; }, BPTT_TABLES(portable), 0},
#else
    {"baseline", [] { return true; }, BPTT_TABLES(baseline), 0},
#endif
#if defined(BPTT_X86)
    {"avx2", has_avx2, BPTT_TABLES(avx2), 0},
    {"avx512", has_avx512, BPTT_TABLES(avx512), 64},
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
    return current().load()->tables<T>().kernels;
}

template <class T>
Tables<T> online_tables(ptrdiff_t state) {
    const Variant* v = current().load();
    const ptrdiff_t bytes = state * static_cast<ptrdiff_t>(sizeof(T));
    if (v->vector > 0 && (bytes <= v->vector || bytes % v->vector != 0)) --v;
    return v->tables<T>();
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();
template Tables<float> online_tables<float>(ptrdiff_t);
template Tables<double> online_tables<double>(ptrdiff_t);

}  // namespace bptt
