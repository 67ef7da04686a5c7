// Products after the loop, cut into tasks; see products.h.
#include "products.h"

#include <algorithm>

#include "isa.h"
#include "pool.h"

namespace bptt {
namespace {

constexpr int64_t columns_apart = 48;  // a task's columns are a multiple: of every vector and micro-kernel
constexpr int64_t rows_apart = 48;

// Part of a product: columns of a (outer, sum) or rows (multiply).
struct Task {
    const Product* product;
    int64_t first, last;
};

double work(const Product& p, int64_t rows) {
    const double each = p.kind == Product::Kind::sum ? 1.0 : 2.0 * static_cast<double>(std::max<int64_t>(1, p.n));
    return each * static_cast<double>(p.m) * static_cast<double>(rows);
}

std::vector<Task> cut(const std::vector<Product>& products, int64_t rows, int threads) {
    std::vector<Task> tasks;
    for (const Product& p : products) {
        const bool by_rows = p.kind == Product::Kind::multiply;
        const int64_t size = by_rows ? rows : p.m, unit = by_rows ? rows_apart : columns_apart;
        const int64_t units = (size + unit - 1) / unit, parts = std::max<int64_t>(1, std::min<int64_t>(threads, units));
        for (int64_t i = 0; i < parts; ++i)
            tasks.push_back({&p, units * i / parts * unit, std::min(size, units * (i + 1) / parts * unit)});
    }
    return tasks;
}

template <class T>
class Products {
public:
    Products(const std::vector<Product>& products, int64_t rows, const Kernels<T>& kernels)
        : products_(products), rows_(rows), kernels_(kernels) {
        for (const Product& p : products_) {
            const bool packs = p.kind == Product::Kind::multiply;
            if (packs) shared_ += static_cast<size_t>(kernels_.packed_size(p.m, p.n));
            if (p.kind == Product::Kind::outer) own_ = std::max(own_, static_cast<size_t>(kernels_.outer_memory(p.n)));
        }
        own_ = (own_ + 15) / 16 * 16, shared_ = (shared_ + 15) / 16 * 16;
    }

    void run(int threads, WorkspaceCache& cache) {
        auto workspace = cache.take();
        memory_ = reinterpret_cast<T*>(workspace->reserve((shared_ + own_ * static_cast<size_t>(threads)) * sizeof(T)));
        pack();
        const std::vector<Task> tasks = cut(products_, rows_, threads);
        parallel(static_cast<int>(tasks.size()), threads,
                 [&](int i, int worker) { run(tasks[static_cast<size_t>(i)], worker); });
        cache.give(std::move(workspace));
    }

private:
    const std::vector<Product>& products_;
    int64_t rows_;
    const Kernels<T>& kernels_;
    size_t own_ = 0, shared_ = 0;
    T* memory_ = nullptr;
    std::vector<const T*> packed_;

    void pack() {
        T* place = memory_;
        for (const Product& p : products_) {
            packed_.push_back(place);
            if (p.kind != Product::Kind::multiply) continue;
            kernels_.pack(static_cast<const T*>(p.matrix.data), p.matrix.row, p.matrix.column, p.m, p.n, place);
            place += kernels_.packed_size(p.m, p.n);
        }
    }

    void run(const Task& task, int worker) const {
        const Product& p = *task.product;
        const T* a = static_cast<const T*>(p.a.data);
        T* dst = static_cast<T*>(p.dst);
        if (p.kind == Product::Kind::sum)
            return kernels_.column_sum(a + task.first, p.a.stride, rows_, task.last - task.first, dst + task.first);
        if (p.kind == Product::Kind::dot)
            return kernels_.column_dot(a + task.first, p.a.stride, static_cast<const T*>(p.b.data) + task.first, p.b.stride,
                                       rows_, task.last - task.first, dst + task.first);
        if (p.kind == Product::Kind::outer) {
            const Outer<T> outer{a + task.first, static_cast<const T*>(p.b.data), dst + task.first * p.dst_stride,
                                 p.a.stride,     p.b.stride,                      p.dst_stride,
                                 rows_,          task.last - task.first,          p.n};
            return kernels_.outer(outer, memory_ + shared_ + own_ * static_cast<size_t>(worker));
        }
        const T* packed = packed_[static_cast<size_t>(task.product - products_.data())];
        for (int64_t r = task.first; r < task.last; r += rows_apart) {
            const int64_t n = std::min(rows_apart, task.last - r);
            kernels_.op[static_cast<int>(Op::matmul)][0]({dst + r * p.dst_stride, a + r * p.a.stride, nullptr, nullptr,
                                                          p.dst_stride, p.a.stride, 0, 0, n, p.n, p.m, packed, false});
        }
    }
};

template <class T>
void multiply_all_as(const std::vector<Product>& products, int64_t rows, int threads, WorkspaceCache& cache) {
    Products<T>(products, rows, kernels<T>()).run(threads, cache);
}

}  // namespace

void multiply_all(const std::vector<Product>& products, int64_t rows, Dtype dtype, int threads, WorkspaceCache& cache) {
    double total = 0;
    for (const Product& p : products) total += work(p, rows);
    const int useful = useful_threads(total, threads);
    if (dtype == Dtype::float32) multiply_all_as<float>(products, rows, useful, cache);
    else multiply_all_as<double>(products, rows, useful, cache);
}

}  // namespace bptt
