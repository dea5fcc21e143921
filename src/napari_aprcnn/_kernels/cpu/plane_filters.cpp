#include "plane_filters.hpp"

#include <algorithm>

#include "cube_points.hpp"

namespace aprcnn {

AlignedFloats plane_weights(const float* weight, int64_t in, int64_t out, const Blocks& blocks) {
    const int64_t padded = blocks.padded();
    AlignedFloats made;
    made.resize(36 * in * padded);
    std::fill_n(made.data(), 36 * in * padded, 0.0f);
    for (int64_t i = 0; i < in; ++i) {
        const int64_t first = i / plane_channels * plane_channels, some = std::min(plane_channels, in - first);
        int64_t column = 0;
        for (int b = 0; b < blocks.count; ++b) {
            const int64_t width = blocks.width[b];
            for (int64_t l = 0; l < std::min(width, out - column); ++l) {
                const float* taps = weight + ((column + l) * in + i) * 9;
                double exact[9], lines[18], filtered[36];
                for (int k = 0; k < 9; ++k) exact[k] = taps[k];
                for (int k = 0; k < 3; ++k) filter_four(exact + 3 * k, 1, lines + 6 * k, 1);
                for (int c = 0; c < 6; ++c) filter_four(lines + c, 6, filtered + c, 6);
                float* to = made.data() + first * padded + some * column + (i - first) * width + l;
                for (int k = 0; k < 36; ++k) to[k * in * padded] = static_cast<float>(filtered[k]);
            }
            column += width;
        }
    }
    return made;
}

int64_t plane_scratch(int64_t channels, const Blocks& blocks) {
    return 36 * (plane_tiles * std::min(channels, plane_channels) + 16) + 36 * (plane_tiles * blocks.padded() + 16);
}

void filter_plane(const PlaneFilter& work, const Blocks& blocks) {
    static thread_local AlignedFloats scratch;
    const int64_t needed = plane_scratch(work.channels, blocks) + work.channels;
    scratch.resize(needed);
    std::fill_n(scratch.data() + needed - work.channels, work.channels, 0.0f);
    conv_table().plane(work, blocks, scratch.data(), scratch.data() + needed - work.channels);
}

}  // namespace aprcnn
