// Products after the loop, cut into tasks; see products.h.
#include "products.h"

#include <algorithm>

#include "isa.h"
#include "pool.h"

namespace bptt {
namespace {

constexpr int64_t columns_apart = 48;  // a task's columns are a multiple: of every vector and micro-kernel
constexpr int64_t rows_apart = 48;

// Products that read the same rows a with others: packed once.
using Kin = std::vector<const Contraction*>;

// Part of some products: columns of a (outer, sum, dot) or rows (multiply).
struct Task {
    const Kin* kin;
    int64_t first, last;
};

double work(const Contraction& p, int64_t rows) {
    const double each = p.kind == Contraction::Kind::sum ? 1.0 : 2.0 * static_cast<double>(std::max<int64_t>(1, p.n));
    return each * static_cast<double>(p.m) * static_cast<double>(rows);
}

std::vector<Kin> kin_of(const std::vector<Contraction>& products) {
    std::vector<Kin> found;
    for (const Contraction& p : products) {
        const auto alike = [&](const Kin& kin) {
            const Contraction& q = *kin.front();
            const bool outer = p.kind == Contraction::Kind::outer && q.kind == Contraction::Kind::outer;
            return outer && p.a.data == q.a.data && p.a.stride == q.a.stride && p.m == q.m;
        };
        const auto place = std::find_if(found.begin(), found.end(), alike);
        if (place != found.end()) place->push_back(&p);
        else found.push_back({&p});
    }
    return found;
}

std::vector<Task> cut(const std::vector<Kin>& all, int64_t rows, int threads) {
    std::vector<Task> tasks;
    for (const Kin& kin : all) {
        const Contraction& p = *kin.front();
        const bool by_rows = p.kind == Contraction::Kind::multiply;
        const int64_t size = by_rows ? rows : p.m, unit = by_rows ? rows_apart : columns_apart;
        const int64_t units = (size + unit - 1) / unit, parts = std::max<int64_t>(1, std::min<int64_t>(threads, units));
        for (int64_t i = 0; i < parts; ++i)
            tasks.push_back({&kin, units * i / parts * unit, std::min(size, units * (i + 1) / parts * unit)});
    }
    return tasks;
}

template <class T>
class Products {
public:
    Products(const std::vector<Contraction>& products, int64_t rows, const Kernels<T>& kernels)
        : products_(products), kin_(kin_of(products)), rows_(rows), kernels_(kernels) {
        for (const Kin& kin : kin_) {
            size_t together = 0;
            for (const Contraction* p : kin) {
                if (p->kind == Contraction::Kind::multiply) shared_ += static_cast<size_t>(kernels_.packed_size(p->m, p->n));
                if (p->kind == Contraction::Kind::outer) together += static_cast<size_t>(kernels_.outer_memory(p->n));
            }
            own_ = std::max(own_, together);
        }
        own_ = (own_ + 15) / 16 * 16, shared_ = (shared_ + 15) / 16 * 16;
    }

    void run(int threads, WorkspaceCache& cache) {
        auto workspace = cache.take();
        memory_ = reinterpret_cast<T*>(workspace->reserve((shared_ + own_ * static_cast<size_t>(threads)) * sizeof(T)));
        pack();
        const std::vector<Task> tasks = cut(kin_, rows_, threads);
        parallel(static_cast<int>(tasks.size()), threads,
                 [&](int i, int worker) { run(tasks[static_cast<size_t>(i)], worker); });
        cache.give(std::move(workspace));
    }

private:
    const std::vector<Contraction>& products_;
    std::vector<Kin> kin_;
    int64_t rows_;
    const Kernels<T>& kernels_;
    size_t own_ = 0, shared_ = 0;
    T* memory_ = nullptr;
    std::vector<const T*> packed_;

    void pack() {
        T* place = memory_;
        for (const Contraction& p : products_) {
            packed_.push_back(place);
            if (p.kind != Contraction::Kind::multiply) continue;
            kernels_.pack(static_cast<const T*>(p.matrix.data), p.matrix.row, p.matrix.column, p.m, p.n, place);
            place += kernels_.packed_size(p.m, p.n);
        }
    }

    void run(const Task& task, int worker) const {
        const Contraction& p = *task.kin->front();
        const T* a = static_cast<const T*>(p.a.data);
        T* dst = static_cast<T*>(p.dst);
        if (p.kind == Contraction::Kind::sum)
            return kernels_.column_sum(a + task.first, p.a.stride, rows_, task.last - task.first, dst + task.first);
        if (p.kind == Contraction::Kind::dot)
            return kernels_.column_dot(a + task.first, p.a.stride, static_cast<const T*>(p.b.data) + task.first, p.b.stride,
                                       rows_, task.last - task.first, dst + task.first);
        if (p.kind == Contraction::Kind::outer) {
            std::vector<OuterSide<T>> sides;
            for (const Contraction* q : *task.kin)
                sides.push_back({static_cast<const T*>(q->b.data), static_cast<T*>(q->dst) + task.first * q->dst_stride,
                                 q->b.stride, q->dst_stride, q->n});
            const Outer<T> outer{a + task.first, p.a.stride, rows_, task.last - task.first, sides.data(),
                                 static_cast<ptrdiff_t>(sides.size())};
            return kernels_.outer(outer, memory_ + shared_ + own_ * static_cast<size_t>(worker));
        }
        const T* packed = packed_[static_cast<size_t>(&p - products_.data())];
        for (int64_t r = task.first; r < task.last; r += rows_apart) {
            const int64_t n = std::min(rows_apart, task.last - r);
            kernels_.op[static_cast<int>(Op::matmul)][0]({dst + r * p.dst_stride, a + r * p.a.stride, nullptr, nullptr,
                                                          p.dst_stride, p.a.stride, 0, 0, n, p.n, p.m, packed, false});
        }
    }
};

template <class T>
void multiply_all_as(const std::vector<Contraction>& products, int64_t rows, int threads, WorkspaceCache& cache) {
    Products<T>(products, rows, kernels<T>()).run(threads, cache);
}

}  // namespace

void multiply_all(const std::vector<Contraction>& products, int64_t rows, Dtype dtype, int threads, WorkspaceCache& cache) {
    double total = 0;
    for (const Contraction& p : products) total += work(p, rows);
    const int useful = useful_threads(total, threads);
    if (dtype == Dtype::float32) multiply_all_as<float>(products, rows, useful, cache);
    else multiply_all_as<double>(products, rows, useful, cache);
}

}  // namespace bptt
