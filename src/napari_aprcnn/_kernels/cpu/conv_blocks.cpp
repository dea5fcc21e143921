#include "conv_blocks.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>

namespace aprcnn {

namespace {

constexpr int64_t fewest_blocks = 64;     // fewer do not pay for the weights
constexpr double fewest_rows = 3.2;       // of a block, on average: 64 products and what is around them against 27 a row

}  // namespace

int64_t Inside::piece_end(int64_t first) const { return std::min(first + block_channels, first < split ? split : channels); }

bool fits_blocks(const KernelShape& kernel, Inside inside) {
    // With fewer channels the filters cost what the products save.
    return kernel.in % 8 == 0 && inside.split % 8 == 0 && kernel.in >= 16 && kernel.out >= 16;
}

bool BlockRange::filtered() const {
    const int64_t blocks = last - first;
    return blocks >= fewest_blocks && static_cast<double>(rows) >= fewest_rows * static_cast<double>(blocks);
}

AlignedFloats block_weights(const float* weight, const KernelShape& kernel, Inside inside, const Blocks& blocks) {
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
        int64_t first = 0;
        for (int64_t i = 0; i < kernel.in; ++i) {
            // Pieces of channels, of blocks of columns each.
            if (i == inside.piece_end(first)) first = i;
            const int64_t some = inside.piece_end(first) - first;
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

}  // namespace aprcnn
