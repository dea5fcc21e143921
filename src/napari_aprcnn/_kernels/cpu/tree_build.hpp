// From a grid of levels to the rows of a tree, and back.
#pragma once

#include <cstdint>
#include <vector>

#include "tree.hpp"

namespace aprcnn {

// The largest level inside every cell of the levels top..0, where top = level_max - 1 is the grid of 2x2x2 voxels.
// A cell of level l is a particle where the value is l, an interior node where it is larger, and lies inside a coarser
// particle where it is smaller; a value of level_max at top means that the voxels of the cell are particles.
class LevelPyramid {
  public:
    LevelPyramid(const uint8_t* levels, const int64_t* shape, int64_t level_max, int threads);
    const uint8_t* at(int64_t level) const { return level == top_ ? levels_ : coarse_[level].data(); }
    int64_t dim(int axis, int64_t level) const { return cells_at(shape_[axis], top_ + 1, level); }
    int64_t level_max() const { return top_ + 1; }

  private:
    const uint8_t* levels_;
    int64_t shape_[3];
    int64_t top_;
    std::vector<std::vector<uint8_t>> coarse_;
};

struct OwnedRows {
    std::vector<int64_t> level_rows;
    std::vector<int64_t> offsets;
    std::vector<uint16_t> x;
};

// Particles (levels 0..level_max) or nodes (levels 0..level_max - 1).
OwnedRows build_rows(const LevelPyramid& pyramid, bool nodes, int threads);

// First place where two touching cells differ by more than one level, as (level, z, y, x) of the finer cell; false if
// there is none.
bool find_jump(const LevelPyramid& pyramid, int64_t* where, int threads);

// The grid of levels that particles describe. Returns the number of cells of the grid that no particle, or more than one,
// covers, or whose voxels are not all there.
int64_t paint_levels(const Tree& tree, uint8_t* levels);

}  // namespace aprcnn
