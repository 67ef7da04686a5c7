// A run: pack the weights, cut the batch into tiles, hand them to the threads; see run.h.
#include "run.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "isa.h"
#include "pool.h"
#include "tile.h"

namespace bptt {
namespace {

constexpr int64_t most_tile_rows = 64;      // bounds a tile's scratch, and its rows share a weight panel in cache
constexpr double work_per_thread = 1.0e6;   // flops under which waking a thread costs more than it saves

size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Where the shared part of the workspace ends and how large a worker's part is, in bytes.
struct Plan {
    int threads;
    int tiles;
    int64_t tile_rows;
    size_t shared_bytes, tile_bytes;
};

int choose_threads(const Program& program, const Run& run) {
    const double work = program.flops_per_row * static_cast<double>(run.steps) * static_cast<double>(run.batch);
    return useful_threads(work, std::min<int64_t>(run.threads, run.batch));
}

template <class T>
Plan make_plan(const Program& program, const Run& run, const Kernels<T>& kernels) {
    Plan plan{};
    plan.threads = choose_threads(program, run);
    const int64_t round = plan.threads * most_tile_rows;
    plan.tiles = static_cast<int>(std::min(run.batch, plan.threads * ((run.batch + round - 1) / round)));
    plan.tile_rows = plan.tiles == 0 ? 0 : (run.batch + plan.tiles - 1) / plan.tiles;
    plan.shared_bytes = padded(program.constants.size() * sizeof(T));
    for (const Shape2& m : program.text.matrices)
        plan.shared_bytes += padded(static_cast<size_t>(kernels.packed_size(m.k, m.n)) * sizeof(T));
    for (const Projection& p : run.projections) {
        const int64_t width = program.text.time[p.time].width;
        plan.shared_bytes += padded(static_cast<size_t>(kernels.packed_size(p.depth, width)) * sizeof(T));
        plan.shared_bytes += padded(static_cast<size_t>(width) * sizeof(T));
    }
    plan.tile_bytes = padded(tile_elements<T>(program, run, plan.tile_rows) * sizeof(T));
    return plan;
}

template <class T>
Shared<T> prepare(const Program& program, const Run& run, const Kernels<T>& kernels, std::byte* memory, int64_t tile_rows) {
    Shared<T> shared{program, run, kernels, {}, nullptr, {}, steps_ahead<T>(program, run, tile_rows)};
    const auto take = [&](size_t elements) {
        T* start = reinterpret_cast<T*>(memory);
        memory += padded(elements * sizeof(T));
        return start;
    };
    const auto pack = [&](const MatrixView& view, int64_t k, int64_t n) {
        T* packed = take(static_cast<size_t>(kernels.packed_size(k, n)));
        kernels.pack(static_cast<const T*>(view.data), view.row, view.column, k, n, packed);
        return packed;
    };
    T* constants = take(program.constants.size());
    for (size_t i = 0; i < program.constants.size(); ++i) constants[i] = static_cast<T>(program.constants[i]);
    shared.constants = constants;
    for (size_t i = 0; i < run.matrices.size(); ++i)
        shared.packed.push_back(pack(run.matrices[i], program.text.matrices[i].k, program.text.matrices[i].n));
    for (const Projection& p : run.projections) {
        const int64_t width = program.text.time[p.time].width;
        const T* packed = pack(p.weight, p.depth, width);
        T* bias = p.biases.empty() ? nullptr : take(static_cast<size_t>(width));
        for (size_t i = 0; i < p.biases.size(); ++i) {
            const T* term = static_cast<const T*>(p.biases[i]);
            for (int64_t c = 0; c < width; ++c) bias[c] = i == 0 ? term[c] : bias[c] + term[c];
        }
        shared.projections.push_back({packed, bias});
    }
    return shared;
}

template <class T>
void execute_as(const Program& program, const Run& run, WorkspaceCache& cache) {
    if (run.batch == 0) return;
    const Kernels<T>& table = kernels<T>();
    const Plan plan = make_plan<T>(program, run, table);
    auto workspace = cache.take();
    std::byte* memory = workspace->reserve(plan.shared_bytes + static_cast<size_t>(plan.threads) * plan.tile_bytes);
    const Shared<T> shared = prepare<T>(program, run, table, memory, plan.tile_rows);
    std::atomic<bool> failed{false};
    const auto task = [&](int i, int worker) {
        const int64_t first = run.batch * i / plan.tiles, last = run.batch * (i + 1) / plan.tiles;
        std::byte* own = memory + plan.shared_bytes + static_cast<size_t>(worker) * plan.tile_bytes;
        try {
            Tile<T> tile(shared, first, last - first, reinterpret_cast<T*>(own));
            program.text.reverse ? tile.reverse() : tile.forward();
        } catch (const std::bad_alloc&) {
            failed = true;
        }
    };
    parallel(plan.tiles, plan.threads, task);
    cache.give(std::move(workspace));
    if (failed) throw std::bad_alloc();
}

}  // namespace

int useful_threads(double work, int64_t most) {
    const auto useful = static_cast<int64_t>(std::min(work / work_per_thread, 1024.0));
    return static_cast<int>(std::max<int64_t>(1, std::min(most, useful)));
}

void execute(const Program& program, const Run& run, WorkspaceCache& cache) {
    if (program.text.dtype == Dtype::float32) execute_as<float>(program, run, cache);
    else execute_as<double>(program, run, cache);
}

}  // namespace bptt
