// Memory kept between runs, so that a run allocates nothing it had before.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>

namespace bptt {

// Asks for huge pages where there are enough bytes: the first touch of a small page costs as much as the arithmetic on
// what it holds. A wish, which the system may refuse; what memory holds does not change.
void wish_for_huge_pages(void* memory, size_t bytes);

class Workspace {
public:
    // At least `bytes`, aligned to 64; what was there before is forgotten.
    std::byte* reserve(size_t bytes);
    size_t size() const { return size_; }

private:
    struct Release {
        void operator()(std::byte* memory) const;
    };
    std::unique_ptr<std::byte, Release> memory_;
    size_t size_ = 0;
};

// Keeps one workspace of at most `most` bytes.
class WorkspaceCache {
public:
    WorkspaceCache() = default;
    explicit WorkspaceCache(size_t most) : most_(most) {}
    std::unique_ptr<Workspace> take();
    void give(std::unique_ptr<Workspace> workspace);
    // The bytes of the workspace that was given last, kept or not.
    size_t latest() const;

private:
    mutable std::mutex mutex_;
    size_t most_ = size_t{64} << 20, latest_ = 0;
    std::unique_ptr<Workspace> kept_;
};

}  // namespace bptt
