// Accuracy of the elementary functions: every float, and sampled doubles, against wider arithmetic. In ulp of the
// result; denormal results by absolute error, against the smallest normal number. Takes minutes; not run in CI.
//
//   bptt_accuracy [stride]    stride 1 (default): all 2^32 floats
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "../src/isa.h"
#include "check.h"

using namespace bptt;

namespace {

struct Function {
    Op op;
    long double (*wide)(long double);
    double (*enough)(double);
};

template <class F>
F soft_plus(F x) { return x > 20 ? x : std::log1p(std::exp(x)); }
template <class F>
F logistic(F x) { return 1 / (1 + std::exp(-x)); }

#define BPTT_TEST(name, f) {Op::name, [](long double x) -> long double { return f(x); }, [](double x) -> double { return f(x); }}
const Function functions[] = {
    BPTT_TEST(exp, std::exp),   BPTT_TEST(expm1, std::expm1),       BPTT_TEST(log, std::log),
    BPTT_TEST(log1p, std::log1p), BPTT_TEST(tanh, std::tanh),       BPTT_TEST(sigmoid, logistic),
    BPTT_TEST(softplus, soft_plus), BPTT_TEST(erf, std::erf),       BPTT_TEST(reciprocal, 1 / ),
};

template <class T>
struct Worst {
    double ulp = 0;
    T at = 0;
    double denormal = 0;  // absolute error of denormal results, in units of the smallest normal number
    long wrong = 0;  // NaN or infinity on one side only
};

template <class T, class W>
void compare(Worst<T>& worst, T x, T y, W exact) {
    const T rounded = static_cast<T>(exact);
    if (std::isnan(y) != std::isnan(rounded)) ++worst.wrong;
    if (!std::isfinite(rounded) || !std::isfinite(y)) {
        // The last value before overflow may round either way.
        const bool edge = std::fabs(exact) > static_cast<W>(0.999999) * static_cast<W>(std::numeric_limits<T>::max());
        if (!(rounded == y) && !std::isnan(rounded) && !edge) ++worst.wrong;
        return;
    }
    constexpr int digits = std::numeric_limits<T>::digits;
    if (std::fabs(rounded) < std::numeric_limits<T>::min()) {
        const W units = std::fabs(static_cast<W>(y) - exact) / static_cast<W>(std::numeric_limits<T>::min());
        worst.denormal = std::max(worst.denormal, static_cast<double>(units));
        return;
    }
    int exponent = 0;
    std::frexp(rounded, &exponent);
    const double error = static_cast<double>(std::fabs(std::ldexp(static_cast<W>(y) - exact, digits - exponent)));
    if (error > worst.ulp) worst.ulp = error, worst.at = x;
}

template <class T>
void apply(Op op, const std::vector<T>& x, std::vector<T>& y) {
    Call<T> call{};
    call.dst = y.data();
    call.a = x.data();
    call.rows = 1;
    call.width = static_cast<ptrdiff_t>(x.size());
    kernels<T>().op[static_cast<int>(op)][0](call);
}

void floats(const Function& f, uint64_t first, uint64_t last, uint64_t stride, Worst<float>& worst) {
    constexpr size_t block = 4096;
    std::vector<float> x(block), y(block);
    for (uint64_t bits = first; bits < last; bits += block * stride) {
        for (size_t i = 0; i < block; ++i) {
            const auto b = static_cast<uint32_t>(bits + i * stride);
            std::memcpy(&x[i], &b, 4);
        }
        apply(f.op, x, y);
        for (size_t i = 0; i < block; ++i) compare(worst, x[i], y[i], f.enough(x[i]));
    }
}

void doubles(const Function& f, Worst<double>& worst) {
    std::mt19937_64 generator(1);
    std::vector<double> x(1 << 21), y(x.size());
    std::uniform_real_distribution<double> plain(-40, 40), exponent(-1074, 1024), near(-2, 2);
    for (size_t i = 0; i < x.size(); ++i) {
        x[i] = i % 4 == 0 ? plain(generator) : i % 4 == 1 ? near(generator) : i % 4 == 2 ? 20 * plain(generator)
               : std::ldexp(near(generator), static_cast<int>(exponent(generator)));
    }
    apply(f.op, x, y);
    for (size_t i = 0; i < x.size(); ++i) compare(worst, x[i], y[i], f.wide(static_cast<long double>(x[i])));
}

}  // namespace

int main(int count, char** arguments) {
    const uint64_t stride = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 1;
    bool good = true;
    for (const auto& [name, usable] : variants()) {
        if (!usable) continue;
        use_isa(name);
        for (const Function& f : functions) {
            Worst<float> half[2];
            std::thread other([&] { floats(f, 0, uint64_t{1} << 31, stride, half[0]); });
            floats(f, uint64_t{1} << 31, uint64_t{1} << 32, stride, half[1]);
            other.join();
            const Worst<float>& w = half[half[1].ulp > half[0].ulp];
            Worst<double> d;
            doubles(f, d);
            const long wrong = half[0].wrong + half[1].wrong;
            const double denormal = std::max({half[0].denormal, half[1].denormal, d.denormal});
            std::printf("%-9s %-10s float %.3f ulp at %.9g   double %.3f ulp at %.17g   denormal %.2g   wrong %ld\n", name.c_str(),
                        op_name(f.op), w.ulp, double(w.at), d.ulp, d.at, denormal, wrong + d.wrong);
            std::fflush(stdout);
            good = good && w.ulp <= 4 && d.ulp <= 4 && denormal < 1 && wrong + d.wrong == 0;
        }
    }
    return good ? 0 : 1;
}
