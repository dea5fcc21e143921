// Convolution of bfloat16 features, for processors with instructions for it; sums are float32.
#pragma once

#include "particles.hpp"

namespace aprcnn {

// Whether this build and this processor have it.
bool has_bf16_products();

// As conv_forward; features, tree, weight and out are bfloat16, the bias float32 or null. An even number of input channels.
void conv_forward_bf16(const uint16_t* features, const uint16_t* tree, StageSize size, const uint16_t* weight,
                       KernelShape kernel, const float* bias, const int32_t* table, Segments segments, uint16_t* out,
                       int threads);

}  // namespace aprcnn
