// Values of particles whose rows are given.
#pragma once

#include "convert.hpp"
#include "tree.hpp"

namespace aprcnn {

// One value a particle, in the order of the rows: uint8 and uint16 images in their type, others float32. `repeated`: the
// reference's repeated means of eight, cut to the type at each level; else the mean, rounded once, half to even.
bool sample_values(const Source& source, const Rows& rows, int64_t level_max, bool repeated, void* out, Job& job);

}  // namespace aprcnn
