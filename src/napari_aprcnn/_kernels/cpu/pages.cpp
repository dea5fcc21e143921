#include "pages.hpp"

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace aprcnn {

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

}  // namespace aprcnn
