// bfloat16, the upper half of a float, in memory as uint16_t.
#pragma once

#include <cstdint>
#include <cstring>

namespace aprcnn {

// Static: every file compiles its own, with its own instruction set.
static inline float widened(float value) { return value; }
static inline float widened(uint16_t half) {
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
static inline void narrow(float value, float* to) { *to = value; }
static inline void narrow(float value, uint16_t* to) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    // To nearest, ties to even; a NaN stays one.
    *to = static_cast<uint16_t>(value != value ? 0x7fc0u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace aprcnn
