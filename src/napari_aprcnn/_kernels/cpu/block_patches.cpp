#include "block_patches.hpp"

namespace aprcnn {

const PatchSources& patch_sources() {
    static const auto made = [] {
        PatchSources found{};
        for (int mask = 0; mask < 256; ++mask)
            for (int at = 0; at < 64; ++at)
                for (int child = 0; child < 8; ++child) {
                    const int z = at / 16 - child / 4, y = at / 4 % 4 - child / 2 % 2, x = at % 4 - child % 2;
                    const bool reaches = z >= 0 && z < 3 && y >= 0 && y < 3 && x >= 0 && x < 3;
                    found[mask][at] = found[mask][at] || (reaches && (mask >> child & 1) != 0);
                }
        return found;
    }();
    return made;
}

}  // namespace aprcnn
