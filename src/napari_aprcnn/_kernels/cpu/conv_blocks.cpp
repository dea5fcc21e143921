#include "conv_blocks.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>

#include "cube_points.hpp"

namespace aprcnn {

namespace {

constexpr int64_t fewest_blocks = 64;     // fewer do not pay for the weights
constexpr int64_t fewest_cubes = 32;
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

bool BlockRange::has_cubes() const { return last_cube - first_cube >= fewest_cubes; }

namespace {

constexpr int64_t lanes = 8;  // every width is a multiple of it, or half of it

// G g along an axis, `many` columns at a time: F(2, 3) with the points 0, 1, -1 and infinity.
void filter_block(const double* g, int64_t from_step, double* to, int64_t to_step) {
    for (int64_t l = 0; l < lanes; ++l) {
        const double a = g[l], b = g[from_step * lanes + l], c = g[2 * from_step * lanes + l];
        to[l] = a;
        to[to_step * lanes + l] = (a + b + c) / 2;
        to[2 * to_step * lanes + l] = (a - b + c) / 2;
        to[3 * to_step * lanes + l] = c;
    }
}

void filter_cube(const double* g, int64_t from_step, double* to, int64_t to_step) {
    for (int64_t l = 0; l < lanes; ++l) filter_four(g + l, from_step * lanes, to + l, to_step * lanes);
}

// Taps [27][lanes] to products [points ^ 3][lanes].
template <int Points>
void filter_taps(const double* taps, double* to) {
    constexpr auto filter = Points == 4 ? filter_block : filter_cube;
    double x[9 * Points * lanes], y[3 * Points * Points * lanes];
    for (int k = 0; k < 9; ++k) filter(taps + 3 * k * lanes, 1, x + Points * k * lanes, 1);
    for (int k = 0; k < 3; ++k)
        for (int c = 0; c < Points; ++c)
            filter(x + (3 * Points * k + c) * lanes, Points, y + (Points * Points * k + c) * lanes, Points);
    for (int c = 0; c < Points * Points; ++c) filter(y + c * lanes, Points * Points, to + c * lanes, Points * Points);
}

}  // namespace

AlignedFloats filtered_weights(const float* weight, const KernelShape& kernel, Inside inside, const Blocks& blocks, Tile tile) {
    AlignedFloats made;
    const int64_t padded = blocks.padded(), products = products_of(tile);
    made.resize(products * kernel.in * padded);
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
                double taps[27 * lanes] = {}, filtered[216 * lanes];
                for (int64_t l = 0; l < std::min(many, kernel.out - column - part); ++l)
                    for (int64_t k = 0; k < 27; ++k)
                        taps[k * lanes + l] = weight[((column + part + l) * kernel.in + i) * 27 + k];
                if (tile == Tile::block)
                    filter_taps<4>(taps, filtered);
                else
                    filter_taps<6>(taps, filtered);
                float* to = made.data() + first * padded + some * column + (i - first) * width + part;
                for (int64_t k = 0; k < products; ++k)
                    for (int64_t l = 0; l < many; ++l)
                        to[k * kernel.in * padded + l] = static_cast<float>(filtered[k * lanes + l]);
            }
        }
        column += width;
    }
    return made;
}

int64_t filter_scratch(const KernelShape& kernel, const Blocks& blocks, Tile tile) {
    const int64_t together = tile == Tile::block ? blocks_together : cubes_together;
    const int64_t slice = tile == Tile::block ? 16 : 72, rows = tile == Tile::block ? 8 : 64;
    const int64_t values = std::min<int64_t>(kernel.in, block_channels) * together + 16;
    const int64_t products = blocks.padded() * together + 16;
    return slice * (values + products) + rows * blocks.padded() * together;
}

}  // namespace aprcnn
