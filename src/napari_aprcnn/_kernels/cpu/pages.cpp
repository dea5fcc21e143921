#include "pages.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace aprcnn {

namespace {

constexpr size_t line = 64;

#if defined(__linux__)

constexpr size_t large = size_t{1} << 22, reused = size_t{1} << 20;  // what has pages of its own; the latter where they are used again
constexpr size_t grain = size_t{1} << 16;  // spare pages are cut at multiples of it

size_t whole(size_t bytes) { return (bytes + grain - 1) / grain * grain; }

void* map_pages(size_t bytes) {
    void* found = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    madvise(found, bytes, MADV_HUGEPAGE);  // a wish
#endif
    return found;
}

// What is used and what is spare together stay below three quarters of the most that was used since the first user began: other
// things grow meanwhile.
class Spare {
  public:
    void begin() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (users_++ == 0) most_used_ = used_;
    }
    void end() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (users_ > 0 && --users_ == 0) drop();
    }
    bool active() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return users_ > 0;
    }
    // The smallest piece that is enough, cut; or new pages.
    void* take(size_t bytes) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            used_ += bytes;
            most_used_ = std::max(most_used_, used_);
            auto best = pieces_.end();
            for (auto piece = pieces_.begin(); piece != pieces_.end(); ++piece)
                if (piece->second >= bytes && (best == pieces_.end() || piece->second < best->second)) best = piece;
            if (best != pieces_.end()) {
                const auto [address, size] = *best;
                pieces_.erase(best);
                spare_ -= bytes;
                if (size > bytes) pieces_[address + bytes] = size - bytes;
                absent_[address] = 0;
                return reinterpret_cast<void*>(address);
            }
            drop();
        }
        void* found = nullptr;
        try {
            found = map_pages(bytes);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex_);
            used_ -= bytes;
            throw;
        }
        const std::lock_guard<std::mutex> lock(mutex_);
        absent_[reinterpret_cast<uintptr_t>(found)] = 0;
        return found;
    }
    // The system has so many bytes of this memory for now, if it was taken here; nothing of it any more.
    void leave(const void* memory, size_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto one = absent_.find(reinterpret_cast<uintptr_t>(memory));
        if (one == absent_.end()) return;
        one->second += bytes;
        used_ -= bytes;
    }
    void come_back(const void* memory) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto one = absent_.find(reinterpret_cast<uintptr_t>(memory));
        if (one == absent_.end()) return;
        used_ += one->second;
        one->second = 0;
        most_used_ = std::max(most_used_, used_);
        if (used_ + spare_ > most_used_ / 4 * 3) drop();
    }
    void give(void* memory, size_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto one = absent_.find(reinterpret_cast<uintptr_t>(memory));
        used_ -= bytes - one->second;
        absent_.erase(one);
        const size_t held = used_ + spare_, most = users_ == 0 ? 0 : most_used_ / 4 * 3;
        const size_t kept = std::min(bytes, held < most ? (most - held) / grain * grain : 0);
        if (kept < bytes) munmap(static_cast<char*>(memory) + kept, bytes - kept);
        if (kept == 0) return;
        spare_ += kept;
        auto own = pieces_.emplace(reinterpret_cast<uintptr_t>(memory), kept).first;
        const auto next = std::next(own);
        if (next != pieces_.end() && own->first + own->second == next->first) {
            own->second += next->second;
            pieces_.erase(next);
        }
        if (own == pieces_.begin()) return;
        const auto before = std::prev(own);
        if (before->first + before->second != own->first) return;
        before->second += own->second;
        pieces_.erase(own);
    }
    size_t bytes() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return spare_;
    }

  private:
    void drop() {
        for (const auto& [address, size] : pieces_) munmap(reinterpret_cast<void*>(address), size);
        pieces_.clear();
        spare_ = 0;
    }
    std::mutex mutex_;
    int64_t users_ = 0;
    size_t used_ = 0, spare_ = 0, most_used_ = 0;
    std::map<uintptr_t, size_t> pieces_;  // address and size
    std::map<uintptr_t, size_t> absent_;  // what is used: address, and bytes of it that the system has for now
};

// Never destroyed: tensors may be freed after it would be.
Spare& spare() {
    static Spare* const made = new Spare;
    return *made;
}

#endif

}  // namespace

#if defined(__linux__)
void Reuse::begin() { spare().begin(); }
void Reuse::end() { spare().end(); }
bool Reuse::active() { return spare().active(); }
size_t Reuse::spare_bytes() { return spare().bytes(); }
void Reuse::leave(const void* memory, size_t bytes) { spare().leave(memory, bytes); }
void Reuse::come_back(const void* memory) { spare().come_back(memory); }
#else
void Reuse::begin() {}
void Reuse::end() {}
bool Reuse::active() { return false; }
size_t Reuse::spare_bytes() { return 0; }
void Reuse::leave(const void*, size_t) {}
void Reuse::come_back(const void*) {}
#endif

bool ask_for_huge_pages(void* address, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t huge = uintptr_t{1} << 21;
    const uintptr_t first = (reinterpret_cast<uintptr_t>(address) + huge - 1) / huge * huge;
    const uintptr_t last = (reinterpret_cast<uintptr_t>(address) + bytes) / huge * huge;
    return first < last && madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE) == 0;
#else
    static_cast<void>(address);
    static_cast<void>(bytes);
    return false;
#endif
}

size_t give_pages(void* first, void* last) {
#if defined(__linux__)
    constexpr uintptr_t huge = uintptr_t{1} << 21;
    const uintptr_t from = (reinterpret_cast<uintptr_t>(first) + huge - 1) / huge * huge;
    const uintptr_t to = reinterpret_cast<uintptr_t>(last) / huge * huge;
    if (from < to && madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED) == 0) return to - from;
#else
    static_cast<void>(first);
    static_cast<void>(last);
#endif
    return 0;
}

void give_back_free() {
#if defined(__GLIBC__)
    if (!keeps_memory()) malloc_trim(0);
#endif
}

bool keeps_memory() {
    static const bool told = [] {
        const char* const most = std::getenv("MALLOC_MMAP_MAX_");
        return most != nullptr && std::strcmp(most, "0") == 0;
    }();
    return told;
}

void Pages::resize(size_t bytes) {
    release();
#if defined(__linux__)
    if (bytes >= (Reuse::active() ? reused : large) && !keeps_memory()) {
        mapped_ = whole(bytes);
        try {
            data_ = memory_ = spare().take(mapped_);
        } catch (...) {
            mapped_ = 0;
            throw;
        }
        size_ = bytes;
        return;
    }
#endif
    memory_ = ::operator new(bytes + line);
    data_ = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory_) + line - 1) / line * line);
    size_ = bytes;
}

void Pages::release() {
#if defined(__linux__)
    if (mapped_ > 0) spare().give(memory_, mapped_);
#endif
    if (mapped_ == 0) ::operator delete(memory_);
    data_ = memory_ = nullptr;
    size_ = mapped_ = 0;
}

void Pages::swap(Pages& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(memory_, other.memory_);
    std::swap(size_, other.size_);
    std::swap(mapped_, other.mapped_);
}

}  // namespace aprcnn
