// The convolutions' outer loops: packing of weights, cutting into tasks, sums in a fixed order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <set>
#include <stdexcept>
#include <vector>

#include "conv.hpp"
#include "conv_packed.hpp"
#include "hot.hpp"
#include "norms.hpp"
#include "parallel.hpp"
#include "particles.hpp"
#include "rows.hpp"

namespace aprcnn {

const ConvTable& conv_table() {
#if defined(APRCNN_X86_VARIANTS)
    const char* name = hot().name;
#if defined(_MSC_VER)
    const bool fused = true;  // every processor with AVX2 that MSVC targets has FMA
#else
    const bool fused = __builtin_cpu_supports("fma") != 0;
#endif
    if (fused && std::strcmp(name, "avx512") == 0) return conv_avx512;
    if (fused && std::strcmp(name, "avx2") == 0) return conv_avx2;
#endif
    return conv_plain;
}

const RowsTable& rows_table() {
#if defined(APRCNN_X86_VARIANTS)
    const ConvTable* conv = &conv_table();
    if (conv == &conv_avx512) return rows_avx512;
    if (conv == &conv_avx2) return rows_avx2;
#endif
    return rows_plain;
}

const NormsTable& norms_table() {
#if defined(APRCNN_X86_VARIANTS)
    const ConvTable* conv = &conv_table();
    if (conv == &conv_avx512) return norms_avx512;
    if (conv == &conv_avx2) return norms_avx2;
#endif
    return norms_plain;
}

namespace {

struct Task {
    int64_t first, last, depth;
};

// Some rows and some columns of a gradient of weights; sums [taps][channels][width].
struct WeightTask {
    int64_t first, last, column, width;
    std::vector<float> sums;
    int64_t work() const { return (last - first) * width; }
};
constexpr int64_t most_sum_bytes = int64_t{64} << 20;  // of all tasks that are there at once

}  // namespace

void conv_forward(const float* features, const float* tree, StageSize size, const float* weight, KernelShape kernel,
                  const float* bias, const int32_t* table, Segments segments, float* out, int threads) {
    const ConvTable& conv = conv_table();
    Blocks blocks;
    cut_columns(conv, kernel.out, blocks);
    Packed packed(weight, kernel, blocks, false);
    std::vector<float> padded(blocks.padded(), 0.0f);
    if (bias != nullptr) std::copy(bias, bias + kernel.out, padded.begin());
    Rows2 from(features, tree, size.rows, kernel.in);
    std::vector<float> joined;
    if (kernel.in == 1) {
        joined = joined_rows(features, tree, size);
        from = Rows2(joined.data(), joined.data() + size.rows, size.rows, 1);
    }
    std::vector<Task> tasks;
    std::set<int64_t> depths;
    constexpr int64_t run = 14 * 12 * 12;
    for (int64_t s = 0; s < segments.count; ++s) {
        const int64_t first = segments.data[3 * s], last = segments.data[3 * s + 1], depth = segments.data[3 * s + 2];
        if (first < 0 || last > size.rows) throw std::invalid_argument("a segment reaches outside the rows");
        if (depth < 0 || depth >= kernel.depths) throw std::invalid_argument("a segment is deeper than the weights");
        if (first < last) depths.insert(depth);
        for (int64_t row = first; row < last; row += run) tasks.push_back({row, std::min(last, row + run), depth});
    }
    packed.prepare(depths, threads);
    const Taps taps{table, kernel.taps};
    parallel_for(static_cast<int64_t>(tasks.size()), threads, [&](int64_t t, int, const StopFlag&) {
        const Task& task = tasks[t];
        conv.forward(from, taps, blocks, packed.at(task.depth), padded.data(), kernel.out, task.first, task.last, out);
    });
}

void conv_input(const float* grad, StageSize size, const float* weight, KernelShape kernel, const int32_t* table,
                const int64_t* slabs, int64_t slab_count, float* grad_features, float* grad_tree, int threads) {
    const ConvTable& conv = conv_table();
    Blocks blocks;
    cut_columns(conv, kernel.in, blocks);
    Packed packed(weight, kernel, blocks, true);
    const int64_t most = 65536;
    const int64_t total = size.rows * kernel.in;
    parallel_for((total + most - 1) / most, threads, [&](int64_t i, int, const StopFlag&) {
        std::memset(grad_features + i * most, 0, std::min(most, total - i * most) * sizeof(float));
    });
    std::memset(grad_tree, 0, (size.tree_rows + 1) * kernel.in * sizeof(float));
    const Taps taps{table, kernel.taps};
    const bool few = kernel.in < 4;
    const int64_t columns = (kernel.taps * kernel.in + conv.few_pad - 1) / conv.few_pad * conv.few_pad;
    std::map<int64_t, std::vector<float>> few_weights;
    const auto prepare = [&](int64_t depth) {
        if (depth < 0 || depth >= kernel.depths) throw std::invalid_argument("a slab is deeper than the weights");
        if (few_weights.count(depth) != 0) return;
        std::vector<float>& to = few_weights[depth];
        to.assign(kernel.out * columns, 0.0f);
        for (int64_t o = 0; o < kernel.out; ++o)
            for (int64_t n = 0; n < kernel.in; ++n)
                for (int64_t k = 0; k < kernel.taps; ++k)
                    to[o * columns + k * kernel.in + n] =
                        weight[((depth * kernel.out + o) * kernel.in + n) * kernel.taps + k];
    };
    std::set<int64_t> depths;
    for (int64_t i = 0; i < slab_count; ++i) {
        if (slabs[5 * i + 2] < 0 || slabs[5 * i + 3] > size.rows) throw std::invalid_argument("a slab reaches outside the rows");
        depths.insert(slabs[5 * i + 4]);
    }
    if (few) {
        for (const int64_t depth : depths) prepare(depth);
    } else {
        packed.prepare(depths, threads);
    }
    for (int64_t begin = 0; begin < slab_count;) {
        // The slabs of one phase, and where each of its tasks begins.
        std::vector<int64_t> starts;
        int64_t end = begin;
        for (; end < slab_count && slabs[5 * end] == slabs[5 * begin]; ++end) {
            const int64_t* slab = slabs + 5 * end;
            if (end == begin || slab[1] != slab[1 - 5]) starts.push_back(end);
        }
        const int64_t tasks = static_cast<int64_t>(starts.size());
        starts.push_back(end);
        // Few slabs: each in pieces, some columns a thread.
        const int pieces = few || tasks >= 4 * threads ? 1 : blocks.count;
        parallel_for(tasks * pieces, threads, [&](int64_t both, int, const StopFlag&) {
            const int64_t task = both / pieces;
            const int piece = static_cast<int>(both % pieces);
            const ColumnBlocks which = pieces == 1 ? ColumnBlocks{0, blocks.count} : ColumnBlocks{piece, piece + 1};
            // Room for a row that falls outside, and behind it for one group of gradients, or of products.
            std::vector<float> sink(64 + (few ? 16 * columns : 64 * kernel.out), 0.0f);
            for (int64_t i = starts[task]; i < starts[task + 1]; ++i) {
                const int64_t* slab = slabs + 5 * i;
                if (few) {
                    conv.input_few(grad, kernel.out, taps, few_weights.at(slab[4]).data(), columns, size.rows, size.tree_rows,
                                   kernel.in, slab[2], slab[3], grad_features, grad_tree, sink.data());
                    continue;
                }
                conv.input(grad, kernel.out, taps, blocks, which, packed.at(slab[4]), size.rows, size.tree_rows, kernel.in,
                           slab[2], slab[3], grad_features, grad_tree, sink.data());
            }
        });
        begin = end;
    }
}

void conv_weight(const float* features, const float* tree, StageSize size, const float* grad, KernelShape kernel,
                 const int32_t* table, Segments segments, float* grad_weight, int threads) {
    const ConvTable& conv = conv_table();
    const int64_t columns = (kernel.out + conv.pad - 1) / conv.pad * conv.pad;
    const Rows2 from(features, tree, size.rows, kernel.in);
    const Taps taps{table, kernel.taps};
    std::fill(grad_weight, grad_weight + kernel.depths * kernel.out * kernel.in * kernel.taps, 0.0f);
    // Rows in parts and columns in pieces, both of the shapes alone, so that sums are the same for any number of threads.
    constexpr int64_t piece = 32;
    const bool whole = columns == kernel.out;
    const int64_t pieces = whole ? (columns + piece - 1) / piece : 1;
    const int64_t most = std::max<int64_t>(2, 16 / pieces);
    std::vector<WeightTask> tasks;
    std::map<int64_t, std::vector<size_t>> of_depth;
    const auto sum = [&](const WeightTask& task, float* sums) {
        if (whole) {
            conv.weight(from, taps, grad + task.column, kernel.out, task.width, task.first, task.last, sums);
            return;
        }
        constexpr int64_t block = 1024;
        std::vector<float> padded(block * columns, 0.0f);
        for (int64_t row = task.first; row < task.last; row += block) {
            const int64_t count = std::min(block, task.last - row);
            for (int64_t i = 0; i < count; ++i)
                std::copy(grad + (row + i) * kernel.out, grad + (row + i + 1) * kernel.out, padded.begin() + i * columns);
            const Taps here{table + row * kernel.taps, kernel.taps};
            conv.weight(from, here, padded.data(), columns, columns, 0, count, sums);
        }
    };
    // The largest first; then what belongs to a depth is added in its order.
    const auto finish = [&] {
        std::vector<size_t> order(tasks.size());
        std::iota(order.begin(), order.end(), size_t{0});
        std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return tasks[a].work() > tasks[b].work(); });
        parallel_for(static_cast<int64_t>(tasks.size()), threads, [&](int64_t t, int, const StopFlag&) {
            WeightTask& task = tasks[order[t]];
            task.sums.assign(kernel.taps * kernel.in * task.width, 0.0f);
            sum(task, task.sums.data());
        });
        for (const auto& one : of_depth) {
            const auto& own = one.second;  // lambdas of C++17 do not see structured bindings
            float* to = grad_weight + one.first * kernel.out * kernel.in * kernel.taps;
            const int64_t cells = kernel.taps * kernel.in * columns * static_cast<int64_t>(own.size());
            parallel_for(kernel.in, cells > 100000 ? threads : 1, [&](int64_t i, int, const StopFlag&) {
                for (const size_t t : own) {
                    const WeightTask& task = tasks[t];
                    const int64_t width = std::min(task.width, kernel.out - task.column);
                    for (int64_t k = 0; k < kernel.taps; ++k) {
                        const float* sums = task.sums.data() + (k * kernel.in + i) * task.width;
                        float* line = to + (task.column * kernel.in + i) * kernel.taps + k;
                        for (int64_t o = 0; o < width; ++o) line[o * kernel.in * kernel.taps] += sums[o];
                    }
                }
            });
        }
        tasks.clear();
        of_depth.clear();
    };
    int64_t held = 0;
    for (int64_t s = 0; s < segments.count; ++s) {
        const int64_t first = segments.data[3 * s], last = segments.data[3 * s + 1], depth = segments.data[3 * s + 2];
        if (first < 0 || last > size.rows) throw std::invalid_argument("a segment reaches outside the rows");
        if (depth < 0 || depth >= kernel.depths) throw std::invalid_argument("a segment is deeper than the weights");
        if (first >= last) continue;
        const int64_t parts = std::max<int64_t>(1, std::min(most, (last - first) / 2048));
        const int64_t run = (last - first + parts - 1) / parts, bytes = parts * kernel.taps * kernel.in * columns * 4;
        if (held > 0 && held + bytes > most_sum_bytes) {
            finish();
            held = 0;
        }
        held += bytes;
        for (int64_t row = first; row < last; row += run)
            for (int64_t p = 0; p < pieces; ++p) {
                of_depth[depth].push_back(tasks.size());
                const int64_t column = p * piece, end = whole ? std::min(columns, column + piece) : columns;
                tasks.push_back({row, std::min(last, row + run), column, end - column, {}});
            }
    }
    finish();
}

namespace {

// Eight kernels [taps][8], one axis: to = matrix times the lines of `length` taps, `stride` apart.
void restrict_axis(const double* from, double* to, int64_t taps, int64_t length, int64_t stride, const double* matrix) {
    constexpr int64_t lanes = 8;
    for (int64_t first = 0; first < taps; first += length * stride)
        for (int64_t o = 0; o < length; ++o)
            for (int64_t s = 0; s < stride; ++s) {
                double total[lanes] = {};
                for (int64_t i = 0; i < length; ++i)
                    for (int64_t l = 0; l < lanes; ++l)
                        total[l] += matrix[o * length + i] * from[(first + i * stride + s) * lanes + l];
                std::copy_n(total, lanes, to + (first + o * stride + s) * lanes);
            }
}

}  // namespace

void restrict_kernels(const float* kernels, int64_t count, const int64_t* size, int64_t steps, bool transposed, float* out,
                      int threads) {
    const int64_t taps = size[0] * size[1] * size[2];
    // w'[o] = sum_i w[i] max(0, 1 - |(i - h) / 2^steps - (o - h)|) along one axis after the other.
    std::vector<double> matrix[3];
    for (int axis = 0; axis < 3; ++axis) {
        const int64_t n = size[axis];
        const double h = static_cast<double>(n / 2), scale = 1.0 / static_cast<double>(int64_t{1} << std::min<int64_t>(steps, 62));
        matrix[axis].resize(n * n);
        for (int64_t o = 0; o < n; ++o)
            for (int64_t i = 0; i < n; ++i) {
                const double at = (static_cast<double>(i) - h) * scale - (static_cast<double>(o) - h);
                matrix[axis][transposed ? i * n + o : o * n + i] = std::max(0.0, 1.0 - std::fabs(at));
            }
    }
    const int64_t strides[3] = {size[1] * size[2], size[2], 1};
    constexpr int64_t lanes = 8, run = 8 * lanes;  // some kernels at a time, tap by tap
    parallel_for((count + run - 1) / run, count * taps > 4096 ? threads : 1, [&](int64_t task, int, const StopFlag&) {
        std::vector<double> from(taps * lanes), to(taps * lanes);
        for (int64_t n = task * run; n < std::min(count, (task + 1) * run); n += lanes) {
            const int64_t some = std::min(lanes, count - n);
            for (int64_t l = 0; l < some; ++l)
                for (int64_t t = 0; t < taps; ++t) from[t * lanes + l] = kernels[(n + l) * taps + t];
            for (int axis = 2; axis >= 0; --axis) {
                if (size[axis] == 1) continue;
                restrict_axis(from.data(), to.data(), taps, size[axis], strides[axis], matrix[axis].data());
                from.swap(to);
            }
            for (int64_t l = 0; l < some; ++l)
                for (int64_t t = 0; t < taps; ++t) {
                    float& sum = out[(n + l) * taps + t];
                    sum = static_cast<float>(from[t * lanes + l] + (transposed ? static_cast<double>(sum) : 0.0));
                }
        }
    });
}

void column_sums(const float* values, int64_t rows, int64_t columns, float* out, int threads) {
    const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(64, rows / 1024));
    const int64_t run = (rows + parts - 1) / parts;
    std::vector<std::vector<float>> sums(parts);
    parallel_for(parts, threads, [&](int64_t part, int, const StopFlag&) {
        std::vector<float>& own = sums[part];
        own.assign(columns, 0.0f);
        for (int64_t row = part * run; row < std::min(rows, (part + 1) * run); ++row)
            for (int64_t c = 0; c < columns; ++c) own[c] += values[row * columns + c];
    });
    for (int64_t c = 0; c < columns; ++c) {
        double total = 0;
        for (int64_t part = 0; part < parts; ++part) total += static_cast<double>(sums[part][c]);
        out[c] = static_cast<float>(total);
    }
}

}  // namespace aprcnn
