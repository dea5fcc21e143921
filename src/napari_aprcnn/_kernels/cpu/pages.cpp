#include "pages.hpp"

#include <cstdint>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace aprcnn {

namespace {

constexpr size_t line = 64, large = size_t{1} << 22;

}  // namespace

void Pages::resize(size_t bytes) {
    release();
#if defined(__linux__)
    if (bytes >= large) {
        void* found = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (found == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
        madvise(found, bytes, MADV_HUGEPAGE);  // a wish
#endif
        data_ = memory_ = found;
        size_ = mapped_ = bytes;
        return;
    }
#endif
    memory_ = ::operator new(bytes + line);
    data_ = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory_) + line - 1) / line * line);
    size_ = bytes;
}

void Pages::release() {
#if defined(__linux__)
    if (mapped_ > 0) munmap(memory_, mapped_);
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
