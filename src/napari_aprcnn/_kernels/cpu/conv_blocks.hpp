// Convolution 3 x 3 x 3 of rows that lie in blocks of 2 x 2 x 2 (conv_blocks.inc): which rows do, and their weights.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "conv.hpp"
#include "particles.hpp"

namespace aprcnn {

// Floats that begin on a cache line: a wide register that lies across two of them takes two loads.
struct alignas(64) CacheLine {
    float values[16];
};
class AlignedFloats {
  public:
    void resize(int64_t count) { lines_.resize((count + 15) / 16, CacheLine{}); }
    float* data() { return lines_.empty() ? nullptr : lines_.front().values; }
    const float* data() const { return lines_.empty() ? nullptr : lines_.front().values; }

  private:
    std::vector<CacheLine> lines_;
};

// The blocks of a segment, which follow one another: siblings with a feature row among them.
struct BlockRange {
    int64_t first, last, rows;
    // Whether minimal filtering pays: blocks are many and nearly full. That depends on the tree and the segment alone.
    bool filtered() const;
};

// Input channels that lie in one source, or in two of which the first has `split`.
struct Inside {
    int64_t channels, split;
    // End of the piece of channels, of one source and summed at once, that begins with channel `first`.
    int64_t piece_end(int64_t first) const;
};

// Whether such a convolution can be filtered.
bool fits_blocks(const KernelShape& kernel, Inside inside);

// Weights of a depth as `ConvTable::blocks` takes them.
AlignedFloats block_weights(const float* weight, const KernelShape& kernel, Inside inside, const Blocks& blocks);

// Floats that blocks_together blocks need.
int64_t block_scratch(const KernelShape& kernel, const Blocks& blocks);

}  // namespace aprcnn
