// Vectors in plain C++, for compilers without vector extensions (MSVC): the operators that the kernels use, lane by lane;
// see simd.h. They mean what the extensions mean: with one compiler and library, on x86-64, results are those of the SSE2
// baseline, bit for bit.
#pragma once

#include <math.h>

#define BPTT_INLINE inline
#define BPTT_NOINLINE

namespace bptt::BPTT_VARIANT {

// By the number of bytes: the type of a mask, and the one in which integers wrap around, as they do in vectors.
template <size_t bytes>
struct Whole;
template <>
struct Whole<4> {
    using Signed = int32_t;
    using Unsigned = uint32_t;
};
template <>
struct Whole<8> {
    using Signed = int64_t;
    using Unsigned = uint64_t;
};
template <class T>
struct Wrapping {
    using Type = T;
};
template <>
struct Wrapping<int32_t> {
    using Type = uint32_t;
};
template <>
struct Wrapping<int64_t> {
    using Type = uint64_t;
};

template <class T>
struct Lanes {
    static constexpr int count = 16 / static_cast<int>(sizeof(T));
    using W = typename Wrapping<T>::Type;
    using Mask = Lanes<typename Whole<sizeof(T)>::Signed>;

    T lane[count];

    T& operator[](ptrdiff_t i) { return lane[i]; }
    const T& operator[](ptrdiff_t i) const { return lane[i]; }

    // The same bytes, as a C cast of vectors gives.
    template <class U>
    explicit operator Lanes<U>() const {
        Lanes<U> out;
        memcpy(&out, this, sizeof out);
        return out;
    }

    template <class F>
    static Lanes each(F value) {
        Lanes out;
        for (int i = 0; i < count; ++i) out.lane[i] = static_cast<T>(value(i));
        return out;
    }
    static Lanes all(T x) {
        return each([&](int) { return x; });
    }
    template <class F>
    static Mask where(F holds) {
        return Mask::each([&](int i) { return holds(i) ? -1 : 0; });
    }

    friend Lanes operator+(Lanes a, Lanes b) {
        return each([&](int i) { return static_cast<W>(a.lane[i]) + static_cast<W>(b.lane[i]); });
    }
    friend Lanes operator-(Lanes a, Lanes b) {
        return each([&](int i) { return static_cast<W>(a.lane[i]) - static_cast<W>(b.lane[i]); });
    }
    friend Lanes operator*(Lanes a, Lanes b) {
        return each([&](int i) { return a.lane[i] * b.lane[i]; });
    }
    friend Lanes operator/(Lanes a, Lanes b) {
        return each([&](int i) { return a.lane[i] / b.lane[i]; });
    }
    friend Lanes operator-(Lanes a) {
        return each([&](int i) { return -a.lane[i]; });
    }
    Lanes& operator+=(Lanes b) { return *this = *this + b; }
    Lanes& operator-=(Lanes b) { return *this = *this - b; }

    friend Mask operator<(Lanes a, Lanes b) {
        return where([&](int i) { return a.lane[i] < b.lane[i]; });
    }
    friend Mask operator<=(Lanes a, Lanes b) {
        return where([&](int i) { return a.lane[i] <= b.lane[i]; });
    }
    friend Mask operator>(Lanes a, Lanes b) { return b < a; }
    friend Mask operator>=(Lanes a, Lanes b) { return b <= a; }
    friend Mask operator==(Lanes a, Lanes b) {
        return where([&](int i) { return a.lane[i] == b.lane[i]; });
    }
    friend Mask operator!=(Lanes a, Lanes b) { return ~(a == b); }

    // Of integers alone.
    friend Lanes operator&(Lanes a, Lanes b) {
        return each([&](int i) { return a.lane[i] & b.lane[i]; });
    }
    friend Lanes operator|(Lanes a, Lanes b) {
        return each([&](int i) { return a.lane[i] | b.lane[i]; });
    }
    friend Lanes operator~(Lanes a) {
        return each([&](int i) { return ~a.lane[i]; });
    }
    friend Lanes operator>>(Lanes a, int bits) {
        return each([&](int i) { return a.lane[i] >> bits; });
    }
    friend Lanes operator<<(Lanes a, int bits) {
        return each([&](int i) { return static_cast<W>(a.lane[i]) << bits; });
    }
    friend Lanes operator+(Lanes a, T b) { return a + all(b); }
    friend Lanes operator-(Lanes a, T b) { return a - all(b); }
    friend Lanes operator&(Lanes a, T b) { return a & all(b); }
};

constexpr int vector_registers = 16;

template <>
struct Types<float> {
    using V = Lanes<float>;
    using I = Lanes<int32_t>;
};
template <>
struct Types<double> {
    using V = Lanes<double>;
    using I = Lanes<int64_t>;
};

constexpr double infinity = HUGE_VAL, not_a_number = NAN;
inline double root(double x) { return sqrt(x); }
inline float power(float a, float b) { return powf(a, b); }
inline double power(double a, double b) { return pow(a, b); }
inline void prefetch(const void*) {}
inline void prefetch_to_write(void*) {}

template <class T>
Vec<T> splat(T x) {
    return Vec<T>::all(x);
}
template <class T>
void keep_in_register(Vec<T>&) {}
template <class T>
Vec<T> numbers(Int<T> x) {
    return Vec<T>::each([&](int i) { return x[i]; });
}
template <class T>
Vec<T> select(Int<T> mask, Vec<T> a, Vec<T> b) {
    return Vec<T>::each([&](int i) { return mask[i] ? a[i] : b[i]; });
}
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return a * b + c; }
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return a * b + c; }
inline Vec<float> square_root(Vec<float> x) {
    return Vec<float>::each([&](int i) { return sqrtf(x[i]); });
}
inline Vec<double> square_root(Vec<double> x) {
    return Vec<double>::each([&](int i) { return sqrt(x[i]); });
}

}  // namespace bptt::BPTT_VARIANT
