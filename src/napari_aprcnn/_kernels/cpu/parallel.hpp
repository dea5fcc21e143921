// Our own parallel loop: the threads of torch's pool when the caller works too, otherwise a handful of std::threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace aprcnn {

// Asked about every 50 ms, on the calling thread, with the share that is done (0..1); true means stop.
using Poll = std::function<bool(double)>;

// Set when the caller wants to stop; long tasks look at it, others are simply not started.
using StopFlag = std::atomic<bool>;

// Run task(i, worker, stop) for i in 0..count-1. Tasks are handed out in order, one at a time, so the partition into
// tasks never depends on the number of threads: a task that writes only its own output makes the result independent
// of it. Returns false if stopped. The first exception of a task or of poll is thrown again here.
bool parallel_for(int64_t count, int threads, const std::function<void(int64_t, int, const StopFlag&)>& task,
                  const Poll& poll = nullptr);

}  // namespace aprcnn
