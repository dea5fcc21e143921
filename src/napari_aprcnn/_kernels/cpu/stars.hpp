// How far a label reaches from given points along given rays: the targets of star-convex shapes.
#pragma once

#include <cstdint>

#include "parallel.hpp"

namespace aprcnn {

struct LabelGrid {
    const uint32_t* labels;  // [z, y, x]
    int64_t shape[3];
};

// corners: twice the position of every point in units where voxel i covers [i, i+1): odd at a voxel's centre, even where
// voxels meet; [points, 3]. own: label of every point, 0 for none (its distances are left alone). rays: unit vectors
// [rays, 3]. out: distances in voxels [points, rays]. Returns false if stopped.
bool ray_distances(const LabelGrid& grid, const int64_t* corners, const uint32_t* own, int64_t points, const double* rays,
                   int64_t ray_count, float* out, int threads, const Poll& poll);

}  // namespace aprcnn
