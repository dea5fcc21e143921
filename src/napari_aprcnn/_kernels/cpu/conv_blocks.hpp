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

// Siblings of a level that are worth computing together.
struct BlockList {
    std::vector<int32_t> nodes;  // rows of `children`
    bool used = false;
};

// children [tree_rows][8], the extended indices of the children of every tree row: the blocks of each segment. A segment is used
// where minimal filtering pays: its blocks are many and nearly full. That depends on the tree and the segment alone.
std::vector<BlockList> list_blocks(const int32_t* children, StageSize size, const Segments& segments);

// Whether such a convolution can be made of blocks.
bool fits_blocks(const KernelShape& kernel);

// Weights of a depth as `convolve_blocks` takes them.
AlignedFloats block_weights(const float* weight, const KernelShape& kernel, const Blocks& blocks);

// Floats that blocks_together blocks need.
int64_t block_scratch(const KernelShape& kernel, const Blocks& blocks);

// patches [count][64] and rows [count][8] of blocks; -1 where a child is no row. There are `available` nodes, of which those behind
// the first `count` have their part of the table fetched ahead.
void describe_blocks(const int32_t* nodes, int64_t count, int64_t available, const int32_t* children, StageSize size, const int32_t* table,
                     int32_t* patches, int32_t* rows);

}  // namespace aprcnn
