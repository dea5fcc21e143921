// From spline coefficients to samples: (1, 4, 1) / 6 along each axis of more than two voxels, mirrored at the ends.
#pragma once

#include <vector>

#include "convert.hpp"

namespace aprcnn {

constexpr float sample_side = static_cast<float>(1.0 / 6.0);
constexpr float sample_centre = static_cast<float>(4.0 / 6.0);

inline float sample(float before, float here, float after) {
    return (sample_side * before + sample_centre * here) + sample_side * after;
}

inline void sample_row(float* row, int64_t n) {
    float before = row[1];
    for (int64_t x = 0; x < n; ++x) {
        const float here = row[x];
        row[x] = sample(before, here, x + 1 < n ? row[x + 1] : before);
        before = here;
    }
}

// The same down the columns of a plane.
inline void sample_columns(float* plane, int64_t ny, int64_t nx) {
    std::vector<float> kept(plane + nx, plane + 2 * nx);
    float* APRCNN_NOALIAS before = kept.data();
    for (int64_t y = 0; y < ny; ++y) {
        float* APRCNN_NOALIAS row = plane + y * nx;
        if (y + 1 < ny) {
            const float* after = row + nx;
            for (int64_t x = 0; x < nx; ++x) {
                const float here = row[x];
                row[x] = sample(before[x], here, after[x]);
                before[x] = here;
            }
        } else {
            for (int64_t x = 0; x < nx; ++x) row[x] = sample(before[x], row[x], before[x]);
        }
    }
}

// One voxel of the smoothed image, from 27 coefficients.
inline float sample_at(const Coefficients::Slab& slab, const Shape& s, bool smoothed, int64_t z, int64_t y, int64_t x) {
    if (!smoothed) return slab.plane(z)[y * s.x + x];
    const auto mirror = [](int64_t i, int64_t n) { return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i; };
    float along_y[3], along_z[3];
    const int64_t rz = s.z > 2 ? 1 : 0, ry = s.y > 2 ? 1 : 0;
    for (int64_t dz = -rz; dz <= rz; ++dz) {
        for (int64_t dy = -ry; dy <= ry; ++dy) {
            const float* row = slab.plane(mirror(z + dz, s.z)) + mirror(y + dy, s.y) * s.x;
            along_y[dy + 1] = s.x > 2 ? sample(row[mirror(x - 1, s.x)], row[x], row[mirror(x + 1, s.x)]) : row[x];
        }
        along_z[dz + 1] = ry != 0 ? sample(along_y[0], along_y[1], along_y[2]) : along_y[1];
    }
    return rz != 0 ? sample(along_z[0], along_z[1], along_z[2]) : along_z[1];
}

}  // namespace aprcnn
