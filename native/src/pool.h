// The core's own threads: created on first use, kept for the life of the process, asleep when idle.
//
// Workers spin for a few tens of microseconds after a job (the next call of a training loop often follows at once),
// then sleep. After a fork the child starts with a fresh pool; the parent's threads do not exist there. Several callers
// at once do not wait for each other: who finds the pool busy runs its tasks on its own thread.
#pragma once

#include <functional>

namespace bptt {

// Runs task(i, worker) for i in 0 .. tasks-1, on at most `threads` threads, the caller's among them; worker is a number
// below `threads` that no two tasks running at the same time share. Returns when all are done. Tasks must not throw.
void parallel(int tasks, int threads, const std::function<void(int task, int worker)>& task);

}  // namespace bptt
