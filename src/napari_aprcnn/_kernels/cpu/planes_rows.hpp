// What the bands of planes.cpp work with: a thread's memory, rings of rows, products that are of float32 or bfloat16.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "pages.hpp"
#include "planes.hpp"
#include "planes_bf16.hpp"
#include "planes_int8.hpp"

namespace aprcnn {

constexpr int64_t pad = 2;            // zero pixels on each side of a row: the largest dilation
constexpr int64_t chunk_floats = 3072;  // of depthwise results that wait for their pointwise convolution: 12 KB

// Memory of a thread, kept from call to call: fresh pages cost more than the arithmetic on them.
class Scratch {
  public:
    // Room for so many floats in all; what was taken before is void. On huge pages where it fills a good part of one: small pages,
    // wherever the system finds them, crowd each other out of the second level of cache.
    void start(size_t floats) {
        constexpr size_t huge = size_t{1} << 19;  // floats of 2 MB
        const bool wants = floats > huge / 4;
        const size_t whole = wants ? (floats + huge - 1) / huge * huge : floats, step = wants ? huge : 16;
        if (size_ < whole + step) {
            room_.reset();
            size_ = 0;
            room_.reset(new float[whole + step]);  // not written here: pages come with the first touch
            size_ = whole + step;
            if (wants) ask_for_huge_pages(room_.get(), size_ * sizeof(float));
        }
        const size_t bytes = step * sizeof(float), address = reinterpret_cast<uintptr_t>(room_.get());
        next_ = room_.get() + (bytes - address % bytes) % bytes / sizeof(float);
    }
    float* take(size_t floats) {
        float* taken = next_;
        next_ += (floats + 15) / 16 * 16;
        return taken;
    }

  private:
    std::unique_ptr<float[]> room_;
    size_t size_ = 0;
    float* next_ = nullptr;
};

inline Scratch& scratch() {
    static thread_local Scratch kept;
    return kept;
}

inline size_t rounded(int64_t floats) { return static_cast<size_t>((floats + 15) / 16 * 16); }

// The last rows of a plane, and zeros outside it.
class Ring {
  public:
    static size_t need(int64_t rows, int64_t width, int64_t channels) { return rounded((rows + 1) * row_floats(width, channels)); }
    Ring() = default;
    Ring(Scratch& from, int64_t rows, int64_t height, int64_t width, int64_t channels)
        : rows_(rows), height_(height), channels_(channels), row_(row_floats(width, channels)),
          memory_(from.take(static_cast<size_t>((rows + 1) * row_))) {
        const auto zero = [](float* at, int64_t floats) { std::memset(at, 0, static_cast<size_t>(floats) * sizeof(float)); };
        for (int64_t i = 0; i < rows; ++i) {  // what lies between is written before it is read
            zero(memory_ + i * row_, pad * channels);
            zero(memory_ + (i + 1) * row_ - pad * channels, pad * channels);
        }
        zero(memory_ + rows * row_, row_);
    }
    float* row(int64_t y) const {
        return memory_ + (y < 0 || y >= height_ ? rows_ : y % rows_) * row_ + pad * channels_;
    }

  private:
    static int64_t row_floats(int64_t width, int64_t channels) { return (width + 2 * pad) * channels; }
    int64_t rows_ = 0, height_ = 0, channels_ = 0, row_ = 0;
    float* memory_ = nullptr;
};

inline int64_t chunk_of(int64_t channels) { return std::max<int64_t>(12, chunk_floats / channels / 12 * 12); }

inline void twice(const float* from, int64_t pixels, int64_t channels, float* to) {
    for (int64_t p = 0; p < pixels; ++p, from += channels, to += 2 * channels) {
        std::memcpy(to, from, static_cast<size_t>(channels) * sizeof(float));
        std::memcpy(to + channels, from, static_cast<size_t>(channels) * sizeof(float));
    }
}

inline Mix mix_of(const Pointwise& of, const float* x, int64_t x_stride, float* out, int64_t out_stride) {
    return {x, x_stride, 1, of.channels, of.weights, of.bias, of.columns, nullptr, nullptr, 0, 0, false, out, out_stride, 0,
            of.halves, nullptr, of.bytes, of.seen};
}

// The same of planes [channel][.], `apart` from one to the next.
inline Mix mix_of_planes(const Pointwise& of, const float* x, int64_t apart, float* out, int64_t out_stride) {
    return {x, 1, apart, of.channels, of.weights, of.bias, of.columns, nullptr, nullptr, 0, 0, false, out, out_stride, 0};
}

// Only on one thread: for calibration.
inline void look_at(const Mix& of, int64_t pixels) {
    for (int64_t p = 0; p < pixels; ++p)
        for (int64_t c = 0; c < of.channels; ++c) {
            const float value = of.x[p * of.x_stride + c * of.k_stride];
            of.seen[0] = std::min(of.seen[0], value);
            of.seen[1] = std::max(of.seen[1], value);
        }
}

inline void mix(const PlanesTable& k, const Mix& of, int64_t pixels) {
    if (of.seen != nullptr) look_at(of, pixels);
    if (of.bytes.weights != nullptr)
        mix_int8(of, pixels);
    else if (of.halves != nullptr)
        mix_bf16(of, pixels);
    else
        k.mix(of, pixels);
}

// A depthwise convolution for the product that follows: results are rounded at once, in the same room, if that is of bfloat16.
inline void spread(const PlanesTable& k, const float* const* rows, const float* taps, int64_t channels, int64_t dilation,
            int64_t pixels, float* out, Mix& next) {
    if (next.bytes.weights != nullptr) {
        auto* rounded = reinterpret_cast<uint8_t*>(out);
        depthwise_int8(rows, taps, channels, dilation, pixels, next.bytes, rounded);
        next.x_halves = reinterpret_cast<const uint16_t*>(rounded);
        return;
    }
    if (next.halves == nullptr) {
        k.depthwise(rows, taps, channels, dilation, pixels, out);
        return;
    }
    auto* rounded = reinterpret_cast<uint16_t*>(out);
    depthwise_bf16(rows, taps, channels, dilation, pixels, rounded);
    next.x_halves = rounded;
}

}  // namespace aprcnn
