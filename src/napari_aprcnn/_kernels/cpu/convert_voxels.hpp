// One voxel of any type and byte order, and the way from a Source to a template.
#pragma once

#include <cstring>

#include "convert.hpp"

namespace aprcnn {

struct Half {
    uint16_t bits;
};

template <class T>
inline float as_float(T value) { return static_cast<float>(value); }

inline float as_float(Half value) {
    const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
    const uint32_t exponent = (value.bits >> 10) & 31u;
    const uint32_t fraction = value.bits & 1023u;
    if (exponent == 0) {
        const float small = static_cast<float>(fraction) * (1.0f / 16777216.0f);  // 2^-24
        return sign != 0 ? -small : small;
    }
    const uint32_t bits = sign | ((exponent == 31 ? 255u : exponent + 112u) << 23) | (fraction << 13);
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

template <class T, bool swap>
inline T voxel(const char* from) {
    T value;
    if (swap) {
        char bytes[sizeof(T)];
        for (size_t i = 0; i < sizeof(T); ++i) bytes[i] = from[sizeof(T) - 1 - i];
        std::memcpy(&value, bytes, sizeof value);
    } else {
        std::memcpy(&value, from, sizeof value);
    }
    return value;
}

template <class T, bool swaps>
struct VoxelType {
    using type = T;
    static constexpr bool swap = swaps;
};

template <class F>
void with_voxels(const Source& source, F&& use) {
    const auto pick = [&](auto value) {
        using T = decltype(value);
        if (source.swapped && sizeof(T) > 1) {
            use(VoxelType<T, true>());
        } else {
            use(VoxelType<T, false>());
        }
    };
    switch (source.kind) {
        case Kind::u8: return pick(uint8_t{});
        case Kind::u16: return pick(uint16_t{});
        case Kind::u32: return pick(uint32_t{});
        case Kind::u64: return pick(uint64_t{});
        case Kind::i8: return pick(int8_t{});
        case Kind::i16: return pick(int16_t{});
        case Kind::i32: return pick(int32_t{});
        case Kind::i64: return pick(int64_t{});
        case Kind::f16: return pick(Half{});
        case Kind::f32: return pick(float{});
        case Kind::f64: return pick(double{});
    }
}

}  // namespace aprcnn
