// Normalisation of feature rows: statistics of every item of a batch, then one pass that applies them.
#pragma once

#include <cstdint>

#include "halves.hpp"

namespace aprcnn {

// Parameters of the columns: value -> (value - centre) * scale + shift. Centred first: with a mean far from zero, scale and
// shift in one would cancel.
struct Affine {
    const float* centre;
    const float* scale;
    const float* shift;
};

// How a gradient goes back: grad * factor + (value - centre) * slope + offset; slope and offset may both be null.
struct AffineBack {
    const float* factor;
    const float* slope;
    const float* offset;
};

// T is float, or uint16_t that holds bfloat16. Rows have `width` columns, a multiple of the lanes; `count` values may end in
// a part of a row. With relu, what the forward would not have above zero is zero, and so is its gradient.
template <class T>
struct NormLoops {
    // Mean of every column, and sum of its squared distances from it.
    void (*moments)(const T* x, int64_t rows, int64_t width, double* mean, double* squares);
    void (*apply)(const T* x, int64_t count, int64_t width, Affine affine, bool relu, T* out);
    // plain += grad, centred += grad * (x - centre).
    void (*back_sums)(const T* grad, const T* x, int64_t count, int64_t width, Affine affine, bool relu, double* plain,
                      double* centred);
    void (*back)(const T* grad, const T* x, int64_t count, int64_t width, Affine affine, bool relu, AffineBack back, T* out);
};

struct NormsTable {
    int64_t lanes;
    NormLoops<float> single;
    NormLoops<uint16_t> half;
};

extern const NormsTable norms_plain;
#if defined(APRCNN_X86_VARIANTS)
extern const NormsTable norms_avx2;
extern const NormsTable norms_avx512;
#endif

// The table that goes with the instruction set that was chosen.
const NormsTable& norms_table();

// --- whole tensors -----------------------------------------------------------------------------------------------------

// starts [items + 1]: first row of every item, and one more.
struct Items {
    const int64_t* starts;
    int64_t count;
    int64_t channels;
    int64_t groups;
};

// weight, bias [channels], or null; mean, rstd [items][groups]. An empty item has mean 0.
template <class T>
void group_norm(const T* x, Items items, const float* weight, const float* bias, double eps, bool relu, T* out, double* mean,
                double* rstd, int threads);
// grad_weight, grad_bias [channels] are written whether or not there is a weight or a bias.
template <class T>
void group_norm_back(const T* grad, const T* x, Items items, const double* mean, const double* rstd, const float* weight,
                     const float* bias, bool relu, T* grad_x, double* grad_weight, double* grad_bias, int threads);

// One affine map for all rows.
template <class T>
void scale_shift(const T* x, int64_t rows, int64_t channels, Affine affine, bool relu, T* out, int threads);
template <class T>
void scale_shift_back(const T* grad, const T* x, int64_t rows, int64_t channels, Affine affine, bool relu, T* grad_x,
                      double* grad_scale, double* grad_shift, int threads);

}  // namespace aprcnn
