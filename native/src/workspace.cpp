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
// From this size on memory is asked for in huge pages: the first touch of a small one costs as much as the arithmetic
// on what it holds.
constexpr size_t huge = size_t{4} << 20, huge_page = size_t{2} << 20;

void advise(std::byte* memory, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const auto start = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t first = (start + huge_page - 1) / huge_page * huge_page, last = (start + bytes) / huge_page * huge_page;
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // a wish: may be refused
#else
    (void)memory, (void)bytes;
#endif
}

}  // namespace

void Workspace::Release::operator()(std::byte* memory) const { ::operator delete(memory, line); }

std::byte* Workspace::reserve(size_t bytes) {
    if (size_ < bytes || !memory_) {
        memory_.reset();
        size_ = 0;
        memory_.reset(static_cast<std::byte*>(::operator new(bytes, line)));
        size_ = bytes;
        if (bytes >= huge) advise(memory_.get(), bytes);
    }
    return memory_.get();
}

std::unique_ptr<Workspace> WorkspaceCache::take() {
    std::lock_guard<std::mutex> lock(mutex_);
    return kept_ ? std::move(kept_) : std::make_unique<Workspace>();
}

void WorkspaceCache::give(std::unique_ptr<Workspace> workspace) {
    if (workspace->size() > most_) return;
    std::lock_guard<std::mutex> lock(mutex_);
    if (!kept_ || kept_->size() < workspace->size()) kept_ = std::move(workspace);
}

}  // namespace bptt
