// Smoothing spline coefficients in slabs of planes.
//
// Along x and y the recursions stay within a plane. Along z the forward recursion runs once over all slabs and leaves its
// two planes of state at each border; then slabs go from the last to the first: the forward part again from its
// checkpoint, which gives the same bits, and the backward recursion on from the slab above.
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "convert.hpp"

namespace aprcnn {

namespace {

constexpr int64_t lanes = 16;     // rows that are filtered side by side along x
constexpr int64_t strip = 64;     // columns that are filtered side by side along y
constexpr int64_t chunk = 1024;   // columns of a task along z
constexpr int64_t group = 64;     // rows of a task where there are few planes
constexpr int64_t few_planes = 4;

// w[0..m-1] of the K boundary weights; what lies beyond the line's end continues its last sample.
std::vector<float> folded(const std::vector<float>& weights, int64_t n) {
    const size_t used = std::min(weights.size(), static_cast<size_t>(n));
    std::vector<float> out(weights.begin(), weights.begin() + static_cast<int64_t>(used));
    for (size_t k = used; k < weights.size(); ++k) out[used - 1] += weights[k];
    return out;
}

struct LineWeights {
    std::vector<float> first, second, last, before_last;
    LineWeights(const Spline& s, int64_t n)
        : first(folded(s.first, n)), second(folded(s.second, n)), last(folded(s.last, n)),
          before_last(folded(s.before_last, n)) {}
    int64_t taps() const { return static_cast<int64_t>(first.size()); }
};

// n > 2 samples, each of `width` columns, `stride` floats apart. The order of operations along x is not that along y and z:
// it is the reference's.
template <bool along_x, int64_t fixed_width>
void filter_line(float* data, int64_t n, int64_t stride, int64_t some_width, const Spline& s, const LineWeights& w) {
    constexpr int64_t room = fixed_width > 0 ? fixed_width : strip;
    const int64_t width = fixed_width > 0 ? fixed_width : some_width;
    float first[room] = {}, second[room] = {}, last[room] = {}, before[room] = {};
    for (int64_t k = 0; k < w.taps(); ++k) {
        const float* low = data + k * stride;
        const float* high = data + (n - 1 - k) * stride;
        const float w0 = w.first[static_cast<size_t>(k)], w1 = w.second[static_cast<size_t>(k)];
        const float w2 = w.last[static_cast<size_t>(k)], w3 = w.before_last[static_cast<size_t>(k)];
        for (int64_t i = 0; i < width; ++i) {
            first[i] += w0 * low[i];
            second[i] += w1 * low[i];
            last[i] += w2 * high[i];
            before[i] += w3 * high[i];
        }
    }
    const float b1 = s.b1, b2 = s.b2, gain = s.gain;
    std::memcpy(data, first, static_cast<size_t>(width) * sizeof(float));
    std::memcpy(data + stride, second, static_cast<size_t>(width) * sizeof(float));
    float* near_ = second;  // u[i-1] and u[i-2], later v[i+1] and v[i+2]
    float* far_ = first;
    for (int64_t t = 2; t < n - 2; ++t) {
        float* APRCNN_NOALIAS now = data + t * stride;
        for (int64_t i = 0; i < width; ++i) {
            const float u = along_x ? (near_[i] * b1 + far_[i] * b2) + now[i] : (now[i] + b1 * near_[i]) + b2 * far_[i];
            far_[i] = u;
            now[i] = u;
        }
        std::swap(near_, far_);
    }
    float* end = data + (n - 1) * stride;
    for (int64_t i = 0; i < width; ++i) {
        end[i] = gain * last[i];
        end[i - stride] = gain * before[i];
        if (along_x) {  // restarts from what is stored
            last[i] = end[i] / gain;
            before[i] = end[i - stride] / gain;
        }
    }
    near_ = before;
    far_ = last;
    for (int64_t t = n - 3; t >= 0; --t) {
        float* APRCNN_NOALIAS now = data + t * stride;
        for (int64_t i = 0; i < width; ++i) {
            const float v = along_x ? (near_[i] * b1 + far_[i] * b2) + now[i] : (now[i] + b1 * near_[i]) + b2 * far_[i];
            far_[i] = v;
            now[i] = gain * v;
        }
        std::swap(near_, far_);
    }
}

void look(const float* row, int64_t count, int64_t flat, Statistics& seen) {
    float low[lanes], high[lanes];
    int32_t bad[lanes] = {};
    for (int64_t i = 0; i < lanes; ++i) low[i] = high[i] = row[0];
    int64_t x = 0;
    for (; x + lanes <= count; x += lanes) {
        for (int64_t i = 0; i < lanes; ++i) {
            const float v = row[x + i];
            low[i] = v < low[i] ? v : low[i];
            high[i] = v > high[i] ? v : high[i];
            bad[i] |= static_cast<int32_t>(!(v - v == 0.0f));
        }
    }
    for (; x < count; ++x) {
        low[0] = std::min(low[0], row[x]);
        high[0] = std::max(high[0], row[x]);
        bad[0] |= static_cast<int32_t>(!(row[x] - row[x] == 0.0f));
    }
    for (int64_t i = 0; i < lanes; ++i) {
        bad[0] |= bad[i];
        seen.smallest = std::min(seen.smallest, low[i]);
        seen.largest = std::max(seen.largest, high[i]);
    }
    if (bad[0] == 0) return;
    for (x = 0; x < count; ++x) {
        if (row[x] - row[x] == 0.0f) continue;
        if (seen.first_bad < 0) seen.first_bad = flat + x;
        ++seen.bad;
    }
}

int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

}  // namespace

Coefficients::Coefficients(Source source, Spline spline, int64_t block_planes)
    : source_(source), spline_(std::move(spline)) {
    const Shape& s = source_.shape;
    block_ = std::max<int64_t>(4, (block_planes + 3) / 4 * 4);  // a cell of two levels above the voxels stays in one slab
    slabs_ = pieces(s.z, block_);
    block_ = std::min(block_, (s.z + 3) / 4 * 4);
    along_z_ = spline_.on && s.z > 2;
    groups_ = pieces(s.y, group);
    const size_t plane = static_cast<size_t>(s.plane());
    buffer_.resize(static_cast<size_t>(std::min(block_, s.z)) * plane);
    seen_.resize(static_cast<size_t>(s.z * groups_));
    if (slabs_ > 1) {
        below_.resize(plane);
        above_.resize(plane);
        next_above_.resize(plane);
    }
    if (!along_z_) return;
    if (slabs_ > 1) state_.resize(2 * plane);
    for (int i = 0; i < 2; ++i) {
        low_[i].assign(plane, 0.0f);
        high_[i].assign(plane, 0.0f);
    }
    checkpoints_.resize(static_cast<size_t>(slabs_ - 1) * 2 * plane);
}

void Coefficients::read_rows(int64_t z, int64_t y0, int64_t y1, float* out, Statistics& seen) const {
    const Shape& s = shape();
    for (int64_t y = y0; y < y1; ++y) {
        float* row = out + (y - y0) * s.x;
        source_.read(z, y, 0, s.x, row);
        look(row, s.x, (z * s.y + y) * s.x, seen);
    }
}

void Coefficients::filter_x(float* rows, int64_t count) const {
    const int64_t n = shape().x;
    const LineWeights w(spline_, n);
    std::vector<float> tile(static_cast<size_t>(n * lanes));
    for (int64_t y = 0; y < count; y += lanes) {
        const int64_t here = std::min(lanes, count - y);
        float* top = rows + y * n;
        float* APRCNN_NOALIAS t = tile.data();
        if (here == lanes) {
            for (int64_t x = 0; x < n; ++x)
                for (int64_t r = 0; r < lanes; ++r) t[x * lanes + r] = top[r * n + x];
        } else {
            for (int64_t x = 0; x < n; ++x)
                for (int64_t r = 0; r < lanes; ++r) t[x * lanes + r] = r < here ? top[r * n + x] : 0.0f;
        }
        filter_line<true, lanes>(t, n, lanes, lanes, spline_, w);
        for (int64_t r = 0; r < here; ++r)
            for (int64_t x = 0; x < n; ++x) top[r * n + x] = t[x * lanes + r];
    }
}

void Coefficients::filter_y(float* plane, int64_t x0, int64_t x1) const {
    const Shape& s = shape();
    const LineWeights w(spline_, s.y);
    for (int64_t x = x0; x < x1; x += strip) {
        if (x + strip <= x1) {
            filter_line<false, strip>(plane + x, s.y, s.x, strip, spline_, w);
        } else {
            filter_line<false, 0>(plane + x, s.y, s.x, x1 - x, spline_, w);
        }
    }
}

// Planes z0..z1-1, filtered along x and y.
bool Coefficients::load(Job& job, int64_t z0, int64_t z1, float* out) {
    const Shape& s = shape();
    const bool x = spline_.on && s.x > 2, y = spline_.on && s.y > 2;
    const auto rows = [&](int64_t z, int64_t g) {
        const int64_t y0 = g * group, y1 = std::min(s.y, y0 + group);
        float* at = out + (z - z0) * s.plane() + y0 * s.x;
        Statistics seen;
        seen.smallest = std::numeric_limits<float>::infinity();
        seen.largest = -seen.smallest;
        read_rows(z, y0, y1, at, seen);
        seen_[static_cast<size_t>(z * groups_ + g)] = seen;
        if (x) filter_x(at, y1 - y0);
    };
    if (z1 - z0 >= few_planes) {
        return job.run(z1 - z0, [&](int64_t i) {
            for (int64_t g = 0; g < groups_; ++g) rows(z0 + i, g);
            if (y) filter_y(out + i * s.plane(), 0, s.x);
        });
    }
    if (!job.run((z1 - z0) * groups_, [&](int64_t i) { rows(z0 + i / groups_, i % groups_); })) return false;
    if (!y) return true;
    const int64_t strips = pieces(s.x, strip);
    return job.run((z1 - z0) * strips, [&](int64_t i) {
        const int64_t x0 = i % strips * strip;
        filter_y(out + i / strips * s.plane(), x0, std::min(s.x, x0 + strip));
    });
}

// The two boundary sums at one end of the z axis, over its planes from the end inwards.
bool Coefficients::boundary(Job& job, bool low) {
    const Shape& s = shape();
    const LineWeights w(spline_, s.z);
    const std::vector<float>& one = low ? w.first : w.last;
    const std::vector<float>& two = low ? w.second : w.before_last;
    float* a = low ? low_[0].data() : high_[0].data();
    float* b = low ? low_[1].data() : high_[1].data();
    for (int64_t k0 = 0; k0 < w.taps(); k0 += block_) {
        const int64_t k1 = std::min(w.taps(), k0 + block_);
        const int64_t z0 = slabs_ == 1 ? 0 : low ? k0 : s.z - k1;
        if (slabs_ > 1 && !load(job, z0, z0 + (k1 - k0), buffer_.data())) return false;
        const bool going = job.run(pieces(s.plane(), chunk), [&](int64_t i) {
            const int64_t p0 = i * chunk, p1 = std::min(s.plane(), p0 + chunk);
            for (int64_t k = k0; k < k1; ++k) {
                const float* x = buffer_.data() + ((low ? k : s.z - 1 - k) - z0) * s.plane();
                const float wa = one[static_cast<size_t>(k)], wb = two[static_cast<size_t>(k)];
                for (int64_t p = p0; p < p1; ++p) {
                    a[p] += wa * x[p];
                    b[p] += wb * x[p];
                }
            }
        });
        if (!going) return false;
    }
    return true;
}

// u of a slab, in place. The last two planes of the axis are not used later.
bool Coefficients::forward(Job& job, int64_t slab, float* planes) {
    const Shape& s = shape();
    const int64_t z0 = first_of(slab), z1 = end_of(slab), plane = s.plane();
    return job.run(pieces(plane, chunk), [&](int64_t task) {
        const int64_t p0 = task * chunk, count = std::min(plane, p0 + chunk) - p0;
        const float* before = slab == 0 ? nullptr : checkpoints_.data() + (slab - 1) * 2 * plane + p0;
        for (int64_t z = z0; z < z1; ++z) {
            float* APRCNN_NOALIAS now = planes + (z - z0) * plane + p0;
            if (z < 2) {
                std::memcpy(now, low_[z].data() + p0, static_cast<size_t>(count) * sizeof(float));
                continue;
            }
            const float* one = z - 1 >= z0 ? now - plane : before;
            const float* two = z - 2 >= z0 ? now - 2 * plane : z - 1 >= z0 ? before : before + plane;
            for (int64_t p = 0; p < count; ++p) now[p] = (now[p] + spline_.b1 * one[p]) + spline_.b2 * two[p];
        }
    });
}

// c of a slab from its u, in place; leaves v of its lowest planes for the slab below, and that slab's highest plane.
bool Coefficients::backward(Job& job, int64_t slab, float* planes) {
    const Shape& s = shape();
    const int64_t z0 = first_of(slab), z1 = end_of(slab), plane = s.plane();
    const float b1 = spline_.b1, b2 = spline_.b2, gain = spline_.gain;
    return job.run(pieces(plane, chunk), [&](int64_t task) {
        const int64_t p0 = task * chunk, count = std::min(plane, p0 + chunk) - p0;
        const size_t bytes = static_cast<size_t>(count) * sizeof(float);
        float one[chunk] = {}, two[chunk] = {};
        if (z1 < s.z) {
            std::memcpy(one, state_.data() + p0, bytes);
            std::memcpy(two, state_.data() + plane + p0, bytes);
        }
        float* near_ = one;
        float* far_ = two;
        const auto step = [&](int64_t z, float* APRCNN_NOALIAS now) {
            if (z >= s.z - 2) {
                std::memcpy(far_, high_[s.z - 1 - z].data() + p0, bytes);
                for (int64_t p = 0; p < count; ++p) now[p] = gain * far_[p];
            } else {
                for (int64_t p = 0; p < count; ++p) {
                    const float v = (now[p] + b1 * near_[p]) + b2 * far_[p];
                    far_[p] = v;
                    now[p] = gain * v;
                }
            }
            std::swap(near_, far_);
        };
        for (int64_t z = z1 - 1; z >= z0; --z) {
            step(z, planes + (z - z0) * plane + p0);
        }
        if (slab == 0) return;
        std::memcpy(state_.data() + p0, near_, bytes);
        std::memcpy(state_.data() + plane + p0, far_, bytes);
        std::memcpy(below_.data() + p0, checkpoints_.data() + (slab - 1) * 2 * plane + p0, bytes);
        step(z0 - 1, below_.data() + p0);
    });
}

bool Coefficients::prepare(Job& job) {
    if (slabs_ == 1 && !load(job, 0, shape().z, buffer_.data())) return false;
    resident_ = slabs_ == 1;
    if (!along_z_) return true;
    if (slabs_ > 1) job.part(0, 4 * slabs_);  // a few planes only
    if (!boundary(job, true) || !boundary(job, false)) return false;
    if (resident_) return forward(job, 0, buffer_.data()) && backward(job, 0, buffer_.data());
    const int64_t plane = shape().plane();
    for (int64_t slab = 0; slab + 1 < slabs_; ++slab) {
        job.part(slab, slabs_ - 1);
        if (!load(job, first_of(slab), end_of(slab), buffer_.data()) || !forward(job, slab, buffer_.data())) return false;
        float* keep = checkpoints_.data() + slab * 2 * plane;
        const float* last = buffer_.data() + (end_of(slab) - first_of(slab) - 1) * plane;
        std::memcpy(keep, last, static_cast<size_t>(plane) * sizeof(float));
        std::memcpy(keep + plane, last - plane, static_cast<size_t>(plane) * sizeof(float));
    }
    return true;
}

bool Coefficients::for_each(Job& job, bool changes, const std::function<bool(const Slab&)>& use) {
    const int64_t plane = shape().plane();
    const auto make = [&](int64_t index) {
        float* planes = buffer_.data();
        if (slabs_ == 1) {
            if (resident_) return true;
            if (!load(job, 0, shape().z, planes)) return false;
            return !along_z_ || (forward(job, 0, planes) && backward(job, 0, planes));
        }
        if (!load(job, first_of(index), end_of(index), planes)) return false;
        if (along_z_) return forward(job, index, planes) && backward(job, index, planes);
        return index == 0 || load(job, first_of(index) - 1, first_of(index), below_.data());
    };
    for (int64_t index = slabs_ - 1; index >= 0; --index) {
        job.part(slabs_ - 1 - index, slabs_);
        if (!make(index)) return false;
        Slab slab;
        slab.first = first_of(index);
        slab.end = end_of(index);
        slab.planes.push_back(index > 0 ? below_.data() : nullptr);
        for (int64_t z = slab.first; z < slab.end; ++z) slab.planes.push_back(buffer_.data() + (z - slab.first) * plane);
        slab.planes.push_back(index + 1 < slabs_ ? above_.data() : nullptr);
        if (index > 0) std::memcpy(next_above_.data(), buffer_.data(), static_cast<size_t>(plane) * sizeof(float));
        resident_ = slabs_ == 1 && !changes;
        if (!use(slab)) return false;
        std::swap(above_, next_above_);
    }
    return true;
}

Statistics Coefficients::statistics() const {
    Statistics all;
    all.smallest = std::numeric_limits<float>::infinity();
    all.largest = -all.smallest;
    for (const Statistics& one : seen_) {
        all.bad += one.bad;
        if (all.first_bad < 0) all.first_bad = one.first_bad;
        all.smallest = std::min(all.smallest, one.smallest);
        all.largest = std::max(all.largest, one.largest);
    }
    return all;
}

}  // namespace aprcnn
