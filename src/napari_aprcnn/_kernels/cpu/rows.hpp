// Inner loops over whole feature rows, compiled for each instruction set.
#pragma once

#include <cstdint>

namespace aprcnn {

// Between features of one type: float, or bfloat16, whose sums are float.
template <class T>
struct RowsBetween {
    // tree[t] = mean over the children of rows first..last-1; index e < rows is features[e], else tree[e - rows].
    void (*fill)(const T* features, T* tree, const int32_t* children, int64_t rows, int64_t inside, int64_t channels,
                 int64_t first, int64_t last);
    // out[j], slot[j] of nodes first..last-1; children >= rows are missing.
    void (*pool)(const T* features, const int32_t* children, int64_t rows, int64_t channels, int64_t first, int64_t last, T* out,
                 uint8_t* slot);
};

struct RowsTable {
    RowsBetween<float> whole;
    RowsBetween<uint16_t> half;
    // The way back of `fill`: features are written (they have one parent) or, second, added to; tree rows are added to.
    void (*fill_back)(float* features, float* tree, const int32_t* children, int64_t rows, int64_t inside, int64_t channels,
                      int64_t first, int64_t last);
    void (*fill_back_add)(float* features, float* tree, const int32_t* children, int64_t rows, int64_t inside,
                          int64_t channels, int64_t first, int64_t last);
    void (*pool_back)(const float* grad, const uint8_t* slot, const int32_t* children, int64_t rows, int64_t channels,
                      int64_t first, int64_t last, float* features);
};

extern const RowsTable rows_plain;
#if defined(APRCNN_X86_VARIANTS)
extern const RowsTable rows_avx2;
extern const RowsTable rows_avx512;
#endif

// The table that goes with the instruction set that was chosen.
const RowsTable& rows_table();

}  // namespace aprcnn
