#include "cells.hpp"

#include <algorithm>
#include <cstring>

#include "parallel.hpp"

namespace aprcnn {

namespace {

struct Box {
    int64_t from[3], to[3];
    Box(const int32_t* cell, const int64_t* shape) {
        for (int axis = 0; axis < 3; ++axis) {
            from[axis] = static_cast<int64_t>(cell[axis]) << cell[3];
            to[axis] = std::min(shape[axis], static_cast<int64_t>(cell[axis] + 1) << cell[3]);
        }
    }
    int64_t voxels() const { return (to[0] - from[0]) * (to[1] - from[1]) * (to[2] - from[2]); }
};

template <class Work>
void over_cells(int64_t count, int threads, const Work& work) {
    const int64_t run = std::max<int64_t>(256, (count + 63) / 64);
    parallel_for((count + run - 1) / run, threads, [&](int64_t task, int, const StopFlag&) {
        const int64_t last = std::min(count, (task + 1) * run);
        for (int64_t i = task * run; i < last; ++i) work(i);
    });
}

template <class T>
void paint_as(const T* values, const int32_t* cells, int64_t count, const int64_t* shape, T* dense, int threads) {
    over_cells(count, threads, [&](int64_t i) {
        const Box box(cells + 4 * i, shape);
        for (int64_t z = box.from[0]; z < box.to[0]; ++z)
            for (int64_t y = box.from[1]; y < box.to[1]; ++y) {
                T* row = dense + (z * shape[1] + y) * shape[2];
                std::fill(row + box.from[2], row + box.to[2], values[i]);
            }
    });
}

// Larger values: the first voxel row is written value by value, the others are copies of it.
void paint_wide(const uint8_t* values, const int32_t* cells, int64_t count, int64_t bytes, const int64_t* shape,
                uint8_t* dense, int threads) {
    over_cells(count, threads, [&](int64_t i) {
        const Box box(cells + 4 * i, shape);
        for (int64_t z = box.from[0]; z < box.to[0]; ++z)
            for (int64_t y = box.from[1]; y < box.to[1]; ++y) {
                uint8_t* row = dense + ((z * shape[1] + y) * shape[2]) * bytes;
                for (int64_t x = box.from[2]; x < box.to[2]; ++x) std::memcpy(row + x * bytes, values + i * bytes, bytes);
            }
    });
}

}  // namespace

void paint_cells(const uint8_t* values, const int32_t* cells, int64_t count, int64_t bytes, const int64_t* shape,
                 uint8_t* dense, int threads) {
    const auto as = [&](auto kind) {
        using T = decltype(kind);
        paint_as(reinterpret_cast<const T*>(values), cells, count, shape, reinterpret_cast<T*>(dense), threads);
    };
    switch (bytes) {
        case 1: return as(uint8_t{});
        case 2: return as(uint16_t{});
        case 4: return as(uint32_t{});
        case 8: return as(uint64_t{});
        default: paint_wide(values, cells, count, bytes, shape, dense, threads);
    }
}

template <class T>
void average_cells(const T* image, const int32_t* cells, int64_t count, const int64_t* shape, double* out, int threads) {
    over_cells(count, threads, [&](int64_t i) {
        const Box box(cells + 4 * i, shape);
        double total = 0;
        for (int64_t z = box.from[0]; z < box.to[0]; ++z)
            for (int64_t y = box.from[1]; y < box.to[1]; ++y) {
                const T* row = image + (z * shape[1] + y) * shape[2];
                for (int64_t x = box.from[2]; x < box.to[2]; ++x) total += static_cast<double>(row[x]);
            }
        out[i] = total / static_cast<double>(box.voxels());
    });
}

template void average_cells(const uint8_t*, const int32_t*, int64_t, const int64_t*, double*, int);
template void average_cells(const uint16_t*, const int32_t*, int64_t, const int64_t*, double*, int);
template void average_cells(const float*, const int32_t*, int64_t, const int64_t*, double*, int);
template void average_cells(const double*, const int32_t*, int64_t, const int64_t*, double*, int);

void sum_cells(const float* dense, const int32_t* cells, int64_t count, int64_t channels, const int64_t* shape, bool mean,
               float* out, int threads) {
    over_cells(count, threads, [&](int64_t i) {
        const Box box(cells + 4 * i, shape);
        float* to = out + i * channels;
        if (box.voxels() == 1) {
            std::memcpy(to, dense + ((box.from[0] * shape[1] + box.from[1]) * shape[2] + box.from[2]) * channels,
                        channels * sizeof(float));
            return;
        }
        std::fill(to, to + channels, 0.0f);
        for (int64_t z = box.from[0]; z < box.to[0]; ++z)
            for (int64_t y = box.from[1]; y < box.to[1]; ++y) {
                const float* at = dense + ((z * shape[1] + y) * shape[2] + box.from[2]) * channels;
                for (int64_t x = box.from[2]; x < box.to[2]; ++x, at += channels)
                    for (int64_t c = 0; c < channels; ++c) to[c] += at[c];
            }
        if (!mean) return;
        const float share = 1.0f / static_cast<float>(box.voxels());
        for (int64_t c = 0; c < channels; ++c) to[c] *= share;
    });
}

}  // namespace aprcnn
