// Image -> level grid and particle values. Axes are z, y, x; x is the fastest in every array of ours.
//
// The behaviour is LibAPR's (Cheeseman et al., Nature Communications 9, 5160 (2018)); the arithmetic is float32 in a fixed
// order, so that the result has the same bits for any number of threads and any block size.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "parallel.hpp"

#if defined(_MSC_VER)
#define APRCNN_NOALIAS __restrict
#else
#define APRCNN_NOALIAS __restrict__
#endif

namespace aprcnn {

struct Shape {
    int64_t z = 1, y = 1, x = 1;
    int64_t plane() const { return y * x; }
    int64_t size() const { return z * y * x; }
};

// Cells of 2^shift voxels an edge that cover a grid.
inline Shape coarser(const Shape& s, int64_t shift) {
    const int64_t add = (int64_t{1} << shift) - 1;
    return {(s.z + add) >> shift, (s.y + add) >> shift, (s.x + add) >> shift};
}

// The parallel loops of one kernel call, and the share of it that is done, which never falls.
class Job {
  public:
    Job(int threads, Poll poll) : threads_(threads), poll_(std::move(poll)), last_(std::chrono::steady_clock::now()) {}
    // What follows takes the share from..to of the call; parts divide that further.
    void span(double from, double to) {
        from_ = from;
        to_ = to;
        part(0, 1);
    }
    void part(int64_t i, int64_t n) {
        part_from_ = static_cast<double>(i) / static_cast<double>(n);
        part_to_ = static_cast<double>(i + 1) / static_cast<double>(n);
    }
    // task(i) for i in 0..count-1; false if the caller wants to stop.
    bool run(int64_t count, const std::function<void(int64_t)>& task);
    int threads() const { return threads_; }

  private:
    int threads_;
    Poll poll_;
    double from_ = 0.0, to_ = 1.0, part_from_ = 0.0, part_to_ = 1.0, shown_ = 0.0;
    std::chrono::steady_clock::time_point last_;
};

// --- the image as it lies in memory: any real type, strides and byte order ---------------------------------------------

enum class Kind { u8, u16, u32, u64, i8, i16, i32, i64, f16, f32, f64 };

struct Source {
    const char* data = nullptr;
    Shape shape;
    int64_t stride[3] = {0, 0, 0};  // bytes along z, y, x
    Kind kind = Kind::u8;
    bool swapped = false;  // the other byte order

    const char* at(int64_t z, int64_t y, int64_t x) const {
        return data + z * stride[0] + y * stride[1] + x * stride[2];
    }
    // Voxels (z, y, x0..x0+count-1) as float32.
    void read(int64_t z, int64_t y, int64_t x0, int64_t count, float* out) const;
};

struct Statistics {
    int64_t bad = 0;         // voxels that are not finite as float32
    int64_t first_bad = -1;  // flat index of the first of them
    float smallest = 0.0f, largest = 0.0f;
};

// --- smoothing ----------------------------------------------------------------------------------------------------------

// Constants of the cubic smoothing spline, `taps` weights for each of the four boundary sums.
struct Spline {
    bool on = false;
    float b1 = 0, b2 = 0, gain = 1;
    std::vector<float> first, second, last, before_last;
};

// Spline coefficients of the image, made in slabs of planes; only two planes of state are kept for each slab.
class Coefficients {
  public:
    Coefficients(Source source, Spline spline, int64_t block_planes);

    const Source& source() const { return source_; }
    const Shape& shape() const { return source_.shape; }
    bool smoothed() const { return spline_.on; }

    // Boundary sums and checkpoints along z. False if stopped.
    bool prepare(Job& job);

    // Slabs from the last to the first; false if stopped. `use` may change the planes if `changes` is set.
    struct Slab {
        int64_t first = 0, end = 0;  // planes
        std::vector<float*> planes;  // of first-1..end; null outside the image
        float* plane(int64_t z) const { return planes[static_cast<size_t>(z - first + 1)]; }
    };
    bool for_each(Job& job, bool changes, const std::function<bool(const Slab&)>& use);

    Statistics statistics() const;

  private:
    bool load(Job& job, int64_t z0, int64_t z1, float* out);
    void read_rows(int64_t z, int64_t y0, int64_t y1, float* out, Statistics& seen) const;
    void filter_x(float* rows, int64_t count) const;
    void filter_y(float* plane, int64_t x0, int64_t x1) const;
    bool boundary(Job& job, bool low);
    bool forward(Job& job, int64_t slab, float* planes);
    bool backward(Job& job, int64_t slab, float* planes);
    int64_t first_of(int64_t slab) const { return slab * block_; }
    int64_t end_of(int64_t slab) const { return std::min(shape().z, (slab + 1) * block_); }

    Source source_;
    Spline spline_;
    int64_t block_ = 4, slabs_ = 1;
    bool along_z_ = false, resident_ = false;
    std::vector<float> buffer_, below_, above_, next_above_, state_;
    std::vector<float> low_[2], high_[2];  // u[0], u[1]; v[N-1], v[N-2]
    std::vector<float> checkpoints_;       // u[b-1], u[b-2] of each slab but the last
    std::vector<Statistics> seen_;         // one for each plane and group of rows
    int64_t groups_ = 1;
};

// --- on the grid of 2x2x2 cells -----------------------------------------------------------------------------------------

// Largest gradient magnitude and mean intensity of each cell (the latter filtered along y and x, not yet along z), and
// original - smoothed at the voxels 0, step, 2 step, ... (flat index).
bool estimate(Coefficients& coefficients, const float spacing[3], float* gradient, float* intensity, int64_t step,
              int64_t samples, float* residuals, Job& job);

struct ScaleRule {
    int64_t inner = 1, outer = 3;  // half-widths
    float rescale = 1.0f;
    bool active[3] = {true, true, true};
};

// Filters the intensity along z, marks cells with intensity <= threshold by gradient = -1, and replaces the intensity by
// the local scale. `mean_scale`: no axis is long enough; the scale is mean - minimum.
bool local_scale(float* intensity, float* gradient, const Shape& grid, bool filter_z, float threshold,
                 const ScaleRule& rule, Job& job);

// Li's minimum cross entropy thresholds of gradient and scale over the cells that are not marked.
bool li_thresholds(const float* gradient, const float* scale, int64_t count, double out[2], Job& job);

struct LevelRule {
    float scale_threshold = 0, scale_threshold_max = 0, gradient_threshold = 0;
    float factor = 1;  // 2^level_max * smallest spacing / relative error
    int top = 2;
};

// Level estimate (1..top) of each cell; the scale is clamped in place.
bool estimate_levels(const float* gradient, float* scale, int64_t count, const LevelRule& rule, uint8_t* levels, Job& job);

// Which level's particle covers each cell. `wanted` (1..top) and `out` (2..top+1): the 2x2x2 grid.
bool pull(const uint8_t* wanted, const Shape& grid, int top, bool optimise, uint8_t* out, Job& job);

// --- the strict bound ---------------------------------------------------------------------------------------------------

struct Bound {
    double relative = 0.1;  // tolerance = max(relative * scale - slack, least)
    double slack = 0, least = 0;
    bool original = false;  // original voxels instead of smoothed ones
};

// Number of cells of the levels top, top-1, ..., 1 (the order of `fails`).
int64_t pyramid_size(const Shape& grid, int top);

// fails: 1 where a cell must not be one particle.
bool check_cells(Coefficients& coefficients, const float* scale, int top, const Bound& bound, uint8_t* fails, Job& job);

// Splits particles of a level grid (changed in place) until none fails; neighbours stay within one level of each other.
// Returns the number of rounds that split something, -1 if stopped.
int refine(uint8_t* levels, const Shape& grid, int top, const uint8_t* fails, Job& job);

// Histograms over float bits (see error_bin) and maxima of |reconstruction - smoothed| / (relative * scale),
// |reconstruction - original| and the latter / scale.
constexpr int64_t error_bins = int64_t{1} << 18;
inline int64_t error_bin(uint32_t bits) { return bits >> 13; }
struct Errors {
    int64_t* counts = nullptr;  // [3][error_bins]
    float largest[3] = {0, 0, 0};
    int64_t over = 0;  // voxels over the bound
};
bool measure_errors(Coefficients& coefficients, const float* scale, const uint8_t* levels, int top, double relative,
                    bool rounded, Errors& errors, Job& job);

}  // namespace aprcnn
