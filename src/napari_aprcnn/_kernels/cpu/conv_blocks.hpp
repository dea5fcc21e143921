// Convolution 3 x 3 x 3 of rows that lie in blocks of 2 x 2 x 2 (conv_blocks.inc), or in cubes of eight blocks (conv_cubes.inc): which
// rows do, and their weights.
#pragma once

#include <cstdint>

#include "conv.hpp"
#include "pages.hpp"
#include "particles.hpp"

namespace aprcnn {

// The blocks of a segment, which follow one another: siblings with a feature row among them. Some lie in cubes, the others are single.
struct BlockRange {
    int64_t first, last, rows, first_cube, last_cube, first_single, last_single;
    // Whether minimal filtering pays: blocks are many and nearly full. That depends on the tree and the segment alone.
    bool filtered() const;
    // Whether there are so many cubes that they pay for their weights.
    bool has_cubes() const;
};

// Input channels that lie in one source, or in two of which the first has `split`.
struct Inside {
    int64_t channels, split;
    // End of the piece of channels, of one source and summed at once, that begins with channel `first`.
    int64_t piece_end(int64_t first) const;
};

// Whether such a convolution can be filtered.
bool fits_blocks(const KernelShape& kernel, Inside inside);

// What rows are filtered together: blocks, of which every axis takes four products for two rows, or cubes, six for four.
enum class Tile { block, cube };
constexpr int64_t products_of(Tile tile) { return tile == Tile::block ? 64 : 216; }

// Weights of a depth as `ConvTable::blocks` or `ConvTable::cubes` takes them.
AlignedFloats filtered_weights(const float* weight, const KernelShape& kernel, Inside inside, const Blocks& blocks, Tile tile);

// Floats that blocks_together blocks, or cubes_together cubes, need.
int64_t filter_scratch(const KernelShape& kernel, const Blocks& blocks, Tile tile);

}  // namespace aprcnn
