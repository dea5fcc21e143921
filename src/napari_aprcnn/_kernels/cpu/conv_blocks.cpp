#include "conv_blocks.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>

namespace aprcnn {

namespace {

constexpr int64_t fewest_blocks = 64;     // fewer do not pay for the weights
constexpr double fewest_rows = 3.2;       // of a block, on average: 64 products and what is around them against 27 a row

// For every set of children that are rows, where each of the 64 positions of the patch is found: child * 27 + tap, or -1.
const std::array<std::array<int16_t, 64>, 256>& patch_sources() {
    static const auto made = [] {
        std::array<std::array<int16_t, 64>, 256> found{};
        for (int mask = 0; mask < 256; ++mask)
            for (int at = 0; at < 64; ++at) {
                int16_t source = -1;
                for (int child = 7; child >= 0; --child) {
                    const int z = at / 16 - child / 4, y = at / 4 % 4 - child / 2 % 2, x = at % 4 - child % 2;
                    const bool reaches = z >= 0 && z < 3 && y >= 0 && y < 3 && x >= 0 && x < 3;
                    if (reaches && (mask >> child & 1) != 0) source = static_cast<int16_t>(child * 27 + z * 9 + y * 3 + x);
                }
                found[mask][at] = source;
            }
        return found;
    }();
    return made;
}

}  // namespace

bool fits_blocks(const KernelShape& kernel) {
    // With fewer channels the filters cost what the products save.
    return kernel.taps == 27 && kernel.in % 8 == 0 && kernel.in >= 16 && kernel.out >= 16;
}

std::vector<BlockList> list_blocks(const int32_t* children, StageSize size, const Segments& segments) {
    std::vector<BlockList> lists(segments.count);
    std::vector<int64_t> rows(segments.count, 0);
    int64_t segment = 0;
    const auto holds = [&](int64_t s, int64_t row) { return row >= segments.data[3 * s] && row < segments.data[3 * s + 1]; };
    for (int64_t node = 0; node < size.tree_rows; ++node) {
        int64_t first = -1, count = 0;
        for (int child = 0; child < 8; ++child) {
            const int64_t row = children[8 * node + child];
            if (row < 0) throw std::invalid_argument("a child is negative");
            if (row >= size.rows) continue;
            if (first < 0) first = row;
            ++count;
        }
        if (first < 0) continue;
        if (!holds(segment, first)) {
            segment = 0;
            while (segment < segments.count && !holds(segment, first)) ++segment;
            if (segment == segments.count) throw std::invalid_argument("a child belongs to no segment");
        }
        lists[segment].nodes.push_back(static_cast<int32_t>(node));
        rows[segment] += count;
    }
    for (int64_t s = 0; s < segments.count; ++s) {
        const auto blocks = static_cast<int64_t>(lists[s].nodes.size());
        const bool whole = rows[s] == segments.data[3 * s + 1] - segments.data[3 * s];
        lists[s].used = whole && blocks >= fewest_blocks && static_cast<double>(rows[s]) >= fewest_rows * static_cast<double>(blocks);
    }
    return lists;
}

AlignedFloats block_weights(const float* weight, const KernelShape& kernel, const Blocks& blocks) {
    AlignedFloats made;
    made.resize(64 * kernel.in * blocks.padded());
    float* found = made.data();
    // Where column `o` of a channel lies, without the position: pieces of block_channels channels, of column blocks each.
    std::vector<int64_t> starts(kernel.out), widths(kernel.out);
    int64_t column = 0;
    for (int b = 0; b < blocks.count; ++b)
        for (int64_t c = 0; c < blocks.width[b]; ++c, ++column)
            if (column < kernel.out) {
                starts[column] = column - c;
                widths[column] = blocks.width[b];
            }
    const int64_t padded = blocks.padded();
    for (int64_t o = 0; o < kernel.out; ++o)
        for (int64_t i = 0; i < kernel.in; ++i) {
            const float* taps = weight + (o * kernel.in + i) * 27;
            double x[9][4], y[3][4][4], z[4][4][4];
            const auto filter = [](double a, double b, double c, double* to, int64_t step) {
                to[0] = a;
                to[step] = (a + b + c) / 2;
                to[2 * step] = (a - b + c) / 2;
                to[3 * step] = c;
            };
            for (int k = 0; k < 9; ++k) filter(taps[3 * k], taps[3 * k + 1], taps[3 * k + 2], x[k], 1);
            for (int k = 0; k < 3; ++k)
                for (int c = 0; c < 4; ++c) filter(x[3 * k][c], x[3 * k + 1][c], x[3 * k + 2][c], &y[k][0][c], 4);
            for (int c = 0; c < 16; ++c) filter((&y[0][0][0])[c], (&y[1][0][0])[c], (&y[2][0][0])[c], &z[0][0][0] + c, 16);
            const int64_t first = i / block_channels * block_channels;
            const int64_t some = std::min<int64_t>(block_channels, kernel.in - first);
            const int64_t at = first * padded + some * starts[o] + (i - first) * widths[o] + (o - starts[o]);
            for (int64_t k = 0; k < 64; ++k) found[k * kernel.in * padded + at] = static_cast<float>((&z[0][0][0])[k]);
        }
    return made;
}

int64_t block_scratch(const KernelShape& kernel, const Blocks& blocks) {
    return 64 * (blocks_together * (std::min<int64_t>(kernel.in, block_channels) + blocks.padded()) + 32);
}

void describe_blocks(const int32_t* nodes, int64_t count, const int32_t* children, StageSize size, const int32_t* table,
                     int32_t* patches, int32_t* rows) {
    const auto& sources = patch_sources();
    const auto outside = static_cast<int32_t>(size.rows + size.tree_rows);
    for (int64_t b = 0; b < count; ++b) {
        const int32_t* here = children + 8 * static_cast<int64_t>(nodes[b]);
        int mask = 0;
        const int32_t* taps[8];
        for (int child = 0; child < 8; ++child) {
            const bool is_row = here[child] < size.rows;
            mask |= static_cast<int>(is_row) << child;
            taps[child] = table + 27 * static_cast<int64_t>(is_row ? here[child] : 0);
            rows[8 * b + child] = is_row ? here[child] : -1;
        }
        for (int at = 0; at < 64; ++at) {
            const int source = sources[mask][at];
            patches[64 * b + at] = source < 0 ? outside : taps[source / 27][source % 27];
        }
    }
}

}  // namespace aprcnn
