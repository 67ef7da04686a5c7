// Elementary functions on vectors, float and double, at most 4 ulp (measured by native/tests/accuracy.cpp).
//
// Sources: argument reduction of Cody and Waite; log and log1p after fdlibm (Sun Microsystems, e_log.c, s_log1p.c);
// tanh and sigmoid through exp. The other polynomials are near-minimax fits (interpolation at Chebyshev nodes, for the
// tail of erf weighted least squares) made in 60 digits. NaN passes, infinities give their limits.
// The code is the same with and without fused multiply-add; only the last bits differ.
#pragma once

#include "simd.h"

namespace bptt::BPTT_VARIANT {

template <class T>
struct Math;

template <>
struct Math<float> {
    static constexpr float log2_e = 1.44269504088896341f;
    static constexpr float half_ln2 = 0.34657359027997264f;
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440054690583e-4f;
    static constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23
    static constexpr int mantissa = 23, bias = 127;
    static constexpr float exp_max = 89.0f, exp_min = -104.5f, expm1_min = -18.0f, tanh_max = 9.1f,
                           logistic_max = 89.0f, logistic_min = -87.0f;
    // (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2
    static constexpr float exp_tail[] = {0.5f, 0.16666576989698775683f, 0.041666554617204574203f,
                                         0.0083631790527225773704f, 0.0013926183587713494542f};
    static constexpr float log_tail[] = {0.66666662693f, 0.40000972152f, 0.28498786688f, 0.24279078841f};
    static constexpr float smallest_normal = 1.17549435e-38f;
    static constexpr float denormal_scale = 8388608.0f;
    static constexpr int denormal_shift = 23;
    static constexpr int32_t one_bits = 0x3f800000, sqrt_half_bits = 0x3f3504f3, mantissa_bits = 0x007fffff;
    // erf(x)/x - 1 in x^2 on [0, 1]; log(erfc(x)) in x - 1 on [1, 4]
    static constexpr float erf_small[] = {0.12837916706154341524f,   -0.37612638468028710398f,
                                          0.1128378249523684454f,    -0.026865430727670242894f,
                                          0.0052210318078580227973f, -0.00084840804055351062944f,
                                          0.00011265959025606608973f, -9.6670445714869964152e-6f};
    static constexpr float erf_tail[] = {-1.849605509878112925f,    -2.6389675245935927496f,
                                         -0.84310696671003800544f,  -0.041563989574379670398f,
                                         0.010047510140652896966f,  -0.0020130650320531704007f,
                                         0.00029007542704811372499f, -0.000021790321347270749853f};
    static constexpr float erf_one = 4.0f;
};

template <>
struct Math<double> {
    static constexpr double log2_e = 1.44269504088896340736;
    static constexpr double half_ln2 = 0.34657359027997265471;
    static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    static constexpr double round_magic = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr int mantissa = 52, bias = 1023;
    static constexpr double exp_max = 710.0, exp_min = -746.0, expm1_min = -38.0, tanh_max = 20.0,
                            logistic_max = 710.0, logistic_min = -708.0;
    static constexpr double exp_tail[] = {0.50000000000000010221,    0.16666666666666667453,
                                          0.041666666666624127873,   0.0083333333333300618325,
                                          0.0013888888917213716901,  0.00019841269863053616878,
                                          0.000024801521295954375131, 2.7557268459997064772e-6,
                                          2.7620088445409748161e-7,  2.5100385495510319078e-8};
    static constexpr double log_tail[] = {6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
                                          2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
                                          1.479819860511658591e-01};
    static constexpr double smallest_normal = 2.2250738585072014e-308;
    static constexpr double denormal_scale = 18014398509481984.0;
    static constexpr int denormal_shift = 54;
    static constexpr int64_t one_bits = 0x3ff0000000000000, sqrt_half_bits = 0x3fe6a09e667f3bcd,
                             mantissa_bits = 0x000fffffffffffff;
    static constexpr double erf_small[] = {
        0.12837916709551257377,     -0.37612638903183748056,   0.11283791670954878666,    -0.026866170645076793248,
        0.0052239776248180144673,   -0.00085483269808337899052, 0.00012055331111642710923, -0.000014925595266831181565,
        1.6461000484121368033e-6,   -1.6350312701054695011e-7, 1.4659775274047435814e-8,  -1.137284885679167367e-9,
        5.9571761477489114044e-11};
    static constexpr double erf_tail[] = {
        -1.8496055099332482567,     -2.638967514234788086,     -0.843107256358686514,      -0.041561098041591793108,
        0.010033825371928504886,    -0.0019779025510959765167, 0.00023732240789625538023,  0.000026278094448532505094,
        -0.000027159574805964949639, 9.6096072435221205298e-6, -2.0605669406249574997e-6,  1.4353832208517946807e-7,
        9.7136926405196224709e-8,   -5.185047792207241179e-8,  1.4849384331745715549e-8,   -2.8495816576581069784e-9,
        3.6600806143743569669e-10,  -2.8608882469579202794e-11, 1.0305267765735482724e-12};
    static constexpr double erf_one = 6.0;
};

template <class T, int N>
BPTT_INLINE Vec<T> polynomial(const T (&c)[N], Vec<T> x) {
    Vec<T> y = splat<T>(c[N - 1]);
#pragma GCC unroll 32
    for (int i = N - 2; i >= 0; --i) y = fma(y, x, splat<T>(c[i]));
    return y;
}

// Given x^2 as well: even and odd powers side by side, a chain of half the length in as many instructions.
template <class T, int N>
BPTT_INLINE Vec<T> polynomial(const T (&c)[N], Vec<T> x, Vec<T> square) {
    Vec<T> last = splat<T>(c[N - 1]), other = splat<T>(c[N - 2]);
#pragma GCC unroll 32
    for (int i = N - 3; i >= 0; i -= 2) {
        last = fma(last, square, splat<T>(c[i]));
        if (i > 0) other = fma(other, square, splat<T>(c[i - 1]));
    }
    return N % 2 != 0 ? fma(other, x, last) : fma(last, x, other);
}

// Clamps that let NaN through; written so that x86 makes one minps or maxps of each.
template <class T>
BPTT_INLINE Vec<T> at_most(Vec<T> x, T bound) {
    return select<T>(splat<T>(bound) < x, splat<T>(bound), x);
}
template <class T>
BPTT_INLINE Vec<T> at_least(Vec<T> x, T bound) {
    return select<T>(splat<T>(bound) > x, splat<T>(bound), x);
}

// exp(x) = 2^n (1 + q), with q = exp(r) - 1 to full relative accuracy.
template <class T>
struct Reduced {
    Int<T> n;
    Vec<T> q;
};

template <class T>
BPTT_INLINE Reduced<T> reduce_exp(Vec<T> x) {
    using M = Math<T>;
    const Vec<T> shifted = fma(x, splat<T>(M::log2_e), splat<T>(M::round_magic));
    const Vec<T> n = shifted - splat<T>(M::round_magic);
    Vec<T> r = fma(n, splat<T>(-M::ln2_high), x);
    r = fma(n, splat<T>(-M::ln2_low), r);
    const Vec<T> square = r * r;
    const Vec<T> q = fma(square, polynomial<T>(M::exp_tail, r, square), r);
    return {(Int<T>)shifted - (Int<T>)splat<T>(M::round_magic), q};
}

template <class T>
BPTT_INLINE Vec<T> power_of_two(Int<T> n) {
    using M = Math<T>;
    return (Vec<T>)((n + M::bias) << M::mantissa);
}

// y * 2^n in two factors: overflow and denormal results come out as IEEE arithmetic makes them.
template <class T>
BPTT_INLINE Vec<T> scale(Vec<T> y, Int<T> n) {
    const Int<T> half = n >> 1;
    return y * power_of_two<T>(half) * power_of_two<T>(n - half);
}

template <class T>
BPTT_INLINE Vec<T> exponential(Vec<T> x) {
    using M = Math<T>;
    const Reduced<T> e = reduce_exp<T>(at_least<T>(at_most<T>(x, M::exp_max), M::exp_min));
    return scale<T>(splat<T>(1) + e.q, e.n);
}

template <class T>
BPTT_INLINE Vec<T> exponential_minus_one(Vec<T> x) {
    using M = Math<T>;
    const Reduced<T> e = reduce_exp<T>(at_least<T>(at_most<T>(x, M::exp_max), M::expm1_min));
    // 2^n (q + (1 - 2^-n)); exact 1 - 2^-n where it matters, and for n = 0 exactly q.
    const Int<T> half = e.n >> 1;
    const Vec<T> inverse = power_of_two<T>(-half) * power_of_two<T>(half - e.n);
    const Vec<T> y = scale<T>(e.q + (splat<T>(1) - inverse), e.n);
    return select<T>(x == Vec<T>{}, x, y);  // keeps -0
}

// The coefficients of (exp(2r) - 1 - 2r) / (2 r^2).
template <class T>
struct ExpTailOfTwice {
    static constexpr int count = static_cast<int>(sizeof(Math<T>::exp_tail) / sizeof(T));
    T c[count] = {};
    constexpr ExpTailOfTwice() {
        for (int i = 0; i < count; ++i) c[i] = Math<T>::exp_tail[i] * static_cast<T>(2 << i);
    }
};

// tanh = g / (g + 1), g = (exp(2|x|) - 1) / 2: no cancellation anywhere. A recurrent network waits for this chain at every
// step, so it is short: 2|x| is never made (r and q are half of those of `reduce_exp`), and ln 2 is one number, since where
// n is large the result hardly depends on r.
template <class T>
BPTT_INLINE Vec<T> hyperbolic_tangent(Vec<T> x) {
    using M = Math<T>;
    static constexpr ExpTailOfTwice<T> tail;
    const Vec<T> size = at_most<T>(magnitude<T>(x), M::tanh_max);
    const Vec<T> shifted = fma(size, splat<T>(2 * M::log2_e), splat<T>(M::round_magic));
    const Vec<T> r = fma(shifted - splat<T>(M::round_magic), splat<T>(-M::half_ln2), size);
    const Vec<T> square = r * r;
    const Vec<T> q = fma(square, polynomial<T>(tail.c, r, square), r);
    const Vec<T> power = power_of_two<T>((Int<T>)shifted - (Int<T>)splat<T>(M::round_magic));
    const Vec<T> g = fma(power, q, fma(power, splat<T>(T(0.5)), splat<T>(T(-0.5))));
    return with_sign_of<T>(g / (g + splat<T>(1)), x);
}

// 1 / (1 + exp(-x)); where exp(-x) passes 2^max_exponent, a little before the result is too small even for a denormal
// number, the power becomes infinite and the result 0.
template <class T>
BPTT_INLINE Vec<T> logistic(Vec<T> x) {
    using M = Math<T>;
    const Reduced<T> e = reduce_exp<T>(at_least<T>(at_most<T>(-x, M::logistic_max), M::logistic_min));
    return splat<T>(1) / fma(power_of_two<T>(e.n), splat<T>(1) + e.q, splat<T>(1));
}

// log(m) + correction with m = 1 + f in [sqrt(1/2), sqrt(2)), as k ln2 + log1p(f); fdlibm's formula.
template <class T>
BPTT_INLINE Vec<T> assemble_log(Vec<T> k, Vec<T> f, Vec<T> correction) {
    using M = Math<T>;
    const Vec<T> half_square = splat<T>(T(0.5)) * f * f;
    const Vec<T> s = f / (splat<T>(2) + f);
    const Vec<T> z = s * s;
    const Vec<T> series = z * polynomial<T>(M::log_tail, z);
    const Vec<T> low = fma(k, splat<T>(M::ln2_low), correction);
    const Vec<T> inner = half_square - fma(s, half_square + series, low);
    return fma(k, splat<T>(M::ln2_high), f - inner);
}

// Splits positive normal u into 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)).
template <class T>
struct Split {
    Vec<T> k, f;
};

template <class T>
BPTT_INLINE Split<T> split(Vec<T> u) {
    using M = Math<T>;
    const Int<T> bits = (Int<T>)u + (M::one_bits - M::sqrt_half_bits);
    const Int<T> exponent = (bits >> M::mantissa) - M::bias;
    const Int<T> m = (bits & M::mantissa_bits) + M::sqrt_half_bits;
    return {numbers<T>(exponent), (Vec<T>)m - splat<T>(1)};
}

template <class T>
BPTT_INLINE Vec<T> logarithm_limits(Vec<T> x, Vec<T> y, T pole) {
    const Vec<T> endless = splat<T>(T(infinity));
    y = select<T>(x == endless, endless, y);
    y = select<T>(x == splat<T>(pole), -endless, y);
    y = select<T>(x < splat<T>(pole), splat<T>(T(not_a_number)), y);
    return select<T>(x != x, x, y);
}

template <class T>
BPTT_INLINE Vec<T> logarithm(Vec<T> x) {
    using M = Math<T>;
    const Int<T> tiny = x < splat<T>(M::smallest_normal);
    const Vec<T> normal = select<T>(tiny, x * splat<T>(M::denormal_scale), x);
    Split<T> part = split<T>(normal);
    part.k -= (Vec<T>)(tiny & (Int<T>)splat<T>(T(M::denormal_shift)));
    return logarithm_limits<T>(x, assemble_log<T>(part.k, part.f, Vec<T>{}), T(0));
}

template <class T>
BPTT_INLINE Vec<T> logarithm_of_one_plus(Vec<T> x) {
    const Vec<T> one = splat<T>(1);
    const Vec<T> u = one + x;
    Split<T> part = split<T>(u);
    // What rounding took from 1 + x, as a relative correction; where k = 0 the argument is its own f.
    const Int<T> large = x > one;
    const Vec<T> lost = select<T>(large, one - (u - x), x - (u - one));
    const Int<T> near = part.k == Vec<T>{};
    const Int<T> finite = u < splat<T>(T(infinity));
    const Vec<T> correction = (Vec<T>)(~near & finite & (Int<T>)(lost / u));
    part.f = select<T>(near, x, part.f);
    const Vec<T> y = logarithm_limits<T>(x, assemble_log<T>(part.k, part.f, correction), T(-1));
    return select<T>(x == Vec<T>{}, x, y);  // keeps -0
}

// PyTorch's softplus: above 20 the identity.
template <class T>
BPTT_INLINE Vec<T> soft_plus(Vec<T> x) {
    const Vec<T> y = logarithm_of_one_plus<T>(exponential<T>(x));
    return select<T>(x > splat<T>(20), x, y);
}

template <class T>
BPTT_INLINE Vec<T> error_function(Vec<T> x) {
    using M = Math<T>;
    const Vec<T> size = magnitude<T>(x);
    const Vec<T> square = x * x;
    const Vec<T> small = fma(size, polynomial<T>(M::erf_small, square), size);
    const Vec<T> t = at_most<T>(size, M::erf_one) - splat<T>(1);
    const Vec<T> large = splat<T>(1) - exponential<T>(polynomial<T>(M::erf_tail, t));
    return with_sign_of<T>(select<T>(size < splat<T>(1), small, large), x);
}

}  // namespace bptt::BPTT_VARIANT
