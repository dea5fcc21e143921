// The patch of a block of siblings, 4 x 4 x 4 extended indices from -1 on along z, y, x, from what lies around the block on its own level.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "particles.hpp"
#include "vectors.hpp"

namespace aprcnn {

// For every set of children that are rows, which of the 64 positions around them are a neighbour of one.
using PatchSources = std::array<std::array<bool, 64>, 256>;
const PatchSources& patch_sources();

class BlockPatches {
  public:
    BlockPatches(const PatchTable& table, StageSize size) : table_(table), size_(size) {}

    const int32_t* children_of(int64_t block) const { return table_.children + 8 * static_cast<int64_t>(table_.nodes[block]); }
    bool is_row(int32_t index) const { return index >= 0 && index < size_.rows; }
    int32_t outside() const { return static_cast<int32_t>(size_.rows + size_.tree_rows); }

    // A position is outside where no row of the block has it as a neighbour.
    void find(int64_t block, int32_t* patch) const {
        const int32_t* around = table_.around + 27 * block;
        const int32_t* eight[27];  // what lies at the eight finer positions of each
        int32_t same[27][8];
        for (int k = 0; k < 27; ++k) {
            const int64_t node = around[k] - size_.rows;
            if (node >= 0 && node < size_.tree_rows) {
                eight[k] = table_.children + 8 * node;
                continue;
            }
            for (int child = 0; child < 8; ++child) same[k][child] = around[k];
            eight[k] = same[k];
        }
        for (int line = 0; line < 16; ++line, patch += 4) {
            const int z = line / 4 + 1, y = line % 4 + 1;  // from the first cell around the block
            const int32_t* const* three = eight + 9 * (z / 2) + 3 * (y / 2);
            const int child = 4 * (z % 2) + 2 * (y % 2);
            patch[0] = three[0][child + 1];
            std::memcpy(patch + 1, three[1] + child, 2 * sizeof(int32_t));
            patch[3] = three[2][child];
        }
        patch -= 64;
        const int32_t* own = children_of(block);
        int mask = 0;
        for (int child = 0; child < 8; ++child) mask |= static_cast<int>(is_row(own[child])) << child;
        if (mask == 255) return;
        const auto& found = patch_sources()[mask];
        // At a border of odd size a particle beside the block reaches out of the image, as the block does.
        const bool z_ends = own[4] == outside(), y_ends = own[2] == outside(), x_ends = own[1] == outside();
        for (int k = 0; k < 64; ++k) {
            const bool ends = (z_ends && k / 16 == 2) || (y_ends && k / 4 % 4 == 2) || (x_ends && k % 4 == 2);
            if (ends || !found[k]) patch[k] = outside();
        }
    }

    // The tables of a block that comes later.
    void ask_for(int64_t block) const {
#if defined(APRCNN_VECTORS)
        const int32_t* around = table_.around + 27 * block;
        __builtin_prefetch(around);
        __builtin_prefetch(around + 16);
        __builtin_prefetch(children_of(block));
#else
        static_cast<void>(block);
#endif
    }

  private:
    PatchTable table_;
    StageSize size_;
};

}  // namespace aprcnn
