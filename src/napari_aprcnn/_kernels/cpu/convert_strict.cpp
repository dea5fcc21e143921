// The bound |smoothed - reconstruction| <= relative error * scale, checked for every cell, and measured.
#include <cmath>
#include <cstring>
#include <limits>

#include "convert_samples.hpp"

namespace aprcnn {

namespace {

// Number of voxels of an axis in the cell i of 2^shift voxels.
int64_t extent(int64_t n, int64_t i, int64_t shift) { return std::min(n, (i + 1) << shift) - (i << shift); }

int64_t voxels_of(const Shape& s, int64_t z, int64_t y, int64_t x, int64_t shift) {
    return extent(s.z, z, shift) * extent(s.y, y, shift) * extent(s.x, x, shift);
}

// Smoothed rows of a slab: samples along x and y in place, along z as they are asked for.
class Smoothed {
  public:
    Smoothed(const Coefficients::Slab& slab, const Shape& shape, bool on) : slab_(slab), shape_(shape), on_(on) {}

    bool prepare(Job& job) const {
        if (!on_) return true;
        const int64_t count = static_cast<int64_t>(slab_.planes.size());
        return job.run(count, [&](int64_t i) {
            float* plane = slab_.planes[static_cast<size_t>(i)];
            if (plane == nullptr) return;
            if (shape_.x > 2)
                for (int64_t y = 0; y < shape_.y; ++y) sample_row(plane + y * shape_.x, shape_.x);
            if (shape_.y > 2) sample_columns(plane, shape_.y, shape_.x);
        });
    }

    // `room` may be used for the row.
    const float* row(int64_t z, int64_t y, float* APRCNN_NOALIAS room) const {
        const float* here = slab_.plane(z) + y * shape_.x;
        if (!on_ || shape_.z <= 2) return here;
        const float* before = slab_.plane(z > 0 ? z - 1 : 1) + y * shape_.x;
        const float* after = slab_.plane(z + 1 < shape_.z ? z + 1 : z - 1) + y * shape_.x;
        for (int64_t x = 0; x < shape_.x; ++x) room[x] = sample(before[x], here[x], after[x]);
        return room;
    }

  private:
    const Coefficients::Slab& slab_;
    Shape shape_;
    bool on_;
};

// Sum, smallest and largest voxel of each cell of a row of the 2x2x2 grid.
struct CellRow {
    std::vector<double> sum;
    std::vector<float> low, high;
    explicit CellRow(int64_t n) : sum(static_cast<size_t>(n)), low(sum.size()), high(sum.size()) {}

    void clear() {
        std::fill(sum.begin(), sum.end(), 0.0);
        std::fill(low.begin(), low.end(), std::numeric_limits<float>::infinity());
        std::fill(high.begin(), high.end(), -std::numeric_limits<float>::infinity());
    }
    void add(const float* row, int64_t n) {
        const int64_t pairs = n / 2;
        double* APRCNN_NOALIAS s = sum.data();
        float* APRCNN_NOALIAS l = low.data();
        float* APRCNN_NOALIAS h = high.data();
        for (int64_t i = 0; i < pairs; ++i) {
            const float a = row[2 * i], b = row[2 * i + 1];
            s[i] = (s[i] + static_cast<double>(a)) + static_cast<double>(b);
            const float less = a < b ? a : b, more = a < b ? b : a;
            l[i] = less < l[i] ? less : l[i];
            h[i] = more > h[i] ? more : h[i];
        }
        if (n % 2 == 0) return;
        const float a = row[n - 1];
        s[pairs] += static_cast<double>(a);
        l[pairs] = a < l[pairs] ? a : l[pairs];
        h[pairs] = a > h[pairs] ? a : h[pairs];
    }
};

// For every row (k, j) of the 2x2x2 grid within the rows of four planes and four rows of voxels: use(k, j).
template <class F>
void rows_of_quarter(const Shape& grid, int64_t quarter, int64_t j4, F&& use) {
    for (int64_t k = 2 * quarter; k < std::min(grid.z, 2 * quarter + 2); ++k)
        for (int64_t j = 2 * j4; j < std::min(grid.y, 2 * j4 + 2); ++j) use(k, j);
}

// What a cell of a coarser level must be judged by: mean in [high, low], where high = max(voxel - tolerance), ...
struct Judged {
    double sum;
    float high, low;
};

}  // namespace

bool check_cells(Coefficients& coefficients, const float* scale, int top, const Bound& bound, uint8_t* fails, Job& job) {
    const Shape s = coefficients.shape(), grid = coarser(s, 1), quarters = coarser(s, 2);
    std::vector<Judged> fine(static_cast<size_t>(quarters.size()));
    const bool going = coefficients.for_each(job, true, [&](const Coefficients::Slab& slab) {
        const Smoothed smoothed(slab, s, coefficients.smoothed() && !bound.original);
        if (!smoothed.prepare(job)) return false;
        const int64_t first = slab.first / 4, planes = (slab.end + 3) / 4 - first;
        return job.run(planes * quarters.y, [&](int64_t task) {
            const int64_t quarter = first + task / quarters.y, j4 = task % quarters.y;
            Judged* APRCNN_NOALIAS judged = fine.data() + (quarter * quarters.y + j4) * quarters.x;
            const float infinite = std::numeric_limits<float>::infinity();
            std::fill(judged, judged + quarters.x, Judged{0.0, -infinite, infinite});
            CellRow cells(grid.x);
            std::vector<float> room(static_cast<size_t>(s.x));
            rows_of_quarter(grid, quarter, j4, [&](int64_t k, int64_t j) {
                cells.clear();
                for (int64_t z = 2 * k; z < std::min(s.z, 2 * k + 2); ++z) {
                    for (int64_t y = 2 * j; y < std::min(s.y, 2 * j + 2); ++y) {
                        if (bound.original) {
                            coefficients.source().read(z, y, 0, s.x, room.data());
                            cells.add(room.data(), s.x);
                        } else {
                            cells.add(smoothed.row(z, y, room.data()), s.x);
                        }
                    }
                }
                const int64_t at = (k * grid.y + j) * grid.x;
                const double rows = static_cast<double>(extent(s.z, k, 1) * extent(s.y, j, 1));
                for (int64_t i = 0; i < grid.x; ++i) {
                    const size_t n = static_cast<size_t>(i);
                    const double tolerance =
                        std::max(bound.relative * static_cast<double>(scale[at + i]) - bound.slack, bound.least);
                    const double high = static_cast<double>(cells.high[n]) - tolerance;
                    const double low = static_cast<double>(cells.low[n]) + tolerance;
                    const double mean = cells.sum[n] / (rows * (2 * i + 1 < s.x ? 2.0 : 1.0));
                    fails[at + i] = static_cast<uint8_t>(!(high <= mean && mean <= low));
                    Judged& up = judged[i / 2];
                    up.sum += cells.sum[n];
                    up.high = std::max(up.high, static_cast<float>(high));
                    up.low = std::min(up.low, static_cast<float>(low));
                }
            });
        });
    });
    if (!going) return false;
    // Coarser levels, each from the one below it.
    uint8_t* out = fails + grid.size();
    std::vector<Judged> up;
    for (int level = top - 1; level >= 1; --level) {
        const int64_t shift = top + 1 - level;
        const Shape g = coarser(s, shift);
        if (level < top - 1) {
            const Shape below = coarser(s, shift - 1);
            up.assign(static_cast<size_t>(g.size()), Judged{0.0, -std::numeric_limits<float>::infinity(),
                                                            std::numeric_limits<float>::infinity()});
            for (int64_t z = 0; z < below.z; ++z)
                for (int64_t y = 0; y < below.y; ++y)
                    for (int64_t x = 0; x < below.x; ++x) {
                        Judged& to = up[static_cast<size_t>((z / 2 * g.y + y / 2) * g.x + x / 2)];
                        const Judged& from = fine[static_cast<size_t>((z * below.y + y) * below.x + x)];
                        to.sum += from.sum;
                        to.high = std::max(to.high, from.high);
                        to.low = std::min(to.low, from.low);
                    }
            fine.swap(up);
        }
        for (int64_t z = 0; z < g.z; ++z)
            for (int64_t y = 0; y < g.y; ++y)
                for (int64_t x = 0; x < g.x; ++x) {
                    const Judged& cell = fine[static_cast<size_t>((z * g.y + y) * g.x + x)];
                    const double mean = cell.sum / static_cast<double>(voxels_of(s, z, y, x, shift));
                    *out++ = static_cast<uint8_t>(
                        !(static_cast<double>(cell.high) <= mean && mean <= static_cast<double>(cell.low)));
                }
    }
    return true;
}

namespace {

// Means of smoothed and original voxels over the cells of the levels below `top`.
class Means {
  public:
    Means(const Shape& shape, int top) : shape_(shape), top_(top), levels_(static_cast<size_t>(std::max(top, 1))) {
        for (int level = 1; level < top; ++level) levels_[static_cast<size_t>(level)].resize(cells(level));
    }
    std::vector<double>* finest() { return top_ > 1 ? &levels_[static_cast<size_t>(top_ - 1)] : nullptr; }

    void finish() {
        for (int level = top_ - 2; level >= 1; --level) {
            const Shape g = grid(level), below = grid(level + 1);
            std::vector<double>& to = levels_[static_cast<size_t>(level)];
            const std::vector<double>& from = levels_[static_cast<size_t>(level + 1)];
            for (int64_t z = 0; z < below.z; ++z)
                for (int64_t y = 0; y < below.y; ++y)
                    for (int64_t x = 0; x < below.x; ++x)
                        for (int64_t c = 0; c < 2; ++c)
                            to[static_cast<size_t>(((z / 2 * g.y + y / 2) * g.x + x / 2) * 2 + c)] +=
                                from[static_cast<size_t>(((z * below.y + y) * below.x + x) * 2 + c)];
        }
    }
    // channel 0: smoothed, 1: original. z, y, x: a cell of the 2x2x2 grid.
    double mean(int level, int64_t z, int64_t y, int64_t x, int64_t channel) const {
        const Shape g = grid(level);
        const int64_t up = top_ - level;
        z >>= up;
        y >>= up;
        x >>= up;
        const double sum = levels_[static_cast<size_t>(level)][static_cast<size_t>(((z * g.y + y) * g.x + x) * 2 + channel)];
        return sum / static_cast<double>(voxels_of(shape_, z, y, x, up + 1));
    }

  private:
    Shape grid(int level) const { return coarser(shape_, top_ + 1 - level); }
    size_t cells(int level) const { return static_cast<size_t>(grid(level).size() * 2); }
    Shape shape_;
    int top_;
    std::vector<std::vector<double>> levels_;
};

bool fill_means(Coefficients& coefficients, Means& means, Job& job) {
    const Shape s = coefficients.shape(), quarters = coarser(s, 2);
    std::vector<double>* finest = means.finest();
    if (finest == nullptr) return true;
    const bool going = coefficients.for_each(job, true, [&](const Coefficients::Slab& slab) {
        const Smoothed smoothed(slab, s, coefficients.smoothed());
        if (!smoothed.prepare(job)) return false;
        const int64_t first = slab.first / 4, planes = (slab.end + 3) / 4 - first;
        return job.run(planes * quarters.y, [&](int64_t task) {
            const int64_t k = first + task / quarters.y, j = task % quarters.y;
            std::vector<float> room(static_cast<size_t>(s.x)), original(room.size());
            double* to = finest->data() + (k * quarters.y + j) * quarters.x * 2;
            for (int64_t z = 4 * k; z < std::min(s.z, 4 * k + 4); ++z) {
                for (int64_t y = 4 * j; y < std::min(s.y, 4 * j + 4); ++y) {
                    const float* row = smoothed.row(z, y, room.data());
                    coefficients.source().read(z, y, 0, s.x, original.data());
                    for (int64_t x = 0; x < s.x; ++x) {
                        to[x / 4 * 2] += static_cast<double>(row[x]);
                        to[x / 4 * 2 + 1] += static_cast<double>(original[static_cast<size_t>(x)]);
                    }
                }
            }
        });
    });
    if (going) means.finish();
    return going;
}

struct Tally {
    std::vector<int64_t> counts;
    float largest[3] = {0, 0, 0};
    int64_t over = 0;
    Tally() : counts(static_cast<size_t>(3 * error_bins), 0) {}
    void put(int which, float error) {
        uint32_t bits;
        std::memcpy(&bits, &error, sizeof bits);
        ++counts[static_cast<size_t>(which * error_bins + error_bin(bits & 0x7fffffffu))];
        largest[which] = std::max(largest[which], error);
    }
};

float quotient(double error, double unit) {
    return error == 0.0 ? 0.0f : static_cast<float>(error / unit);  // infinite where the unit is 0
}

}  // namespace

bool measure_errors(Coefficients& coefficients, const float* scale, const uint8_t* levels, int top, double relative,
                    bool rounded, Errors& errors, Job& job) {
    const Shape s = coefficients.shape(), grid = coarser(s, 1);
    Means means(s, top);
    job.span(0.3, 0.65);
    if (!fill_means(coefficients, means, job)) return false;
    job.span(0.65, 1.0);
    const int64_t workers = std::max(1, job.threads());
    std::vector<Tally> tallies(static_cast<size_t>(workers));
    const bool going = coefficients.for_each(job, true, [&](const Coefficients::Slab& slab) {
        const Smoothed smoothed(slab, s, coefficients.smoothed());
        if (!smoothed.prepare(job)) return false;
        const int64_t first = slab.first / 2, count = (slab.end + 1) / 2 - first;
        // One task a thread: counts are integers, so that it does not matter which thread counts.
        return job.run(workers, [&](int64_t worker) {
            Tally& tally = tallies[static_cast<size_t>(worker)];
            std::vector<float> rooms[4], originals[4];
            for (int i = 0; i < 4; ++i) {
                rooms[i].resize(static_cast<size_t>(s.x));
                originals[i].resize(static_cast<size_t>(s.x));
            }
            for (int64_t r = worker; r < count * grid.y; r += workers) {
                const int64_t k = first + r / grid.y, j = r % grid.y;
                const float* rows[4];
                const float* voxels[4];
                int n = 0;
                for (int64_t z = 2 * k; z < std::min(s.z, 2 * k + 2); ++z) {
                    for (int64_t y = 2 * j; y < std::min(s.y, 2 * j + 2); ++y, ++n) {
                        rows[n] = smoothed.row(z, y, rooms[n].data());
                        coefficients.source().read(z, y, 0, s.x, originals[n].data());
                        voxels[n] = originals[n].data();
                    }
                }
                for (int64_t i = 0; i < grid.x; ++i) {
                    const int64_t at = (k * grid.y + j) * grid.x + i, x1 = std::min(s.x, 2 * i + 2);
                    const double sigma = static_cast<double>(scale[at]);
                    const int level = levels[at];
                    double mean[2] = {0.0, 0.0};
                    if (level < top) {
                        for (int64_t c = 0; c < 2; ++c) mean[c] = means.mean(level, k, j, i, c);
                    } else if (level == top) {
                        for (int q = 0; q < n; ++q) {
                            for (int64_t x = 2 * i; x < x1; ++x) {
                                mean[0] += static_cast<double>(rows[q][x]);
                                mean[1] += static_cast<double>(voxels[q][x]);
                            }
                        }
                        for (double& m : mean) m /= static_cast<double>(n * (x1 - 2 * i));
                    }
                    if (rounded) mean[1] = std::nearbyint(mean[1]);
                    for (int q = 0; q < n; ++q) {
                        for (int64_t x = 2 * i; x < x1; ++x) {
                            const bool exact = level > top;
                            const double smooth = exact ? 0.0 : std::fabs(mean[0] - static_cast<double>(rows[q][x]));
                            const double raw = exact ? 0.0 : std::fabs(mean[1] - static_cast<double>(voxels[q][x]));
                            tally.put(0, quotient(smooth, relative * sigma));
                            tally.put(1, static_cast<float>(raw));
                            tally.put(2, quotient(raw, sigma));
                            tally.over += smooth > relative * sigma;
                        }
                    }
                }
            }
        });
    });
    if (!going) return false;
    for (const Tally& tally : tallies) {
        for (int64_t i = 0; i < 3 * error_bins; ++i) errors.counts[i] += tally.counts[static_cast<size_t>(i)];
        for (int i = 0; i < 3; ++i) errors.largest[i] = std::max(errors.largest[i], tally.largest[i]);
        errors.over += tally.over;
    }
    return true;
}

}  // namespace aprcnn
