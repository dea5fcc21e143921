// Memory of pages that go back to the system as soon as they are free.
#pragma once

#include <cstddef>
#include <cstdint>

namespace aprcnn {

// Memory that begins on a line of the cache; large pieces are mapped for themselves where the system has that (Linux), on huge pages:
// the C library keeps what is freed among smaller things. Nothing is written here.
class Pages {
  public:
    Pages() = default;
    ~Pages() { release(); }
    Pages(Pages&& other) noexcept { swap(other); }
    Pages& operator=(Pages&& other) noexcept {
        swap(other);
        return *this;
    }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    // What was there is lost.
    void resize(size_t bytes);
    void* data() const { return data_; }
    size_t size() const { return size_; }

  private:
    void release();
    void swap(Pages& other) noexcept;
    void *data_ = nullptr, *memory_ = nullptr;
    size_t size_ = 0, mapped_ = 0;
};

// Ask for huge pages where memory is not mapped here; nothing depends on the answer, whether the system was asked.
bool ask_for_huge_pages(void* address, size_t bytes);

// Give whole huge pages between the two addresses to the system, which fills them with zeros when they are written again (Linux;
// elsewhere nothing). What they held is lost. Returns the bytes.
size_t give_pages(void* first, void* last);

// Give what the C library keeps of what was freed to the system (glibc, unless it is told to keep it; elsewhere nothing).
void give_back_free();

// Whether the system has what `Pages` maps (Linux).
constexpr bool can_map() {
#if defined(__linux__)
    return true;
#else
    return false;
#endif
}

// Whether the C library is told to keep large allocations (MALLOC_MMAP_MAX_=0, glibc): then nothing is mapped here.
bool keeps_memory();

// What `Reuse` keeps while one lives: pages that were freed, to be written again without faults.
//
// Spare pages are cut, and joined with their neighbours, as they are needed. Who finds none that are enough gives them all back to
// the system first: so a peak is that of what is used.
class Reuse {
  public:
    static void begin();
    static void end();  // of the last: nothing stays
    static bool active();
    static size_t spare_bytes();
    // Of a piece of `Pages` so many bytes went to the system with `give_pages`; all of them are about to be written again.
    static void leave(const void* memory, size_t bytes);
    static void come_back(const void* memory);
};

// Floats that begin on a cache line: a wide register that lies across two of them takes two loads. Whoever asks for them writes
// them, so nothing is written here.
class AlignedFloats {
  public:
    void resize(int64_t count) {
        const size_t bytes = static_cast<size_t>(count) * sizeof(float);
        if (bytes > pages_.size()) pages_.resize(bytes);
    }
    float* data() const { return static_cast<float*>(pages_.data()); }

  private:
    Pages pages_;
};

}  // namespace aprcnn
