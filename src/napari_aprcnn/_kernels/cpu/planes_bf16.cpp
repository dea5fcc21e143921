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

// U pixels of one register of channels, as plane_taps.
template <int S, int U, int D>
inline void some_taps(const float* const* rows, const __m512 (&w)[9], int64_t given, int64_t at, uint16_t* out) {
    const int64_t channels = S != 0 ? S : given;
    __m512 sum[U];
#pragma GCC unroll 4
    for (int r = 0; r < 3; ++r) {
        __m512 x[U + 2 * D];
        const float* from = rows[r] + at - D * channels;
#pragma GCC unroll 8
        for (int i = 0; i < U + 2 * D; ++i) x[i] = _mm512_loadu_ps(from + i * channels);
#pragma GCC unroll 4
        for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
            for (int k = 0; k < 3; ++k)
                sum[u] = r == 0 && k == 0 ? _mm512_mul_ps(x[u], w[0]) : _mm512_fmadd_ps(x[u + k * D], w[r * 3 + k], sum[u]);
    }
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) store_rounded(out + at + u * channels, sum[u]);
}

template <int S, int D>
void taps_dilated(const float* const* rows, const float* taps, int64_t given, int64_t pixels, uint16_t* out) {
    constexpr int U = 4;
    const int64_t channels = S != 0 ? S : given;
    for (int64_t c = 0; c < channels; c += lanes) {
        __m512 w[9];
#pragma GCC unroll 9
        for (int i = 0; i < 9; ++i) w[i] = _mm512_loadu_ps(taps + i * channels + c);
        int64_t p = 0;
        for (; p + U <= pixels; p += U) some_taps<S, U, D>(rows, w, channels, p * channels + c, out);
        for (; p < pixels; ++p) some_taps<S, 1, D>(rows, w, channels, p * channels + c, out);
    }
}

template <int S>
void taps_of(const float* const* rows, const float* taps, int64_t channels, int64_t dilation, int64_t pixels, uint16_t* out) {
    (dilation == 2 ? taps_dilated<S, 2> : taps_dilated<S, 1>)(rows, taps, channels, pixels, out);
}

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
    switch (channels) {
        case 16: taps_of<16>(rows, taps, channels, dilation, pixels, out); break;
        case 32: taps_of<32>(rows, taps, channels, dilation, pixels, out); break;
        case 64: taps_of<64>(rows, taps, channels, dilation, pixels, out); break;
        case 128: taps_of<128>(rows, taps, channels, dilation, pixels, out); break;
        case 192: taps_of<192>(rows, taps, channels, dilation, pixels, out); break;
        default: taps_of<0>(rows, taps, channels, dilation, pixels, out);
    }
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
