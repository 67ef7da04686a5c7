// Test of the online loop's kernels, to be run under the sanitizers: awkward sizes against plain loops.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "../src/isa.h"
#include "../src/online_memory.h"
#include "check.h"

using namespace bptt;
using namespace bptt::online;

namespace {

template <class T>
bool close(T a, T b) {
    return std::fabs(a - b) <= (sizeof(T) == 4 ? T(1e-4) : T(1e-11)) * (T(1) + std::fabs(b));
}

template <class T>
void test_products() {
    const OnlineKernels<T>& table = online_tables<T>(1024).online;
    const Kernels<T>& packing = kernels<T>();
    const ptrdiff_t panel = 2 * table.lanes;
    for (ptrdiff_t rows : {1, 2, 3, 4, 5, 7, 10, 13})
        for (ptrdiff_t k : {1, 2, 3, 4, 8, 17})
            for (ptrdiff_t n : {1, 2, 4, 7, 8, 16, 31, 32, 64, 100}) {
                const auto a = random_array<T>(static_cast<size_t>(rows * k), 1);
                const auto m = random_array<T>(static_cast<size_t>(k * n), 2);
                const auto init = random_array<T>(static_cast<size_t>(n), 3);
                std::vector<T> packed(static_cast<size_t>(packing.packed_size(k, n))), y(static_cast<size_t>(rows * n));
                packing.pack(m.data(), n, 1, k, n, packed.data());
                const Product<T> call{y.data(), a.data(), init.data(), packed.data(), n, k, 0, panel, k * panel, rows, k, n};
                table.product(rows, k, n)(call);
                for (ptrdiff_t r = 0; r < rows; ++r)
                    for (ptrdiff_t j = 0; j < n; ++j) {
                        T want = init[static_cast<size_t>(j)];
                        for (ptrdiff_t p = 0; p < k; ++p)
                            want += a[static_cast<size_t>(r * k + p)] * m[static_cast<size_t>(p * n + j)];
                        CHECK(close(y[static_cast<size_t>(r * n + j)], want), "rows %td k %td n %td", rows, k, n);
                    }
            }
}

template <class T>
void test_dots() {
    const OnlineKernels<T>& table = online_tables<T>(1024).online;
    for (ptrdiff_t rows : {1, 3})
        for (ptrdiff_t k : {1, 3, 8, 17, 33, 70})
            for (ptrdiff_t n : {1, 2, 4})
                for (const bool initial : {false, true}) {
                    const auto a = random_array<T>(static_cast<size_t>(rows * k), 1);
                    const auto m = random_array<T>(static_cast<size_t>(k * n), 2);  // column after column
                    const auto init = random_array<T>(static_cast<size_t>(n), 3);
                    std::vector<T> y(static_cast<size_t>(rows * n));
                    table.dots({y.data(), a.data(), initial ? init.data() : nullptr, m.data(), n, k, 0, 0, k, rows, k, n});
                    for (ptrdiff_t r = 0; r < rows; ++r)
                        for (ptrdiff_t j = 0; j < n; ++j) {
                            T want = initial ? init[static_cast<size_t>(j)] : T(0);
                            for (ptrdiff_t p = 0; p < k; ++p)
                                want += a[static_cast<size_t>(r * k + p)] * m[static_cast<size_t>(j * k + p)];
                            CHECK(close(y[static_cast<size_t>(r * n + j)], want), "rows %td k %td n %td", rows, k, n);
                        }
                }
}

// Steps made in one call are those made one by one, wherever the matrix lies.
template <class T>
void test_chains() {
    const OnlineKernels<T>& table = online_tables<T>(1024).online;
    const Kernels<T>& rest = kernels<T>();
    const ptrdiff_t all = 3, panel = 2 * table.lanes;
    for (const ptrdiff_t n : {table.lanes, 2 * table.lanes, 4 * table.lanes, 8 * table.lanes})
        for (const Op op : {Op::tanh, Op::relu, Op::tanh_backward})
            for (const bool packed : {false, true})
                for (const bool initial : {false, true})
                    for (const ptrdiff_t start : {0, 1})
                        for (const ptrdiff_t steps : {0, 1, 2}) {
                            const bool forward = op_operands(op) == 1;
                            const auto size = static_cast<size_t>((all + 1) * n);
                            const auto m = random_array<T>(static_cast<size_t>(n * n), 1), init = random_array<T>(size, 2);
                            const auto b = random_array<T>(size, 3);
                            std::vector<T> in_panels(static_cast<size_t>(rest.packed_size(n, n)));
                            rest.pack(m.data(), n, 1, n, n, in_panels.data());
                            // Forward: states, and what their function is made of. Backward: carries and deltas.
                            std::vector<T> first[2] = {random_array<T>(size, 4), random_array<T>(size, 4)}, second[2];
                            for (auto& s : second) s.assign(size, T(0));
                            const ptrdiff_t d = forward ? n : -n;
                            const auto product = [&](T* states, T* other, ptrdiff_t t) {
                                Product<T> p{forward ? other + t * n : states + t * n, forward ? states + t * n : other + t * n,
                                             initial ? init.data() + t * n : nullptr, packed ? in_panels.data() : m.data(), n, n,
                                             n, packed ? panel : n, packed ? n * panel : panel, 1, n, n};
                                return p;
                            };
                            const auto call = [&](T* states, T* other, ptrdiff_t t) {
                                Call<T> c{};
                                c.dst = forward ? states + (t + 1) * n : other + t * n;
                                c.a = forward ? other + t * n : states + (t + 1) * n, c.b = forward ? nullptr : b.data() + t * n;
                                c.rows = 1, c.width = n;
                                return c;
                            };
                            T *states = first[0].data(), *other = second[0].data();
                            const auto at = [&](ptrdiff_t t) { return forward ? t : all - 1 - t; };
                            for (ptrdiff_t i = start; i < start + steps; ++i) {
                                const auto p = product(states, other, at(i));
                                const auto c = call(states, other, at(i));
                                if (!forward) rest.op[static_cast<int>(op)][0](c);
                                table.product(1, n, n)(p);
                                if (forward) rest.op[static_cast<int>(op)][0](c);
                            }
                            states = first[1].data(), other = second[1].data();
                            const auto p = product(states, other, at(0));
                            const auto kernel = table.chain(op, p);
                            CHECK(kernel != nullptr, "n %td", n);
                            kernel({p, call(states, other, at(0)), d, d, initial ? d : 0, d, forward ? 0 : d}, start, steps);
                            for (size_t i = 0; i < size; ++i) {
                                CHECK(close(first[1][i], first[0][i]), "%s n %td", op_name(op), n);
                                CHECK(close(second[1][i], second[0][i]), "%s n %td", op_name(op), n);
                            }
                        }
    const auto m = random_array<T>(64 * 64, 1);
    Product<T> odd{nullptr, nullptr, nullptr, m.data(), 5, 5, 0, 5, panel, 1, 5, 5};
    CHECK(table.chain(Op::tanh, odd) == nullptr, "a width that is no whole number of vectors");
    const ptrdiff_t n = 4 * table.lanes;
    odd = {nullptr, nullptr, nullptr, m.data(), n, n, 0, n + 1, panel, 1, n, n};
    CHECK(table.chain(Op::tanh, odd) == nullptr, "rows further apart");
    odd.row_step = n, odd.rows = 2;
    CHECK(table.chain(Op::tanh, odd) == nullptr, "two rows");
    odd.rows = 1;
    CHECK(table.chain(Op::tanh, odd) != nullptr && table.chain(Op::exp, odd) == nullptr, "another function");
}

template <class T>
void test_squares() {
    for (size_t count : {1, 7, 8, 15, 32, 33, 47, 100}) {
        const auto x = random_array<T>(count, 6);
        T want = 0;
        for (const T v : x) want += v * v;
        const auto n = static_cast<ptrdiff_t>(count);
        const Descent<T> alone{nullptr, x.data(), n, T(0)};
        const double found = online_tables<T>(1024).online.descend(&alone, 1);
        CHECK(close(static_cast<T>(found), want), "%zu", count);
        const auto before = random_array<T>(count, 7);
        auto weight = before;
        const Descent<T> twice[] = {{weight.data(), x.data(), n, T(0.25)}, alone};
        CHECK(online_tables<T>(1024).online.descend(twice, 1) == found, "%zu", count);
        CHECK(close(static_cast<T>(online_tables<T>(1024).online.descend(twice + 1, 1) + found), 2 * want), "%zu", count);
        for (size_t i = 0; i < count; ++i) CHECK(close(weight[i], before[i] - T(0.25) * x[i]), "%zu of %zu", i, count);
    }
}

template <class T>
void test_crosses() {
    const OnlineKernels<T>& table = online_tables<T>(1024).online;
    constexpr size_t slack = 32;
    for (ptrdiff_t rows : {1, 4, 11})
        for (ptrdiff_t m : {1, 3, 8, 16, 33, 55})
            for (ptrdiff_t n : {1, 2, 3, 8, 17, 40})
                for (const bool ones : {false, true}) {
                    const ptrdiff_t columns = ones ? 1 : n;
                    const auto a = random_array<T>(static_cast<size_t>(rows * m) + slack, 4);
                    const auto b = random_array<T>(static_cast<size_t>(rows * n) + slack, 5);
                    std::vector<T> y(static_cast<size_t>(m * columns), T(1));
                    const Cross<T> sums{y.data(), a.data(), ones ? nullptr : b.data(), columns, m, n,    rows, m,
                                        columns,  T(0.5),   true,                          T(0)};
                    table.cross(ones, columns)(sums);
                    for (ptrdiff_t i = 0; i < m; ++i)
                        for (ptrdiff_t j = 0; j < columns; ++j) {
                            T want = 0;
                            for (ptrdiff_t r = 0; r < rows; ++r)
                                want += a[static_cast<size_t>(r * m + i)] * (ones ? T(1) : b[static_cast<size_t>(r * n + j)]);
                            CHECK(close(y[static_cast<size_t>(i * columns + j)], T(1) + T(0.5) * want), "m %td n %td", m, n);
                        }
                    if (columns <= 2) continue;
                    // Going down by the sums is keeping them, and then going down by them; to the bit.
                    std::vector<T> gradient(y.size() + slack), weight = random_array<T>(y.size(), 6), down = weight;
                    Cross<T> call = sums;
                    call.dst = gradient.data(), call.accumulate = false, call.step = T(0.25);
                    table.cross(false, columns)(call);
                    call.dst = down.data();
                    const double squares = table.cross_descend(call);
                    const Descent<T> after{weight.data(), gradient.data(), static_cast<ptrdiff_t>(y.size()), T(0.25)};
                    CHECK(close(static_cast<T>(squares), static_cast<T>(table.descend(&after, 1))), "m %td n %td", m, n);
                    CHECK(down == weight, "m %td n %td", m, n);
                }
}

template <class T>
void all() {
    test_products<T>();
    test_dots<T>();
    test_chains<T>();
    test_squares<T>();
    test_crosses<T>();
}

}  // namespace

int main() {
    on_every_variant("kernels of the online loop", [] {
        all<float>();
        all<double>();
    });
    return 0;
}
