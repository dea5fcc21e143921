// Products of 8 bits for the separable networks, where the processor has them (AVX512-VNNI).
#pragma once

#include "planes.hpp"

namespace aprcnn {

// Whether they can be used here.
bool has_int8_planes();

// As PlanesTable::mix with Mix::bytes, channels and columns being whole registers of 16.
void mix_int8(const Mix& of, int64_t pixels);

// As PlanesTable::depthwise, the results as Bytes say: round(x * inverse + zero), 0 to 255.
void depthwise_int8(const float* const* rows, const float* taps, int64_t channels, int64_t dilation, int64_t pixels,
                    const Bytes& how, uint8_t* out);

}  // namespace aprcnn
