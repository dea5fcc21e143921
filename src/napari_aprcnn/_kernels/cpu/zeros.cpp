#include "zeros.hpp"

#include <algorithm>
#include <atomic>

#include "conv.hpp"
#include "pages.hpp"
#include "parallel.hpp"
#include "vectors.hpp"

#if defined(APRCNN_X86_VARIANTS) && defined(APRCNN_VECTORS)
#define APRCNN_ZEROS_AVX512 1
#include <immintrin.h>
#endif

namespace aprcnn {

namespace {

#if defined(APRCNN_ZEROS_AVX512)
bool wide() { return &conv_table() == &conv_avx512; }

__attribute__((target("avx512f"))) int64_t squeeze_wide(uint32_t* values, int64_t count, uint16_t* marks) {
    int64_t kept = 0;
    for (int64_t first = 0; first < count; first += marked) {
        const __m512i value = _mm512_loadu_si512(values + first);
        const __mmask16 mark = _mm512_test_epi32_mask(value, value);
        _mm512_storeu_si512(values + kept, _mm512_maskz_compress_epi32(mark, value));  // no further than what was read
        marks[first / marked] = mark;
        kept += __builtin_popcount(mark);
    }
    return kept;
}

__attribute__((target("avx512f"))) void spread_wide(uint32_t* values, int64_t count, const uint16_t* marks, int64_t left) {
    for (int64_t first = count - marked; first >= 0; first -= marked) {
        const __mmask16 mark = marks[first / marked];
        left -= __builtin_popcount(mark);
        const __m512i value = _mm512_maskz_loadu_epi32(static_cast<__mmask16>((1u << __builtin_popcount(mark)) - 1u), values + left);
        _mm512_storeu_si512(values + first, _mm512_maskz_expand_epi32(mark, value));
    }
}
#endif

constexpr uintptr_t huge = uintptr_t{1} << 21;  // parts end where huge pages do: one that is half used stays whole

int64_t bits_of(unsigned mark) {  // of 16
    mark -= mark >> 1 & 0x5555u;
    mark = (mark & 0x3333u) + (mark >> 2 & 0x3333u);
    mark = (mark + (mark >> 4)) & 0x0f0fu;
    return static_cast<int64_t>((mark + (mark >> 8)) & 0x1fu);
}

struct Part {
    int64_t first, last;
};

// The cuts follow from the address and the size alone, so that both ways agree.
template <class T>
Part part_of(const T* values, int64_t count, int64_t part) {
    const auto begin = reinterpret_cast<uintptr_t>(values), end = begin + static_cast<uintptr_t>(count) * sizeof(T);
    const uintptr_t base = begin / huge * huge, size = ((end - base) / waiting_parts + huge - 1) / huge * huge;
    const auto cut = [&](int64_t i) {
        const uintptr_t at = i == waiting_parts ? end : base + static_cast<uintptr_t>(i) * size;
        return static_cast<int64_t>((std::clamp(at, begin, end) - begin) / sizeof(T));
    };
    return {cut(part), cut(part + 1)};
}

// Returns the number of values that are left.
template <class T>
int64_t squeeze(T* values, int64_t count, uint16_t* marks) {
#if defined(APRCNN_ZEROS_AVX512)
    if constexpr (sizeof(T) == 4)
        if (wide()) return squeeze_wide(values, count, marks);
#endif
    int64_t kept = 0;
    for (int64_t first = 0; first < count; first += marked) {
        unsigned mark = 0;
        for (unsigned i = 0; i < marked; ++i) {
            const T value = values[first + i];
            const unsigned there = value != 0;
            values[kept] = value;  // never beyond what was read
            kept += there;
            mark |= there << i;
        }
        marks[first / marked] = static_cast<uint16_t>(mark);
    }
    return kept;
}

// From the end: nothing is written over that is still to be read.
template <class T>
void spread(T* values, int64_t count, const uint16_t* marks) {
    int64_t left = 0;
    for (int64_t i = 0; i < count / marked; ++i) left += bits_of(marks[i]);
#if defined(APRCNN_ZEROS_AVX512)
    if constexpr (sizeof(T) == 4)
        if (wide()) return spread_wide(values, count, marks, left);
#endif
    for (int64_t first = count - marked; first >= 0; first -= marked) {
        const unsigned mark = marks[first / marked];
        for (int i = marked - 1; i >= 0; --i) {
            const unsigned there = mark >> i & 1u;
            left -= there;
            values[first + i] = values[left] & static_cast<T>(0u - there);  // no branch: they come as they like
        }
    }
}

}  // namespace

template <class T>
int64_t leave_out_zeros(T* values, int64_t count, uint16_t* marks, int threads) {
    std::atomic<int64_t> given{0};
    parallel_for(waiting_parts, threads, [&](int64_t i, int, const StopFlag&) {
        const Part part = part_of(values, count, i);
        if (part.first == part.last) return;
        const int64_t kept = squeeze(values + part.first, part.last - part.first, marks + part.first / marked);
        given += static_cast<int64_t>(give_pages(values + part.first + kept, values + part.last));
    });
    Reuse::leave(values, static_cast<size_t>(given.load()));
    return given;
}

template <class T>
void put_back_zeros(T* values, int64_t count, const uint16_t* marks, int threads) {
    Reuse::come_back(values);
    parallel_for(waiting_parts, threads, [&](int64_t i, int, const StopFlag&) {
        const Part part = part_of(values, count, i);
        spread(values + part.first, part.last - part.first, marks + part.first / marked);
    });
}

template int64_t leave_out_zeros(uint32_t*, int64_t, uint16_t*, int);
template int64_t leave_out_zeros(uint16_t*, int64_t, uint16_t*, int);
template void put_back_zeros(uint32_t*, int64_t, const uint16_t*, int);
template void put_back_zeros(uint16_t*, int64_t, const uint16_t*, int);

}  // namespace aprcnn
