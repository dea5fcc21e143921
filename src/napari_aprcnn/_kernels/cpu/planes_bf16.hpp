// Pointwise products of rounded pixels and weights, for processors with instructions for it; sums are float32.
#pragma once

#include "planes.hpp"

namespace aprcnn {

// Whether this build and this processor have it.
bool has_bf16_planes();

// As PlanesTable::mix with Mix::halves, channels and columns being whole registers of 16.
void mix_bf16(const Mix& of, int64_t pixels);

// As PlanesTable::depthwise, with rounded results.
void depthwise_bf16(const float* const* rows, const float* taps, int64_t channels, int64_t dilation, int64_t pixels,
                    uint16_t* out);

}  // namespace aprcnn
