// Memory kept between runs; see workspace.h.
#include "workspace.h"

#include <cstdint>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace bptt {
namespace {

constexpr std::align_val_t line{64};

}  // namespace

void wish_for_huge_pages(void* memory, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr size_t enough = size_t{4} << 20, page = size_t{2} << 20;
    if (bytes < enough) return;
    const auto start = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t first = (start + page - 1) / page * page, last = (start + bytes) / page * page;
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

void Workspace::Release::operator()(std::byte* memory) const { ::operator delete(memory, line); }

std::byte* Workspace::reserve(size_t bytes) {
    if (size_ < bytes || !memory_) {
        memory_.reset();
        size_ = 0;
        memory_.reset(static_cast<std::byte*>(::operator new(bytes, line)));
        size_ = bytes;
        wish_for_huge_pages(memory_.get(), bytes);
    }
    return memory_.get();
}

std::unique_ptr<Workspace> WorkspaceCache::take() {
    std::lock_guard<std::mutex> lock(mutex_);
    return kept_ ? std::move(kept_) : std::make_unique<Workspace>();
}

void WorkspaceCache::give(std::unique_ptr<Workspace> workspace) {
    std::lock_guard<std::mutex> lock(mutex_);
    latest_ = workspace->size();
    if (latest_ > most_) return;
    if (!kept_ || kept_->size() < workspace->size()) kept_ = std::move(workspace);
}

size_t WorkspaceCache::latest() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return latest_;
}

}  // namespace bptt
