#include "stars.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace aprcnn {

namespace {

constexpr int64_t kPointsOfTask = 128;

// One axis of a ray, with the voxel that it starts in and the length until the next plane between voxels.
struct Axis {
    int64_t voxel, step, stride, end;
    double next, between;

    // The same arithmetic in the same order as the numpy reference: the results agree to the bit.
    Axis(int64_t corner, double direction, int64_t size, int64_t stride_) : stride(stride_), end(size) {
        const double at = static_cast<double>(corner) * 0.5;
        const double low = std::floor(at);
        // A point between two voxels starts in the one that the ray goes to.
        voxel = static_cast<int64_t>(direction < 0 && low == at ? low - 1 : low);
        step = direction < 0 ? -1 : 1;
        if (direction == 0) {
            next = between = std::numeric_limits<double>::infinity();
        } else {
            between = 1.0 / std::fabs(direction);
            next = (direction < 0 ? at - static_cast<double>(voxel) : static_cast<double>(voxel + 1) - at) * between;
        }
    }
    bool inside() const { return voxel >= 0 && voxel < end; }
};

double reach(const LabelGrid& grid, const int64_t* corner, uint32_t own, const double* ray) {
    Axis axes[3] = {{corner[0], ray[0], grid.shape[0], grid.shape[1] * grid.shape[2]},
                    {corner[1], ray[1], grid.shape[1], grid.shape[2]},
                    {corner[2], ray[2], grid.shape[2], 1}};
    if (!axes[0].inside() || !axes[1].inside() || !axes[2].inside()) return 0;
    int64_t at = axes[0].voxel * axes[0].stride + axes[1].voxel * axes[1].stride + axes[2].voxel;
    double length = 0;
    while (grid.labels[at] == own) {
        // Ties go to the first axis.
        Axis& axis = axes[1].next < axes[0].next ? (axes[2].next < axes[1].next ? axes[2] : axes[1])
                                                 : (axes[2].next < axes[0].next ? axes[2] : axes[0]);
        length = axis.next;
        axis.voxel += axis.step;
        axis.next += axis.between;
        if (!axis.inside()) break;
        at += axis.step * axis.stride;
    }
    return length;
}

}  // namespace

bool ray_distances(const LabelGrid& grid, const int64_t* corners, const uint32_t* own, int64_t points, const double* rays,
                   int64_t ray_count, float* out, int threads, const Poll& poll) {
    return parallel_for((points + kPointsOfTask - 1) / kPointsOfTask, threads, [&](int64_t task, int, const StopFlag& stop) {
        const int64_t last = std::min(points, (task + 1) * kPointsOfTask);
        for (int64_t i = task * kPointsOfTask; i < last && !stop; ++i) {
            if (own[i] == 0) continue;
            for (int64_t r = 0; r < ray_count; ++r)
                out[i * ray_count + r] = static_cast<float>(reach(grid, corners + 3 * i, own[i], rays + 3 * r));
        }
    }, poll);
}

}  // namespace aprcnn
