// Between cells and voxels: paint, sum, average. Cells are z, y, x, shift and tile the grid; features are channels last.
#pragma once

#include <cstdint>

namespace aprcnn {

// dense [z][y][x][bytes] <- values [cells][bytes]
void paint_cells(const uint8_t* values, const int32_t* cells, int64_t count, int64_t bytes, const int64_t* shape,
                 uint8_t* dense, int threads);

// out [cells] <- mean of image over the voxels of the cell that lie inside
template <class T>
void average_cells(const T* image, const int32_t* cells, int64_t count, const int64_t* shape, double* out, int threads);

// out [cells][channels] <- sum, or mean, of dense [z][y][x][channels]
void sum_cells(const float* dense, const int32_t* cells, int64_t count, int64_t channels, const int64_t* shape, bool mean,
               float* out, int threads);

}  // namespace aprcnn
