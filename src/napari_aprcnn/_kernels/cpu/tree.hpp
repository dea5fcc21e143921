// Rows of cells, the one structure behind particles and interior nodes.
#pragma once

#include <cstdint>

namespace aprcnn {

// Cells of the levels 0..levels-1 in the order level, z, y, x. Level l has nz(l) * ny(l) rows, the first of them being
// row level_rows[l]; row r holds the cells offsets[r]..offsets[r+1]-1, whose position along x is x[i].
struct Rows {
    int64_t levels = 0;
    const int64_t* level_rows = nullptr;  // [levels + 1]
    const int64_t* offsets = nullptr;     // [level_rows[levels] + 1]
    const uint16_t* x = nullptr;

    int64_t first(int64_t level) const { return offsets[level_rows[level]]; }  // index of a level's first cell
    int64_t count() const { return offsets[level_rows[levels]]; }
};

// The grid of level l has ceil(n / 2^(level_max - l)) cells along an axis of n voxels.
inline int64_t cells_at(int64_t n, int64_t level_max, int64_t level) {
    const int64_t shift = level_max - level;
    return (n + (int64_t{1} << shift) - 1) >> shift;
}

struct Tree {
    int64_t shape[3] = {0, 0, 0};  // voxels along z, y, x
    int64_t level_max = 0;
    Rows particles;  // levels 0..level_max
    Rows nodes;      // levels 0..level_max - 1
    int64_t dim(int axis, int64_t level) const { return cells_at(shape[axis], level_max, level); }
};

}  // namespace aprcnn
