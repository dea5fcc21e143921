#include "planes_bf16.hpp"

#include <stdexcept>

#if defined(APRCNN_X86_VARIANTS) && defined(__AVX512BF16__)

#include <immintrin.h>

#include <cstring>

#include "conv_bf16.hpp"

namespace aprcnn {

namespace {

constexpr int lanes = 16;
constexpr int64_t chunk_floats = 8192;  // of rounded pixels that wait for their product: 16 KB

__m512bh pair_everywhere(const uint16_t* at) {
    int32_t both;
    std::memcpy(&both, at, sizeof both);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(both));
}

__m512bh weights_at(const uint16_t* at) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(at)); }

void store_rounded(uint16_t* to, __m512 v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}

struct Rounded {
    using Value = uint16_t;
    void put(uint16_t* to, __m512 v) const { store_rounded(to, v); }
};

#include "planes_rounded.inc"

// P pixels, C registers of columns; x holds pixels of S rounded values, 0 for any number: constant addresses are faster.
template <int S, int P, int C>
inline void tile(const Mix& of, const uint16_t* x, const uint16_t* weights, int64_t pixel, int64_t column) {
    const int64_t channels = S != 0 ? S : of.channels;
    __m512 sum[P][C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
        const __m512 bias = _mm512_loadu_ps(of.bias + column + c * lanes);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) sum[p][c] = bias;
    }
    if (of.add != nullptr) {
        const float* add = of.add + pixel * of.add_stride + column;
        if (of.add_next != 0)
            for (int p = 0; p < P; ++p)
                for (int c = 0; c < C; ++c) __builtin_prefetch(add + of.add_next + p * of.add_stride + c * lanes, 0, 2);
        for (int p = P; p < 2 * P; ++p)
            for (int c = 0; c < C; ++c) __builtin_prefetch(add + p * of.add_stride + c * lanes, 0, 3);
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
            const __m512 scale = of.add_scale != nullptr ? _mm512_loadu_ps(of.add_scale + column + c * lanes) : _mm512_set1_ps(1.0f);
#pragma GCC unroll 16
            for (int p = 0; p < P; ++p)
                sum[p][c] = _mm512_fmadd_ps(_mm512_loadu_ps(add + p * of.add_stride + c * lanes), scale, sum[p][c]);
        }
    }
    float* out = of.out + pixel * of.out_stride + column;
    if (of.out_next != 0)
        for (int p = 0; p < P; ++p)
            for (int c = 0; c < C; ++c) __builtin_prefetch(out + of.out_next + p * of.out_stride + c * lanes, 1, 3);
    const uint16_t* w = weights;
    for (int64_t k = 0; k < channels; k += 2, w += 2 * C * lanes) {
        __m512bh weight[C];
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) weight[c] = weights_at(w + 2 * c * lanes);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
            const __m512bh value = pair_everywhere(x + p * channels + k);
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) sum[p][c] = _mm512_dpbf16_ps(sum[p][c], weight[c], value);
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c)
            _mm512_storeu_ps(out + p * of.out_stride + c * lanes,
                             of.relu ? _mm512_max_ps(sum[p][c], _mm512_setzero_ps()) : sum[p][c]);
}

template <int S, int P, int C>
void columns(const Mix& of, const uint16_t* x, const uint16_t* weights, int64_t first, int64_t count, int64_t column) {
    int64_t p = 0;
    for (; p + P <= count; p += P) tile<S, P, C>(of, x + p * of.channels, weights, first + p, column);
    for (; p + 4 <= count; p += 4) tile<S, 4, C>(of, x + p * of.channels, weights, first + p, column);
    for (; p < count; ++p) tile<S, 1, C>(of, x + p * of.channels, weights, first + p, column);
}

template <int S>
void all_columns(const Mix& of, const uint16_t* x, const uint16_t* weights, int64_t first, int64_t count) {
    for (int64_t column = 0; column < of.columns;) {
        const int width = of.columns - column >= 2 * lanes ? 2 * lanes : lanes;
        if (width == lanes) columns<S, 16, 1>(of, x, weights, first, count, column);
        else columns<S, 12, 2>(of, x, weights, first, count, column);
        column += width;
        weights += width * of.channels;
    }
}

}  // namespace

bool has_bf16_planes() { return has_bf16_products(); }

void mix_bf16(const Mix& of, int64_t pixels) {
    alignas(64) static thread_local uint16_t rounded[chunk_floats];
    const int64_t chunk = of.x_halves != nullptr ? pixels : chunk_floats / of.channels / 12 * 12;
    for (int64_t first = 0; first < pixels; first += chunk) {
        const int64_t count = pixels - first < chunk ? pixels - first : chunk;
        for (int64_t p = 0; of.x_halves == nullptr && p < count; ++p)
            for (int64_t c = 0; c < of.channels; c += lanes)
                store_rounded(rounded + p * of.channels + c, _mm512_loadu_ps(of.x + (first + p) * of.x_stride + c));
        const uint16_t* x = of.x_halves != nullptr ? of.x_halves : rounded;
        switch (of.channels) {
            case 16: all_columns<16>(of, x, of.halves, first, count); break;
            case 32: all_columns<32>(of, x, of.halves, first, count); break;
            case 64: all_columns<64>(of, x, of.halves, first, count); break;
            case 128: all_columns<128>(of, x, of.halves, first, count); break;
            case 192: all_columns<192>(of, x, of.halves, first, count); break;
            default: all_columns<0>(of, x, of.halves, first, count);
        }
    }
}

void depthwise_bf16(const float* const* rows, const float* taps, int64_t channels, int64_t dilation, int64_t pixels,
                    uint16_t* out) {
    taps_rounded(rows, taps, channels, dilation, pixels, Rounded(), out);
}

}  // namespace aprcnn

#else

namespace aprcnn {

bool has_bf16_planes() { return false; }
void mix_bf16(const Mix&, int64_t) { throw std::runtime_error("this build has no bfloat16 products"); }
void depthwise_bf16(const float* const*, const float*, int64_t, int64_t, int64_t, uint16_t*) {
    throw std::runtime_error("this build has no bfloat16 products");
}

}  // namespace aprcnn

#endif
