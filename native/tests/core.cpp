// Test of the core without Python, to be run under the sanitizers: every kernel on awkward sizes, whole runs with
// resets, lengths and clipping, several threads, several callers at once, a fork.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "../src/isa.h"
#include "../src/pool.h"
#include "../src/products.h"
#include "../src/run.h"
#include "check.h"

using namespace bptt;

namespace {

// Every pointwise kernel: awkward widths give the same elements as one at a time does.
template <class T>
void test_pointwise() {
    const Kernels<T>& table = kernels<T>();
    for (int op = 0; op < op_count; ++op) {
        const Op name = static_cast<Op>(op);
        if (op_is_reduction(name) || name == Op::matmul) continue;
        for (int mask = 0; mask < (1 << op_operands(name)); ++mask)
            for (ptrdiff_t width : {1, 2, 3, 7, 8, 9, 31, 33}) {
                const ptrdiff_t rows = 5;
                const size_t size = static_cast<size_t>(rows * width);
                const auto a = random_array<T>(size, 1), b = random_array<T>(size, 2), c = random_array<T>(size, 3);
                std::vector<T> y(size), z(size);
                Call<T> call{};
                call = {y.data(), a.data(), b.data(), c.data(), width, width, width, width, rows, width, 0, nullptr, false};
                if (width == 1 && mask != 0) continue;
                table.op[op][mask](call);
                for (ptrdiff_t r = 0; r < rows; ++r)
                    for (ptrdiff_t i = 0; i < width; ++i) {
                        const auto at = [&](const std::vector<T>& x, int bit) { return x.data() + r * width + (mask & bit ? 0 : i); };
                        Call<T> one{};
                        one = {z.data() + r * width + i, at(a, scalar_a), at(b, scalar_b), at(c, scalar_c), 1, 1, 1, 1, 1, 1, 0, nullptr, false};
                        table.op[op][0](one);
                    }
                CHECK(std::memcmp(y.data(), z.data(), size * sizeof(T)) == 0, "%s mask %d width %td", op_name(name), mask, width);
            }
    }
}

template <class T>
void test_matmul() {
    const Kernels<T>& table = kernels<T>();
    for (ptrdiff_t k : {1, 5, 64, 300, 601})
        for (ptrdiff_t n : {1, 7, 16, 32, 33, 48, 63, 64, 65, 130, 192}) {
            const ptrdiff_t most = 13;
            const auto a = random_array<T>(static_cast<size_t>(most * k), 4), m = random_array<T>(static_cast<size_t>(k * n), 5);
            const auto init = random_array<T>(static_cast<size_t>(n), 6);
            std::vector<T> packed(static_cast<size_t>(table.packed_size(k, n))), first(static_cast<size_t>(most * n));
            table.pack(m.data(), n, 1, k, n, packed.data());
            for (ptrdiff_t rows = 1; rows <= most; ++rows) {
                std::vector<T> y(static_cast<size_t>(rows * n));
                Call<T> call{};
                call = {y.data(), a.data(), init.data(), nullptr, n, k, 0, 0, rows, n, k, packed.data(), rows % 2 == 0};
                table.op[static_cast<int>(Op::matmul)][0](call);
                if (rows == 1) {
                    for (ptrdiff_t j = 0; j < n; ++j) {
                        double sum = init[static_cast<size_t>(j)];
                        for (ptrdiff_t p = 0; p < k; ++p) sum += double(a[static_cast<size_t>(p)]) * m[static_cast<size_t>(p * n + j)];
                        CHECK(std::fabs(y[static_cast<size_t>(j)] - sum) < (sizeof(T) == 4 ? 2e-3 : 1e-11), "k %td n %td", k, n);
                    }
                }
                for (ptrdiff_t i = 0; i < (rows - 1) * n; ++i)  // rows above do not change when one more joins
                    CHECK(y[static_cast<size_t>(i)] == first[static_cast<size_t>(i)], "row block shows: rows %td k %td n %td", rows, k, n);
                std::copy(y.begin(), y.end(), first.begin());
            }
        }
}

InstructionText line(Op op, Slot dst, Slot a, Slot b = {}, Slot c = {}) { return {op, dst, {a, b, c}, 0}; }
Slot slot(Space space, int64_t width) { return {space, 0, 0, width, 0, false}; }

// next = tanh(u + state W), and its reverse.
Description cell(Dtype dtype, bool reverse, int64_t n) {
    Description text;
    text.dtype = dtype;
    text.reverse = reverse;
    text.states = {n};
    text.time = {{n, reverse}};
    text.matrices = {{n, n}};
    const Slot time = slot(Space::time, n);
    if (reverse) {
        Slot none;
        none.absent = true;
        text.instructions = {line(Op::tanh_backward, time, slot(Space::grad, n), slot(Space::next, n)),
                             line(Op::matmul, slot(Space::grad_in, n), none, time)};
    } else {
        text.instructions = {line(Op::matmul, slot(Space::next, n), time, slot(Space::state, n)),
                             line(Op::tanh, slot(Space::next, n), slot(Space::next, n))};
    }
    return text;
}

// All memory of a forward and reverse run.
template <class T>
struct Memory {
    int64_t steps, batch, n;
    std::vector<T> states, inputs, deltas, weight, initial, final_grad, step_grad, start_grad, initial_grad;
    std::vector<uint8_t> reset;
    std::vector<int64_t> lengths;

    Memory(int64_t t, int64_t b, int64_t width) : steps(t), batch(b), n(width) {
        const auto size = [](int64_t x) { return static_cast<size_t>(x); };
        states = random_array<T>(size((t + 1) * b * n), 1);
        inputs = random_array<T>(size(t * b * n), 2);
        deltas.resize(size(t * b * n));
        weight = random_array<T>(size(n * n), 3);
        initial = random_array<T>(size(b * n), 4);
        final_grad = random_array<T>(size(b * n), 5);
        step_grad = random_array<T>(size(t * b * n), 6);
        start_grad.resize(size(b * n));
        initial_grad.resize(size(b * n));
        for (int64_t i = 0; i < t * b; ++i) reset.push_back(i % 7 == 3);
        for (int64_t i = 0; i < b; ++i) lengths.push_back(i % 3 == 0 ? t : i % (t + 1));
    }

    Plane over_time(std::vector<T>& x) const { return {x.data(), batch * n, n}; }
    Plane lanes(std::vector<T>& x) const { return {x.data(), 0, n}; }

    Run run(bool reverse, int threads) {
        Run r;
        r.steps = steps;
        r.batch = batch;
        r.threads = threads;
        r.states = {over_time(states)};
        r.time = {over_time(reverse ? deltas : inputs)};
        r.initial = {lanes(initial)};
        r.matrices = {{weight.data(), reverse ? 1 : n, reverse ? n : 1}};
        r.reset = reset.data();
        r.reset_time = batch;
        r.reset_row = 1;
        r.lengths = lengths.data();
        r.lengths_row = 1;
        if (!reverse) return r;
        r.has_clip = true;
        r.clip = 0.5;
        r.final_grads = {lanes(final_grad)};
        r.step_grads = {over_time(step_grad)};
        r.start_grads = {lanes(start_grad)};
        r.initial_grads = {lanes(initial_grad)};
        return r;
    }

    void both(const Program& forward, const Program& reverse, WorkspaceCache& cache, int threads) {
        execute(forward, run(false, threads), cache);
        execute(reverse, run(true, threads), cache);
    }

    bool operator==(const Memory& other) const {
        return states == other.states && deltas == other.deltas && start_grad == other.start_grad && initial_grad == other.initial_grad;
    }
};

template <class T>
void test_runs() {
    const Dtype dtype = sizeof(T) == 4 ? Dtype::float32 : Dtype::float64;
    for (int64_t n : {3, 64, 97}) {
        const Program forward = build(cell(dtype, false, n)), reverse = build(cell(dtype, true, n));
        WorkspaceCache cache;
        for (int64_t steps : {0, 1, 40})
            for (int64_t batch : {0, 1, 3, 70}) {
                Memory<T> one(steps, batch, n), many(steps, batch, n);
                one.both(forward, reverse, cache, 1);
                many.both(forward, reverse, cache, 4);
                CHECK(one == many, "threads show: n %d steps %d batch %d", int(n), int(steps), int(batch));
            }
    }
}

// Products that sum over rows, and rows times a matrix: against sums in double, for any number of threads.
template <class T>
void test_products() {
    const Dtype dtype = sizeof(T) == 4 ? Dtype::float32 : Dtype::float64;
    const double close = sizeof(T) == 4 ? 5e-3 : 1e-10;
    for (int64_t rows : {1, 7, 256, 700})
        for (int64_t m : {1, 6, 50, 131})
            for (int64_t n : {1, 16, 41}) {
                const auto size = [](int64_t x) { return static_cast<size_t>(x); };
                auto a = random_array<T>(size(rows * m), 1), b = random_array<T>(size(rows * n), 2);
                auto matrix = random_array<T>(size(m * n), 3);
                std::vector<T> results[2];
                for (int threads : {1, 5}) {
                    std::vector<T> outer(size(m * n)), sum(size(m)), rowwise(size(rows * n)), dots(size(m)), own(size(m * m));
                    using Kind = Contraction::Kind;
                    const std::vector<Contraction> products{
                        {Kind::outer, {a.data(), m}, {b.data(), n}, m, n, {}, outer.data(), n},
                        {Kind::sum, {a.data(), m}, {}, m, 0, {}, sum.data(), 0},
                        {Kind::outer, {a.data(), m}, {a.data(), m}, m, m, {}, own.data(), m},  // the same a: packed once
                        {Kind::dot, {a.data(), m}, {a.data(), m}, m, 0, {}, dots.data(), 0},
                        {Kind::multiply, {a.data(), m}, {}, m, n, {matrix.data(), n, 1}, rowwise.data(), n}};
                    WorkspaceCache cache;
                    multiply_all(products, rows, dtype, threads, cache);
                    auto& all = results[threads > 1];
                    for (const auto* part : {&outer, &sum, &dots, &rowwise, &own}) all.insert(all.end(), part->begin(), part->end());
                }
                CHECK(results[0] == results[1], "threads show: rows %d m %d n %d", int(rows), int(m), int(n));
                for (int64_t i = 0; i < m; ++i) {
                    double total = 0;
                    for (int64_t r = 0; r < rows; ++r) total += double(a[size(r * m + i)]);
                    CHECK(std::fabs(results[0][size(m * n + i)] - total) < close, "sum");
                    total = 0;
                    for (int64_t r = 0; r < rows; ++r) total += double(a[size(r * m + i)]) * double(a[size(r * m + i)]);
                    CHECK(std::fabs(results[0][size(m * n + m + i)] - total) < close, "dot");
                    const T diagonal = results[0][size(m * n + 2 * m + rows * n + i * m + i)];
                    CHECK(std::fabs(diagonal - total) < close, "outer of the same rows");
                    for (int64_t j = 0; j < n; ++j) {
                        total = 0;
                        for (int64_t r = 0; r < rows; ++r) total += double(a[size(r * m + i)]) * double(b[size(r * n + j)]);
                        CHECK(std::fabs(results[0][size(i * n + j)] - total) < close, "outer: rows %d m %d n %d", int(rows), int(m), int(n));
                    }
                }
            }
}

// What is projected as the loop goes is what was projected before it, kept or not.
template <class T>
void test_projections() {
    const Dtype dtype = sizeof(T) == 4 ? Dtype::float32 : Dtype::float64;
    for (int64_t n : {3, 64})
        for (int64_t batch : {1, 5, 70}) {
            const int64_t steps = 60, depth = 9;
            const Program program = build(cell(dtype, false, n));
            const auto size = [](int64_t x) { return static_cast<size_t>(x); };
            auto input = random_array<T>(size(steps * batch * depth), 7), weight = random_array<T>(size(depth * n), 8);
            auto bias = random_array<T>(size(n), 9);
            Memory<T> streamed(steps, batch, n), kept(steps, batch, n), given(steps, batch, n);
            const auto run = [&](Memory<T>& memory, bool keep, int threads) {
                Run r = memory.run(false, threads);
                const Plane rows = r.time[0];
                r.time[0] = {};
                r.projections = {{0, {input.data(), batch * depth, depth}, keep ? rows : Plane{}, depth, {weight.data(), n, 1}, {bias.data(), bias.data()}}};
                WorkspaceCache cache;
                execute(program, r, cache);
            };
            run(kept, true, 1);
            run(streamed, false, 3);
            given.inputs = kept.inputs;
            WorkspaceCache cache;
            execute(program, given.run(false, 2), cache);
            CHECK(kept.states == given.states, "kept: n %d batch %d", int(n), int(batch));
            CHECK(streamed.states == given.states, "streamed: n %d batch %d", int(n), int(batch));
            double first = 2 * double(bias[0]);
            for (int64_t p = 0; p < depth; ++p) first += double(input[size(p)]) * double(weight[size(p * n)]);
            CHECK(std::fabs(double(kept.inputs[0]) - first) < 1e-4, "projection");
        }
}

// Several callers share the programs and the pool.
void test_callers() {
    const Program forward = build(cell(Dtype::float32, false, 64)), reverse = build(cell(Dtype::float32, true, 64));
    WorkspaceCache cache;
    Memory<float> expected(50, 20, 64);
    expected.both(forward, reverse, cache, 1);
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i)
        callers.emplace_back([&] {
            for (int repeat = 0; repeat < 10; ++repeat) {
                Memory<float> own(50, 20, 64);
                own.both(forward, reverse, cache, 3);
                CHECK(own == expected, "callers disturb each other");
            }
        });
    for (auto& c : callers) c.join();
}

void test_pool() {
    for (int tasks : {0, 1, 2, 100})
        for (int threads : {1, 2, 5}) {
            std::vector<int> done(static_cast<size_t>(tasks));
            parallel(tasks, threads, [&](int i, int) { ++done[static_cast<size_t>(i)]; });
            for (int d : done) CHECK(d == 1, "a task ran %d times", d);
        }
    // Many small jobs of changing size: workers come late, and no two have one number.
    for (int job = 0; job < 10000; ++job) {
        const int threads = 1 + job % 5, tasks = job % 7;
        std::vector<std::atomic<int>> busy(5);
        std::atomic<int> done{0};
        parallel(tasks, threads, [&](int, int worker) {
            CHECK(worker < threads, "worker %d of %d", worker, threads);
            CHECK(busy[static_cast<size_t>(worker)].fetch_add(1) == 0, "two workers have the number %d", worker);
            busy[static_cast<size_t>(worker)].fetch_sub(1);
            done.fetch_add(1);
        });
        CHECK(done == tasks, "%d of %d tasks", done.load(), tasks);
    }
}

[[maybe_unused]] void test_fork() {
    const pid_t child = fork();
    if (child == 0) {
        test_pool();
        _exit(0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %d", status);
    test_pool();
}

}  // namespace

int main() {
    on_every_variant("core", [] {
        test_pointwise<float>();
        test_pointwise<double>();
        test_matmul<float>();
        test_matmul<double>();
        test_runs<float>();
        test_runs<double>();
        test_products<float>();
        test_products<double>();
        test_projections<float>();
        test_projections<double>();
    });
    test_pool();
    test_callers();
#if !defined(__SANITIZE_THREAD__)
    test_fork();  // the thread sanitizer does not follow a fork of a threaded process
#endif
    std::printf("pool, callers, fork: ok\n");
}
