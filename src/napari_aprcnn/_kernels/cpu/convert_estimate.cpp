// Gradient and intensity on the grid of 2x2x2 cells, and the residuals of the smoothing.
#include <cmath>

#include "convert_samples.hpp"

namespace aprcnn {

namespace {

constexpr int64_t rows_of_a_task = 16;

struct Steps {
    float z, y, x;  // twice the spacing: the difference of two neighbours is divided by it, at the border too
};

// Squared gradient magnitudes of one row of voxels: squares[x] = max(squares[x], ...).
void squared_gradient(const float* row, const float* up, const float* down, const float* above, const float* below,
                      int64_t n, const Steps& h, double* APRCNN_NOALIAS squares) {
    const auto put = [&](int64_t x, float left, float right) {
        const double gx = static_cast<double>((right - left) / h.x);
        const double gy = static_cast<double>((down[x] - up[x]) / h.y);
        const double gz = static_cast<double>((below[x] - above[x]) / h.z);
        const double sum = (gy * gy + gz * gz) + gx * gx;
        squares[x] = sum > squares[x] ? sum : squares[x];
    };
    if (n == 1) return put(0, row[0], row[0]);
    put(0, row[0], row[1]);
    for (int64_t x = 1; x < n - 1; ++x) put(x, row[x - 1], row[x + 1]);
    put(n - 1, row[n - 2], row[n - 1]);
}

// One row of cells; of the four rows of voxels an odd end is counted twice.
void mean_row(const float* const rows[4], int64_t n, float* APRCNN_NOALIAS out) {
    const auto put = [&](int64_t i, int64_t a, int64_t b) {
        float sum = rows[0][a] + rows[0][b];
        for (int r = 1; r < 4; ++r) sum = (sum + rows[r][a]) + rows[r][b];
        out[i] = sum * 0.125f;
    };
    const int64_t pairs = n / 2;
    for (int64_t i = 0; i < pairs; ++i) put(i, 2 * i, 2 * i + 1);
    if (n % 2 != 0) put(pairs, n - 1, n - 1);
}

// Samples of the spline on the coarser grid: (1, 4, 1) / 6 along x, then y, mirrored.
void filter_plane(float* plane, int64_t ny, int64_t nx, bool along_x, bool along_y) {
    if (along_x) {
        for (int64_t y = 0; y < ny; ++y) sample_row(plane + y * nx, nx);
    }
    if (along_y) sample_columns(plane, ny, nx);
}

}  // namespace

bool estimate(Coefficients& coefficients, const float spacing[3], float* gradient, float* intensity, int64_t step,
              int64_t samples, float* residuals, Job& job) {
    const Shape s = coefficients.shape(), grid = coarser(s, 1);
    const Steps h = {2 * spacing[0], 2 * spacing[1], 2 * spacing[2]};
    const int64_t groups = (grid.y + rows_of_a_task - 1) / rows_of_a_task;
    const bool smoothed = coefficients.smoothed();
    return coefficients.for_each(job, false, [&](const Coefficients::Slab& slab) {
        const int64_t first = slab.first / 2, planes = (slab.end + 1) / 2 - first;
        const bool going = job.run(planes * groups, [&](int64_t task) {
            const int64_t k = first + task / groups, j0 = task % groups * rows_of_a_task;
            std::vector<double> squares(static_cast<size_t>(s.x));
            for (int64_t j = j0; j < std::min(grid.y, j0 + rows_of_a_task); ++j) {
                std::fill(squares.begin(), squares.end(), 0.0);
                const float* rows[4];
                for (int i = 0; i < 4; ++i) {
                    const int64_t z = std::min(2 * k + i / 2, s.z - 1), y = std::min(2 * j + i % 2, s.y - 1);
                    const auto row = [&](int64_t zz, int64_t yy) { return slab.plane(zz) + yy * s.x; };
                    rows[i] = row(z, y);
                    if ((i / 2 == 1 && z == 2 * k) || (i % 2 == 1 && y == 2 * j)) continue;
                    squared_gradient(rows[i], row(z, std::max<int64_t>(y - 1, 0)), row(z, std::min(y + 1, s.y - 1)),
                                     row(std::max<int64_t>(z - 1, 0), y), row(std::min(z + 1, s.z - 1), y), s.x, h,
                                     squares.data());
                }
                float* out = gradient + (k * grid.y + j) * grid.x;
                for (int64_t i = 0; i < grid.x; ++i) {
                    const double a = squares[static_cast<size_t>(2 * i)];
                    const double b = squares[static_cast<size_t>(std::min(2 * i + 1, s.x - 1))];
                    out[i] = static_cast<float>(std::sqrt(a > b ? a : b));
                }
                mean_row(rows, s.x, intensity + (k * grid.y + j) * grid.x);
            }
        });
        if (!going) return false;
        if (smoothed && !job.run(planes, [&](int64_t i) {
                filter_plane(intensity + (first + i) * grid.plane(), grid.y, grid.x, s.x > 2, s.y > 2);
            })) return false;
        const int64_t i0 = (slab.first * s.plane() + step - 1) / step;
        const int64_t i1 = std::min(samples, (slab.end * s.plane() + step - 1) / step);
        constexpr int64_t some = 4096;
        return job.run((std::max<int64_t>(i1 - i0, 0) + some - 1) / some, [&](int64_t task) {
            for (int64_t i = i0 + task * some; i < std::min(i1, i0 + (task + 1) * some); ++i) {
                const int64_t flat = i * step, z = flat / s.plane(), y = flat / s.x % s.y, x = flat % s.x;
                float original;
                coefficients.source().read(z, y, x, 1, &original);
                residuals[i] = original - sample_at(slab, s, smoothed, z, y, x);
            }
        });
    });
}

}  // namespace aprcnn
