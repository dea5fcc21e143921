// The local intensity scale, automatic thresholds and the level estimate, on the grid of 2x2x2 cells.
#include <cmath>
#include <cstring>
#include <limits>

#include "convert_samples.hpp"

namespace aprcnn {

namespace {

constexpr int64_t chunk = 4096;   // cells of a task where order does not matter
constexpr int64_t block = 65536;  // cells of a partial sum

int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Position on an axis of n cells that is mirrored at both ends, the end not repeated.
int64_t mirror(int64_t i, int64_t n) { return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i; }

// Samples within r of i on a padded axis of n.
float window(int64_t i, int64_t r, int64_t n) {
    return static_cast<float>(std::min(i + r, n - 1) - std::max<int64_t>(i - r, 0) + 1);
}

// Mean over windows of 2r+1 along x, cut at the ends. `padded` has room for r zeros on each side of a row.
void box_row(const float* row, int64_t n, int64_t r, float* padded, float* APRCNN_NOALIAS out) {
    std::memset(padded, 0, static_cast<size_t>(r) * sizeof(float));
    std::memcpy(padded + r, row, static_cast<size_t>(n) * sizeof(float));
    std::memset(padded + r + n, 0, static_cast<size_t>(r) * sizeof(float));
    std::memcpy(out, padded, static_cast<size_t>(n) * sizeof(float));
    for (int64_t k = 1; k <= 2 * r; ++k) {
        const float* from = padded + k;
        for (int64_t x = 0; x < n; ++x) out[x] += from[x];
    }
    const float full = static_cast<float>(2 * r + 1);
    const int64_t inner = std::max<int64_t>(r, n - r);
    for (int64_t x = 0; x < std::min(r, n); ++x) out[x] /= window(x, r, n);
    for (int64_t x = r; x < n - r; ++x) out[x] /= full;
    for (int64_t x = inner; x < n; ++x) out[x] /= window(x, r, n);
}

// Mean of rows[0..count-1] of n values each.
void mean_of(const std::vector<const float*>& rows, int64_t n, float* APRCNN_NOALIAS out) {
    std::memcpy(out, rows[0], static_cast<size_t>(n) * sizeof(float));
    for (size_t k = 1; k < rows.size(); ++k) {
        const float* from = rows[k];
        for (int64_t x = 0; x < n; ++x) out[x] += from[x];
    }
    const float count = static_cast<float>(rows.size());
    for (int64_t x = 0; x < n; ++x) out[x] /= count;
}

// The two box filters of the scale, block by block along z; planes are padded by `outer` along active axes.
class Scale {
  public:
    Scale(float* intensity, const Shape& grid, const ScaleRule& rule) : data_(intensity), grid_(grid), rule_(rule) {
        pad_y_ = rule.active[1] ? rule.outer : 0;
        pad_x_ = rule.active[2] ? rule.outer : 0;
        pad_z_ = rule.active[0] ? rule.outer : 0;
        wide_ = {grid.z + 2 * pad_z_, grid.y + 2 * pad_y_, grid.x + 2 * pad_x_};
        reach_ = rule.active[0] ? rule.inner + rule.outer : 0;
        depth_ = std::max<int64_t>(8, std::min<int64_t>(64, (int64_t{1} << 20) / std::max<int64_t>(wide_.plane(), 1)));
    }

    bool run(Job& job) {
        std::vector<float> means, deviations;
        std::vector<float> next;
        const int64_t r1 = rule_.active[0] ? rule_.inner : 0, r2 = pad_z_;
        for (int64_t z0 = 0; z0 < grid_.z; z0 += depth_) {
            const int64_t z1 = std::min(grid_.z, z0 + depth_);
            first_ = z0;
            // Padded planes (0 is the lowest of the padding): z0 + pad is the plane z0.
            const int64_t m0 = std::max<int64_t>(0, z0 + pad_z_ - r1 - r2), m1 = std::min(wide_.z, z1 + pad_z_ + r1 + r2);
            const int64_t a0 = z0 + pad_z_ - r2, a1 = z1 + pad_z_ + r2;
            means.resize(static_cast<size_t>((m1 - m0) * wide_.plane()));
            deviations.resize(static_cast<size_t>((a1 - a0) * grid_.plane()));
            if (!job.run(m1 - m0, [&](int64_t i) { inner_plane(m0 + i, means.data() + i * wide_.plane()); })) return false;
            const bool going = job.run(a1 - a0, [&](int64_t i) {
                const int64_t p = a0 + i, low = std::max<int64_t>(0, p - r1), high = std::min(wide_.z - 1, p + r1);
                outer_plane(p, means.data() + (low - m0) * wide_.plane(), high - low + 1,
                            deviations.data() + i * grid_.plane());
            });
            if (!going) return false;
            // What the next block still reads of this one.
            const int64_t keep = std::min(reach_, z1);
            next.resize(static_cast<size_t>(keep * grid_.plane()));
            for (int64_t k = 0; k < keep; ++k)
                std::memcpy(next.data() + k * grid_.plane(), source(z1 - keep + k),
                            static_cast<size_t>(grid_.plane()) * sizeof(float));
            if (!job.run((z1 - z0) * grid_.y, [&](int64_t i) {
                    const int64_t z = z0 + i / grid_.y, y = i % grid_.y;
                    std::vector<const float*> rows;
                    for (int64_t k = z + pad_z_ - r2; k <= z + pad_z_ + r2; ++k)
                        rows.push_back(deviations.data() + (k - a0) * grid_.plane() + y * grid_.x);
                    float* out = data_ + z * grid_.plane() + y * grid_.x;
                    if (rule_.active[0]) {
                        mean_of(rows, grid_.x, out);
                    } else {
                        std::memcpy(out, rows[0], static_cast<size_t>(grid_.x) * sizeof(float));
                    }
                    for (int64_t x = 0; x < grid_.x; ++x) out[x] *= rule_.rescale;
                })) return false;
            kept_.swap(next);
            kept_first_ = z1 - keep;
        }
        return true;
    }

  private:
    // A plane of intensities; those of earlier blocks are overwritten, but the last few are kept.
    const float* source(int64_t z) const {
        return z < first_ ? kept_.data() + (z - kept_first_) * grid_.plane() : data_ + z * grid_.plane();
    }

    // Row y of the padded plane p.
    void padded_row(int64_t p, int64_t y, float* APRCNN_NOALIAS out) const {
        const float* from = source(mirror(p - pad_z_, grid_.z)) + mirror(y - pad_y_, grid_.y) * grid_.x;
        for (int64_t x = 0; x < pad_x_; ++x) out[x] = from[mirror(x - pad_x_, grid_.x)];
        std::memcpy(out + pad_x_, from, static_cast<size_t>(grid_.x) * sizeof(float));
        for (int64_t x = grid_.x; x < grid_.x + pad_x_; ++x) out[x + pad_x_] = from[mirror(x, grid_.x)];
    }

    // Inner mean along x and y.
    void inner_plane(int64_t p, float* out) const {
        const int64_t r = rule_.inner;
        std::vector<float> row(static_cast<size_t>(wide_.x)), room(static_cast<size_t>(wide_.x + 2 * r));
        std::vector<float> plane;
        float* along_x = out;
        if (rule_.active[1]) {
            plane.resize(static_cast<size_t>(wide_.plane()));
            along_x = plane.data();
        }
        for (int64_t y = 0; y < wide_.y; ++y) {
            padded_row(p, y, row.data());
            if (rule_.active[2]) {
                box_row(row.data(), wide_.x, r, room.data(), along_x + y * wide_.x);
            } else {
                std::memcpy(along_x + y * wide_.x, row.data(), row.size() * sizeof(float));
            }
        }
        if (!rule_.active[1]) return;
        std::vector<const float*> rows;
        for (int64_t y = 0; y < wide_.y; ++y) {
            rows.clear();
            for (int64_t k = std::max<int64_t>(0, y - r); k <= std::min(wide_.y - 1, y + r); ++k)
                rows.push_back(along_x + k * wide_.x);
            mean_of(rows, wide_.x, out + y * wide_.x);
        }
    }

    // |mean - value|, and its outer mean along x and y, of the cells inside the grid.
    void outer_plane(int64_t p, const float* means, int64_t planes, float* out) const {
        const int64_t r = rule_.outer;
        std::vector<float> value(static_cast<size_t>(wide_.x)), mean(static_cast<size_t>(wide_.x));
        std::vector<float> room(static_cast<size_t>(wide_.x + 2 * r)), box(static_cast<size_t>(wide_.x));
        std::vector<float> along_x(static_cast<size_t>(wide_.y * grid_.x));
        std::vector<const float*> rows;
        for (int64_t y = 0; y < wide_.y; ++y) {
            padded_row(p, y, value.data());
            const float* middle = means + y * wide_.x;
            if (rule_.active[0]) {
                rows.clear();
                for (int64_t k = 0; k < planes; ++k) rows.push_back(means + k * wide_.plane() + y * wide_.x);
                mean_of(rows, wide_.x, mean.data());
                middle = mean.data();
            }
            for (size_t x = 0; x < value.size(); ++x) value[x] = std::fabs(middle[x] - value[x]);
            float* to = along_x.data() + y * grid_.x;
            if (rule_.active[2]) box_row(value.data(), wide_.x, r, room.data(), box.data());
            std::memcpy(to, (rule_.active[2] ? box.data() : value.data()) + pad_x_,
                        static_cast<size_t>(grid_.x) * sizeof(float));
        }
        if (!rule_.active[1]) {
            std::memcpy(out, along_x.data(), along_x.size() * sizeof(float));
            return;
        }
        for (int64_t y = 0; y < grid_.y; ++y) {
            rows.clear();
            for (int64_t k = y; k <= y + 2 * r; ++k) rows.push_back(along_x.data() + k * grid_.x);
            mean_of(rows, grid_.x, out + y * grid_.x);
        }
    }

    float* data_;
    Shape grid_, wide_;
    ScaleRule rule_;
    int64_t pad_z_ = 0, pad_y_ = 0, pad_x_ = 0, reach_ = 0, depth_ = 8;
    int64_t first_ = 0, kept_first_ = 0;
    std::vector<float> kept_;
};

bool constant_scale(float* intensity, const Shape& grid) {
    double sum = 0.0;
    float smallest = intensity[0];
    for (int64_t i = 0; i < grid.size(); ++i) {
        sum += static_cast<double>(intensity[i]);
        smallest = std::min(smallest, intensity[i]);
    }
    const float scale = static_cast<float>(sum / static_cast<double>(grid.size())) - smallest;
    std::fill(intensity, intensity + grid.size(), scale);
    return true;
}

}  // namespace

bool local_scale(float* intensity, float* gradient, const Shape& grid, bool filter_z, float threshold,
                 const ScaleRule& rule, Job& job) {
    const int64_t plane = grid.plane();
    const bool going = job.run(pieces(plane, chunk), [&](int64_t task) {
        const int64_t p0 = task * chunk, count = std::min(plane, p0 + chunk) - p0;
        std::vector<float> kept;
        if (filter_z) kept.assign(intensity + plane + p0, intensity + plane + p0 + count);
        for (int64_t z = 0; z < grid.z; ++z) {
            float* APRCNN_NOALIAS here = intensity + z * plane + p0;
            float* APRCNN_NOALIAS mark = gradient + z * plane + p0;
            if (filter_z) {
                float* APRCNN_NOALIAS before = kept.data();
                const float* after = here + plane;
                const bool last = z + 1 == grid.z;
                for (int64_t p = 0; p < count; ++p) {
                    const float old = here[p];
                    here[p] = sample(before[p], old, last ? before[p] : after[p]);
                    before[p] = old;
                }
            }
            for (int64_t p = 0; p < count; ++p) mark[p] = here[p] <= threshold ? -1.0f : mark[p];
        }
    });
    if (!going) return false;
    if (!rule.active[0] && !rule.active[1] && !rule.active[2]) return constant_scale(intensity, grid);
    return Scale(intensity, grid, rule).run(job);
}

namespace {

// The values of the cells that count: those not marked, at most `most` of them, evenly spaced in memory order.
class Selected {
  public:
    static constexpr int64_t most = int64_t{1} << 23;

    Selected(const float* gradient, int64_t count) : marks_(gradient), count_(count) {}

    bool prepare(Job& job) {
        starts_.assign(static_cast<size_t>(pieces(count_, block) + 1), 0);
        if (!job.run(pieces(count_, block), [&](int64_t b) {
                int64_t n = 0;
                for (int64_t i = b * block; i < std::min(count_, (b + 1) * block); ++i) n += marks_[i] >= 0.0f;
                starts_[static_cast<size_t>(b + 1)] = n;
            })) return false;
        for (size_t b = 1; b < starts_.size(); ++b) starts_[b] += starts_[b - 1];
        const int64_t n = starts_.back();
        used_ = std::min(n, most);
        stride_ = used_ > 0 ? n / used_ : 1;
        return true;
    }
    int64_t used() const { return used_; }
    int64_t blocks() const { return static_cast<int64_t>(starts_.size()) - 1; }

    template <class F>
    void each(int64_t b, const float* values, F&& use) const {
        int64_t rank = starts_[static_cast<size_t>(b)];
        const int64_t end = used_ * stride_;
        for (int64_t i = b * block; i < std::min(count_, (b + 1) * block); ++i) {
            if (!(marks_[i] >= 0.0f)) continue;
            if (rank < end && (stride_ == 1 || rank % stride_ == 0)) use(values[i]);
            ++rank;
        }
    }

  private:
    const float* marks_;
    int64_t count_, used_ = 0, stride_ = 1;
    std::vector<int64_t> starts_;
};

// Values grouped by the upper half of their bits, each group in memory order: the sum of all values above a threshold
// needs one look at the sums of groups and one at a single group. Values are not negative.
class Grouped {
  public:
    Grouped(const Selected& cells, const float* values) : starts_(groups + 1, 0), sums_(groups, 0.0) {
        sorted_.resize(static_cast<size_t>(cells.used()));
        const auto all = [&](auto&& use) {
            for (int64_t b = 0; b < cells.blocks(); ++b) cells.each(b, values, use);
        };
        all([&](float v) {
            ++starts_[group_of(v) + 1];
            sums_[group_of(v)] += static_cast<double>(v);
            smallest = std::min(smallest, v);
            largest = std::max(largest, v);
        });
        for (size_t g = 0; g < groups; ++g) starts_[g + 1] += starts_[g];
        std::vector<int64_t> next(starts_.begin(), starts_.end() - 1);
        all([&](float v) { sorted_[static_cast<size_t>(next[group_of(v)]++)] = v; });
    }
    // Means of the values up to t and above it; false if there are none above.
    bool means(double t, double& low, double& high) const {
        const size_t border = group_of(static_cast<float>(std::min(std::max(t, 0.0), 3e38)));
        double rest = 0.0, above = 0.0;
        int64_t n_rest = starts_[border];
        for (size_t g = 0; g < border; ++g) rest += sums_[g];
        for (size_t g = border + 1; g < groups; ++g) above += sums_[g];
        for (int64_t i = starts_[border]; i < starts_[border + 1]; ++i) {
            const double v = static_cast<double>(sorted_[static_cast<size_t>(i)]);
            const bool up = v > t;
            rest += up ? 0.0 : v;
            above += up ? v : 0.0;
            n_rest += !up;
        }
        const int64_t n_above = starts_[groups] - n_rest;
        low = n_rest > 0 ? rest / static_cast<double>(n_rest) : 0.0;
        high = n_above > 0 ? above / static_cast<double>(n_above) : 0.0;
        return n_above > 0;
    }
    float smallest = std::numeric_limits<float>::infinity(), largest = -std::numeric_limits<float>::infinity();

  private:
    static constexpr size_t groups = size_t{1} << 16;
    static size_t group_of(float value) {
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return (bits >> 15) & (groups - 1);
    }
    std::vector<int64_t> starts_;
    std::vector<double> sums_;
    std::vector<float> sorted_;
};

double li(const Selected& cells, const float* values) {
    if (cells.used() == 0) return 0.0;
    const Grouped groups(cells, values);
    if (groups.smallest == groups.largest) return static_cast<double>(groups.smallest);
    const double range = static_cast<double>(groups.largest) - static_cast<double>(groups.smallest);
    const double tolerance = std::min(0.01, 1e-4 * range);
    double t = 0.0, high = 0.0;
    groups.means(static_cast<double>(groups.largest), t, high);  // the mean of all
    double previous = -2.0 * tolerance;
    constexpr int most_rounds = 1000;  // it converges within tens
    for (int round = 0; round < most_rounds && std::fabs(t - previous) > tolerance; ++round) {
        previous = t;
        double low = 0.0;
        if (!groups.means(t, low, high) || low == 0.0) break;
        t = (high - low) / (std::log(high) - std::log(low));
    }
    return t;
}

}  // namespace

bool li_thresholds(const float* gradient, const float* scale, int64_t count, double out[2], Job& job) {
    Selected cells(gradient, count);
    if (!cells.prepare(job)) return false;
    return job.run(2, [&](int64_t i) { out[i] = li(cells, i == 0 ? gradient : scale); });
}

bool estimate_levels(const float* gradient, float* scale, int64_t count, const LevelRule& rule, uint8_t* levels,
                     Job& job) {
    constexpr float beyond = 60000.0f;  // the reference's scale of what is too faint to matter
    return job.run(pieces(count, block), [&](int64_t task) {
        for (int64_t i = task * block; i < std::min(count, (task + 1) * block); ++i) {
            float sigma = scale[i];
            if (sigma < rule.scale_threshold) sigma = sigma < rule.scale_threshold_max ? beyond : rule.scale_threshold;
            scale[i] = sigma;
            float g = gradient[i];
            if (g < rule.gradient_threshold || g < 0.0f) g = 0.0f;
            const float t = g > 0.0f ? (g / sigma) * rule.factor : 0.0f;  // infinite where the scale is 0
            uint32_t bits;
            std::memcpy(&bits, &t, sizeof bits);
            const int level = static_cast<int>(bits >> 23) - 127;  // floor(log2 t)
            levels[i] = static_cast<uint8_t>(std::min(std::max(level, 1), rule.top));
        }
    });
}

}  // namespace aprcnn
