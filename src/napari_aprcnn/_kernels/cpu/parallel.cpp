#include "parallel.hpp"

#include "team.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace aprcnn {

namespace {

struct Shared {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
    StopFlag stop{false};
    std::mutex mutex;
    std::condition_variable finished;
    int running = 0;
    std::exception_ptr error;

    void fail(std::exception_ptr what) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!error) error = what;
        stop = true;
    }
};

void work(Shared& shared, int64_t count, int worker,
          const std::function<void(int64_t, int, const StopFlag&)>& task) {
    try {
        while (!shared.stop.load(std::memory_order_relaxed)) {
            const int64_t i = shared.next.fetch_add(1, std::memory_order_relaxed);
            if (i >= count) break;
            task(i, worker, shared.stop);
            shared.done.fetch_add(1, std::memory_order_relaxed);
        }
    } catch (...) {
        shared.fail(std::current_exception());
    }
}

void watch(Shared& shared, int64_t count, const Poll& poll) {
    std::unique_lock<std::mutex> lock(shared.mutex);
    while (shared.running > 0) {
        shared.finished.wait_for(lock, std::chrono::milliseconds(50), [&] { return shared.running == 0; });
        if (shared.running == 0) break;
        lock.unlock();  // poll may take the interpreter lock, which a task must never wait for
        bool wants_stop = false;
        std::exception_ptr thrown;
        try {
            wants_stop = poll(static_cast<double>(shared.done.load()) / static_cast<double>(count));
        } catch (...) {
            thrown = std::current_exception();
        }
        if (thrown) shared.fail(thrown);
        if (wants_stop) shared.stop = true;
        lock.lock();
    }
}

}  // namespace

bool parallel_for(int64_t count, int threads, const std::function<void(int64_t, int, const StopFlag&)>& task,
                  const Poll& poll) {
    if (count <= 0) return true;
    Shared shared;
    const int workers = static_cast<int>(std::min<int64_t>(std::max(threads, 1), count));
    const bool watched = static_cast<bool>(poll);
    if (!watched) {
        // After a layer of torch its threads spin for a while: one of ours beside them would wait for a core.
        std::atomic<int> joined{0};
        if (on_torch_team(workers, [&] { work(shared, count, joined.fetch_add(1), task); })) {
            if (shared.error) std::rethrow_exception(shared.error);
            return true;
        }
    }
    // A caller who need not watch works too.
    const int spawned = watched ? workers : workers - 1;
    std::vector<std::thread> team;
    team.reserve(static_cast<size_t>(spawned));
    for (int worker = 0; worker < spawned; ++worker) {
        {
            const std::lock_guard<std::mutex> lock(shared.mutex);
            ++shared.running;
        }
        try {
            team.emplace_back([&shared, &task, count, worker] {
                work(shared, count, worker, task);
                // Notified under the lock: the waiter's stack, and with it `shared`, may be gone right after.
                const std::lock_guard<std::mutex> lock(shared.mutex);
                --shared.running;
                shared.finished.notify_all();
            });
        } catch (const std::system_error&) {
            // No more threads to be had: those that run, or the caller alone, do the work.
            const std::lock_guard<std::mutex> lock(shared.mutex);
            --shared.running;
            break;
        }
    }
    if (watched && !team.empty()) {
        watch(shared, count, poll);
    } else {
        work(shared, count, workers - 1, task);
    }
    for (std::thread& thread : team) thread.join();
    if (shared.error) std::rethrow_exception(shared.error);
    return !shared.stop.load();
}

}  // namespace aprcnn
