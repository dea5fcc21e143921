// Memory that is about to be written for the first time.
#pragma once

#include <cstddef>

namespace aprcnn {

// Ask for huge pages (Linux): a large output takes a fault for every page, 4 kB or 2 MB, and the small ones take longer than
// writing it. Returns whether the system was asked; nothing depends on its answer.
bool ask_for_huge_pages(void* address, size_t bytes);

}  // namespace aprcnn
