// Dense convolutions 3 x 3 of planes by minimal filtering, F(4, 3) along both axes (Winograd 1980): 36 products for 16 pixels where their
// taps would be 144.
#pragma once

#include <cstdint>

#include "conv.hpp"
#include "pages.hpp"

namespace aprcnn {

constexpr int64_t plane_tiles = 48;      // that are multiplied together; a multiple of every tile of rows
constexpr int64_t plane_channels = 64;   // input channels that are summed at once

// A plane, or rows of one, [height][width][channels], zero outside: out = [relu](filters * in + bias [+ add_scale * add]), where `in` is x or,
// scale given, relu(scale * x + shift). out and add [last - first][width][columns] are its rows first..last-1.
struct PlaneFilter {
    const float* x;
    int64_t height, width, channels, columns, first, last;
    const float *scale, *shift;      // [channels], or null
    const float *weights, *bias;     // of `plane_weights`; [padded]
    const float *add, *add_scale;    // or null; add_scale [padded], or null for 1
    bool relu;
    float* out;

    int64_t tiles_y() const { return (last - first + 3) / 4; }
    int64_t tiles_x() const { return (width + 3) / 4; }
};

// weight [out][in][3][3] to [36][pieces of channels][blocks of columns][channel][width].
AlignedFloats plane_weights(const float* weight, int64_t in, int64_t out, const Blocks& blocks);
int64_t plane_scratch(int64_t channels, const Blocks& blocks);
// On the calling thread.
void filter_plane(const PlaneFilter& work, const Blocks& blocks);

}  // namespace aprcnn
