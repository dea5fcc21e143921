// Layers that move features between stages: the tree of means, pooling, upsampling.
#include <algorithm>
#include <cstring>

#include "parallel.hpp"
#include "particles.hpp"
#include "rows.hpp"

namespace aprcnn {

namespace {

template <class Work>
void over(int64_t count, int64_t cost, int threads, const Work& work) {
    const int64_t run = std::max<int64_t>(64, 32768 / std::max<int64_t>(cost, 1));
    const int64_t tasks = (count + run - 1) / run;
    parallel_for(tasks, tasks > 1 ? threads : 1, [&](int64_t task, int, const StopFlag&) {
        work(task * run, std::min(count, (task + 1) * run));
    });
}

const RowsBetween<float>& between(const RowsTable& table, const float*) { return table.whole; }
const RowsBetween<uint16_t>& between(const RowsTable& table, const uint16_t*) { return table.half; }

template <class T>
void copy_rows(const T* from, T* to, int64_t rows, int64_t channels, int threads) {
    over(rows, channels, threads, [&](int64_t first, int64_t last) {
        std::memcpy(to + first * channels, from + first * channels, (last - first) * channels * sizeof(T));
    });
}

}  // namespace

template <class T>
void fill_tree(const T* features, StageSize size, int64_t channels, const int32_t* children, const int64_t* ranges,
               int64_t range_count, T* tree, int threads) {
    const RowsBetween<T>& table = between(rows_table(), features);
    std::fill(tree + size.tree_rows * channels, tree + (size.tree_rows + 1) * channels, T{0});
    for (int64_t r = 0; r < range_count; ++r) {
        const int64_t begin = ranges[2 * r];
        over(ranges[2 * r + 1] - begin, channels * 8, threads, [&](int64_t first, int64_t last) {
            table.fill(features, tree, children, size.rows, size.rows + size.tree_rows, channels, begin + first, begin + last);
        });
    }
}

void fill_tree_back(float* grad_tree, StageSize size, int64_t channels, const int32_t* children, const int64_t* ranges,
                    int64_t range_count, float* grad_features, bool add, int threads) {
    const auto back = add ? rows_table().fill_back_add : rows_table().fill_back;
    // Every feature row has a parent, which writes it; without tree rows there is nothing to give.
    if (size.tree_rows == 0 && !add) std::memset(grad_features, 0, size.rows * channels * sizeof(float));
    // What a node gets from its parent is added to what it got itself: the parents come first.
    for (int64_t r = range_count - 1; r >= 0; --r) {
        const int64_t begin = ranges[2 * r];
        over(ranges[2 * r + 1] - begin, channels * 8, threads, [&](int64_t first, int64_t last) {
            back(grad_features, grad_tree, children, size.rows, size.rows + size.tree_rows, channels, begin + first,
                 begin + last);
        });
    }
}

template <class T>
void pool(const T* features, int64_t channels, PoolTable table, T* out, uint8_t* slot, int threads) {
    for (int64_t r = 0; r < table.range_count; ++r) {
        const int64_t* range = table.ranges + 5 * r;
        copy_rows(features + range[0] * channels, out + range[1] * channels, range[2], channels, threads);
        over(range[4], channels * 8, threads, [&](int64_t first, int64_t last) {
            between(rows_table(), features).pool(features, table.children + 8 * range[3], table.rows, channels, first, last,
                              out + (range[1] + range[2]) * channels, slot + range[3] * channels);
        });
    }
}

template void fill_tree(const float*, StageSize, int64_t, const int32_t*, const int64_t*, int64_t, float*, int);
template void fill_tree(const uint16_t*, StageSize, int64_t, const int32_t*, const int64_t*, int64_t, uint16_t*, int);
template void pool(const float*, int64_t, PoolTable, float*, uint8_t*, int);
template void pool(const uint16_t*, int64_t, PoolTable, uint16_t*, uint8_t*, int);

void pool_back(const float* grad, const uint8_t* slot, int64_t channels, PoolTable table, float* grad_features, int threads) {
    for (int64_t r = 0; r < table.range_count; ++r) {
        const int64_t* range = table.ranges + 5 * r;
        copy_rows(grad + range[1] * channels, grad_features + range[0] * channels, range[2], channels, threads);
        over(range[4], channels * 8, threads, [&](int64_t first, int64_t last) {
            rows_table().pool_back(grad + (range[1] + range[2]) * channels, slot + range[3] * channels,
                                   table.children + 8 * range[3], table.rows, channels, first, last, grad_features);
        });
    }
}

void upsample(const float* features, int64_t channels, PoolTable table, float* out, int threads) {
    for (int64_t r = 0; r < table.range_count; ++r) {
        const int64_t* range = table.ranges + 5 * r;
        copy_rows(features + range[1] * channels, out + range[0] * channels, range[2], channels, threads);
        over(range[4], channels * 8, threads, [&](int64_t first, int64_t last) {
            for (int64_t j = first; j < last; ++j) {
                const int32_t* children = table.children + 8 * (range[3] + j);
                const float* from = features + (range[1] + range[2] + j) * channels;
                for (int s = 0; s < 8; ++s)
                    if (children[s] < table.rows) std::memcpy(out + children[s] * channels, from, channels * sizeof(float));
            }
        });
    }
}

void upsample_back(const float* grad, int64_t channels, PoolTable table, float* grad_features, int threads) {
    for (int64_t r = 0; r < table.range_count; ++r) {
        const int64_t* range = table.ranges + 5 * r;
        copy_rows(grad + range[0] * channels, grad_features + range[1] * channels, range[2], channels, threads);
        over(range[4], channels * 8, threads, [&](int64_t first, int64_t last) {
            for (int64_t j = first; j < last; ++j) {
                const int32_t* children = table.children + 8 * (range[3] + j);
                float* to = grad_features + (range[1] + range[2] + j) * channels;
                bool any = false;
                for (int s = 0; s < 8; ++s) {
                    if (children[s] >= table.rows) continue;
                    const float* from = grad + children[s] * channels;
                    if (!any) {
                        std::memcpy(to, from, channels * sizeof(float));
                        any = true;
                        continue;
                    }
                    for (int64_t c = 0; c < channels; ++c) to[c] += from[c];
                }
            }
        });
    }
}

}  // namespace aprcnn
