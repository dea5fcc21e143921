// Threads that a process with torch already has: its OpenMP runtime, found at run time and never linked.
#pragma once

#include <functional>

namespace aprcnn {

// Run body() on up to `threads` threads of torch's OpenMP team, this one among them, and wait for all. Returns false,
// and has run nothing, where there is no such runtime (macOS, Windows, a process without torch, a forked child).
bool on_torch_team(int threads, const std::function<void()>& body);

}  // namespace aprcnn
