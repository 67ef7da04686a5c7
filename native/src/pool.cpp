// Persistent threads; see pool.h.
#include "pool.h"

#if !defined(_WIN32)
#include <pthread.h>
#elif defined(_M_X64)
#include <intrin.h>
#endif

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace bptt {
namespace {

using Task = std::function<void(int, int)>;
constexpr int most_workers = 255;
constexpr auto spin_time = std::chrono::microseconds(40);

inline void pause() {
#if defined(_M_X64)
    _mm_pause();
#elif defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spins until `done()` or the spin time is over; true if done.
template <class F>
bool spin(const F& done) {
    const auto end = std::chrono::steady_clock::now() + spin_time;
    do {
        for (int i = 0; i < 32; ++i) {
            if (done()) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() < end);
    return done();
}

class Pool {
public:
    // False if the pool is busy with another caller's job.
    bool run(int tasks, int threads, const Task& task) {
        std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
        if (!busy.owns_lock()) return false;
        const int helpers = grow(threads - 1);
        task_ = &task;
        tasks_ = tasks;
        pending_.store(tasks, std::memory_order_relaxed);
        uint32_t job;
        {
            // Under the lock, so that a worker about to sleep cannot miss it.
            std::lock_guard<std::mutex> lock(sleep_);
            wanted_ = helpers;
            job = job_.load(std::memory_order_relaxed) + 1;
            tickets_.store(ticket(job, tasks), std::memory_order_release);
            job_.store(job, std::memory_order_release);
        }
        wake_.notify_all();
        drain(job, 0);
        finish();
        return true;
    }

private:
    std::mutex busy_, sleep_;
    std::condition_variable wake_, done_;
    std::atomic<uint32_t> job_{0};
    // The job that is on in the upper half, the tasks of it that nobody has taken yet in the lower. Whoever takes one
    // keeps the job on until it is done: a worker that comes late finds none, and nobody waits for it.
    std::atomic<uint64_t> tickets_{0};
    std::atomic<int> pending_{0};  // tasks that are not done
    int wanted_ = 0;               // workers with a number up to this take part; guarded by sleep_
    int workers_ = 0;
    // Read by who has taken a task, who keeps the job on.
    const Task* task_ = nullptr;
    int tasks_ = 0;

    static uint64_t ticket(uint32_t job, int left) { return uint64_t{job} << 32 | static_cast<uint32_t>(left); }

    // As many workers as asked for, or as many as the system grants.
    int grow(int helpers) {
        if (helpers > most_workers) helpers = most_workers;
        while (workers_ < helpers) {
            try {
                std::thread([this, me = workers_ + 1, seen = job_.load()] { work(me, seen); }).detach();
            } catch (const std::exception&) {
                return workers_;
            }
            ++workers_;
        }
        return helpers;
    }

    void drain(uint32_t job, int worker) {
        uint64_t seen = tickets_.load(std::memory_order_acquire);
        while (seen >> 32 == job && static_cast<uint32_t>(seen) > 0) {
            if (!tickets_.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel)) continue;
            (*task_)(tasks_ - static_cast<int>(static_cast<uint32_t>(seen)), worker);
            if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1 && worker != 0) {
                std::lock_guard<std::mutex> lock(sleep_);
                done_.notify_one();
            }
            seen = tickets_.load(std::memory_order_acquire);
        }
    }

    void finish() {
        const auto done = [this] { return pending_.load(std::memory_order_acquire) == 0; };
        if (spin(done)) return;
        std::unique_lock<std::mutex> lock(sleep_);
        done_.wait(lock, done);
    }

    [[noreturn]] void work(int me, uint32_t seen) {
        for (;;) {
            const auto called = [this, seen] { return job_.load(std::memory_order_acquire) != seen; };
            spin(called);
            bool mine;
            {
                std::unique_lock<std::mutex> lock(sleep_);
                wake_.wait(lock, called);
                seen = job_.load(std::memory_order_relaxed);
                mine = me <= wanted_;
            }
            if (mine) drain(seen, me);
        }
    }
};

// Never destroyed: its threads outlive main. Replaced, not reused, in a forked child.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
    Pool* p = the_pool.load(std::memory_order_acquire);
    if (p != nullptr) return *p;
#if !defined(_WIN32)  // which has no fork
    static std::once_flag once;
    std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr); }); });
#endif
    auto* fresh = new Pool;
    if (the_pool.compare_exchange_strong(p, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;  // no threads yet
    return *p;
}

}  // namespace

void parallel(int tasks, int threads, const Task& task) {
    if (threads > tasks) threads = tasks;
    if (threads > 1 && pool().run(tasks, threads, task)) return;
    for (int i = 0; i < tasks; ++i) task(i, 0);
}

}  // namespace bptt
