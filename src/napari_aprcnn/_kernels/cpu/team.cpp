#include "team.hpp"

#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#endif

namespace aprcnn {

#if defined(__linux__)

namespace {

// The entry that compilers call for `#pragma omp parallel`; libgomp has kept it since GCC 4.9 and libomp offers it too.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

// An OpenMP team does not survive a fork, and libgomp waits for the lost threads for ever.
std::atomic<bool> forked{false};

// Looked up until it is there: torch may be imported after us. It loads its runtime for all (libtorch_global_deps), so
// the plain search finds that one.
Parallel find_parallel() {
    static std::atomic<Parallel> found{nullptr};
    Parallel parallel = found.load(std::memory_order_acquire);
    if (parallel) return parallel;
    parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    if (!parallel) return nullptr;
    static const int watched = pthread_atfork(nullptr, nullptr, [] { forked = true; });
    if (watched != 0) return nullptr;
    found.store(parallel, std::memory_order_release);
    return parallel;
}

}  // namespace

bool on_torch_team(int threads, const std::function<void()>& body) {
    if (threads < 2 || forked) return false;
    const Parallel parallel = find_parallel();
    if (!parallel) return false;
    const auto call = [](void* data) { (*static_cast<const std::function<void()>*>(data))(); };
    parallel(call, const_cast<std::function<void()>*>(&body), static_cast<unsigned>(threads), 0);
    return true;
}

#else

bool on_torch_team(int, const std::function<void()>&) { return false; }

#endif

}  // namespace aprcnn
