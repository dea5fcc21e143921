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
    const int64_t padded = blocks.padded();
    made.resize(64 * kernel.in * padded);
    constexpr int64_t lanes = 8;  // every width is a multiple of it, or half of it
    // G g along an axis: g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2.
    const auto filter = [](const double* g, int64_t from_step, double* to, int64_t to_step) {
        for (int64_t l = 0; l < lanes; ++l) {
            const double a = g[l], b = g[from_step * lanes + l], c = g[2 * from_step * lanes + l];
            to[l] = a;
            to[to_step * lanes + l] = (a + b + c) / 2;
            to[2 * to_step * lanes + l] = (a - b + c) / 2;
            to[3 * to_step * lanes + l] = c;
        }
    };
    int64_t column = 0;
    for (int b = 0; b < blocks.count; ++b) {
        const int64_t width = blocks.width[b];
        for (int64_t i = 0; i < kernel.in; ++i) {
            // Pieces of block_channels channels, of blocks of columns each.
            const int64_t first = i / block_channels * block_channels;
            const int64_t some = std::min<int64_t>(block_channels, kernel.in - first);
            for (int64_t part = 0; part < width; part += lanes) {
                const int64_t many = std::min(lanes, width - part);
                double taps[27 * lanes] = {}, x[36 * lanes], y[48 * lanes], z[64 * lanes];
                for (int64_t l = 0; l < std::min(many, kernel.out - column - part); ++l)
                    for (int64_t k = 0; k < 27; ++k)
                        taps[k * lanes + l] = weight[((column + part + l) * kernel.in + i) * 27 + k];
                for (int k = 0; k < 9; ++k) filter(taps + 3 * k * lanes, 1, x + 4 * k * lanes, 1);
                for (int k = 0; k < 3; ++k)
                    for (int c = 0; c < 4; ++c) filter(x + (12 * k + c) * lanes, 4, y + (16 * k + c) * lanes, 4);
                for (int c = 0; c < 16; ++c) filter(y + c * lanes, 16, z + c * lanes, 16);
                float* to = made.data() + first * padded + some * column + (i - first) * width + part;
                for (int64_t k = 0; k < 64; ++k)
                    for (int64_t l = 0; l < many; ++l) to[k * kernel.in * padded + l] = static_cast<float>(z[k * lanes + l]);
            }
        }
        column += width;
    }
    return made;
}

int64_t block_scratch(const KernelShape& kernel, const Blocks& blocks) {
    const int64_t values = std::min<int64_t>(kernel.in, block_channels) * blocks_together + 16;
    const int64_t products = blocks.padded() * blocks_together + 16;
    return 16 * (values + products) + 8 * blocks.padded() * blocks_together;
}

void describe_blocks(const int32_t* nodes, int64_t count, int64_t available, const int32_t* children, StageSize size, const int32_t* table,
                     int32_t* patches, int32_t* rows) {
    const auto& sources = patch_sources();
    const auto outside = static_cast<int32_t>(size.rows + size.tree_rows);
    constexpr int64_t ahead = 6;
    for (int64_t b = 0; b < count; ++b) {
#if defined(__clang__) || defined(__GNUC__)
        if (b + ahead < available) {
            const int32_t* later = children + 8 * static_cast<int64_t>(nodes[b + ahead]);
            for (int child = 0; child < 8; ++child)
                if (later[child] < size.rows) {
                    __builtin_prefetch(table + 27 * static_cast<int64_t>(later[child]));
                    __builtin_prefetch(table + 27 * static_cast<int64_t>(later[child]) + 16);
                }
        }
#endif
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
