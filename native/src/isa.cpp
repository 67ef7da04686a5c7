// Choice of the instruction set; see isa.h. The environment variable BPTT_NATIVE_ISA forces one for a whole process.
#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

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

// Slowest first. One with a `vector` needs all that the one before needs.
const Variant all[] = {
    {"baseline", [] { return true; }, BPTT_TABLES(baseline), 0},
#if defined(BPTT_X86)
    {"avx2",
     [] {
         __builtin_cpu_init();
         return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
     },
     BPTT_TABLES(avx2), 0},
    {"avx512",
     [] {
         __builtin_cpu_init();
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
     },
     BPTT_TABLES(avx512), 64},
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
