// Flows to masks: following, grouping, and the filters after it.
#pragma once

#include <cstdint>

#include "objects.hpp"
#include "parallel.hpp"

namespace aprcnn {

enum class Outcome { finished, stopped, not_finite };

// Where each inside voxel ends after n_steps Euler steps of flows / 5 (1 + flat index; 0 outside), and how many
// voxels end at each place. ends and counts must be zero. not_finite: an inside flow is NaN or infinite.
Outcome follow_flows(const float* flows, const uint8_t* inside, const Grid& grid, int64_t n_steps, uint32_t* ends,
                     uint32_t* counts, int threads, const Poll& poll);

// Ends to labels 1..n (in place), in the order of their first voxel; counts is used up. Objects with more than
// max_voxels are dropped. Returns n, or -1 if stopped.
int64_t group_ends(uint32_t* ends, uint32_t* counts, const Grid& grid, double max_voxels, int threads,
                   const Poll& poll);

// labels = map[labels], in place.
bool relabel(uint32_t* labels, int64_t size, const uint32_t* map, int threads);

// Drop objects below min_size and fill the holes of the others plane by plane, in place; what is left becomes 1..m in
// the old order. Returns m, or -1 if stopped.
int64_t clean_labels(uint32_t* labels, const Grid& grid, uint32_t n, int64_t min_size, bool fill_holes, int threads,
                     const Poll& poll);

}  // namespace aprcnn
