#include "planes_int8.hpp"

#include <stdexcept>

#if defined(APRCNN_X86_VARIANTS) && defined(__AVX512VNNI__)

#include <immintrin.h>

#include <cstring>

namespace aprcnn {

namespace {

constexpr int lanes = 16;
constexpr int64_t chunk_bytes = 8192;  // of rounded pixels that wait for their product

struct Rounded {
    using Value = uint8_t;
    __m512 inverse, zero;
    explicit Rounded(const Bytes& how) : inverse(_mm512_set1_ps(how.inverse)), zero(_mm512_set1_ps(how.zero)) {}
    void put(uint8_t* to, __m512 v) const {
        const __m512i whole = _mm512_cvtps_epi32(_mm512_fmadd_ps(v, inverse, zero));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(_mm512_max_epi32(whole, _mm512_setzero_si512())));
    }
};

#include "planes_rounded.inc"

__m512i four_everywhere(const uint8_t* at) {
    int32_t all;
    std::memcpy(&all, at, sizeof all);
    return _mm512_set1_epi32(all);
}

// P pixels, C registers of columns; x holds pixels of S values, 0 for any number. More than 16 sums at a time are slower:
// with 24 of them this processor does half as many products a second.
template <int S, int P, int C>
inline void tile(const Mix& of, const uint8_t* x, const int8_t* weights, int64_t pixel, int64_t column) {
    const int64_t channels = S != 0 ? S : of.channels;
    __m512i sum[P][C];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) sum[p][c] = _mm512_setzero_si512();
    const int8_t* w = weights;
    for (int64_t k = 0; k < channels; k += 4, w += 4 * C * lanes) {
        __m512i weight[C];
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) weight[c] = _mm512_loadu_si512(w + 4 * c * lanes);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
            const __m512i value = four_everywhere(x + p * channels + k);
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) sum[p][c] = _mm512_dpbusd_epi32(sum[p][c], value, weight[c]);
        }
    }
    float* out = of.out + pixel * of.out_stride + column;
    const float* add = of.add == nullptr ? nullptr : of.add + pixel * of.add_stride + column;
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
        const int64_t n = column + c * lanes;
        const __m512 scale = _mm512_loadu_ps(of.bytes.scale + n);
        const __m512 bias = _mm512_add_ps(_mm512_loadu_ps(of.bias + n), _mm512_loadu_ps(of.bytes.shift + n));
        const __m512 add_scale = of.add_scale != nullptr ? _mm512_loadu_ps(of.add_scale + n) : _mm512_set1_ps(1.0f);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
            __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[p][c]), scale, bias);
            if (add != nullptr) {
                const float* here = add + p * of.add_stride + c * lanes;
                if (of.add_next != 0) __builtin_prefetch(here + of.add_next, 0, 2);
                __builtin_prefetch(here + P * of.add_stride, 0, 3);
                value = _mm512_fmadd_ps(_mm512_loadu_ps(here), add_scale, value);
            }
            if (of.out_next != 0) __builtin_prefetch(out + of.out_next + p * of.out_stride + c * lanes, 1, 3);
            _mm512_storeu_ps(out + p * of.out_stride + c * lanes, of.relu ? _mm512_max_ps(value, _mm512_setzero_ps()) : value);
        }
    }
}

template <int S, int P, int C>
void columns(const Mix& of, const uint8_t* x, const int8_t* weights, int64_t first, int64_t count, int64_t column) {
    int64_t p = 0;
    for (; p + P <= count; p += P) tile<S, P, C>(of, x + p * of.channels, weights, first + p, column);
    for (; p + 4 <= count; p += 4) tile<S, 4, C>(of, x + p * of.channels, weights, first + p, column);
    for (; p < count; ++p) tile<S, 1, C>(of, x + p * of.channels, weights, first + p, column);
}

template <int S>
void all_columns(const Mix& of, const uint8_t* x, int64_t first, int64_t count) {
    const int8_t* weights = of.bytes.weights;
    for (int64_t column = 0; column < of.columns;) {
        const int width = of.columns - column >= 2 * lanes ? 2 * lanes : lanes;
        if (width == lanes) columns<S, 16, 1>(of, x, weights, first, count, column);
        else columns<S, 8, 2>(of, x, weights, first, count, column);
        column += width;
        weights += width * of.channels;
    }
}

}  // namespace

bool has_int8_planes() {
    return __builtin_cpu_supports("avx512vnni") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
           __builtin_cpu_supports("avx512vl") != 0;
}

void mix_int8(const Mix& of, int64_t pixels) {
    alignas(64) static thread_local uint8_t rounded[chunk_bytes];
    const auto* ready = reinterpret_cast<const uint8_t*>(of.x_halves);
    const Rounded store(of.bytes);
    const int64_t chunk = ready != nullptr ? pixels : chunk_bytes / of.channels / 8 * 8;
    for (int64_t first = 0; first < pixels; first += chunk) {
        const int64_t count = pixels - first < chunk ? pixels - first : chunk;
        for (int64_t p = 0; ready == nullptr && p < count; ++p)
            for (int64_t c = 0; c < of.channels; c += lanes)
                store.put(rounded + p * of.channels + c, _mm512_loadu_ps(of.x + (first + p) * of.x_stride + c));
        const uint8_t* x = ready != nullptr ? ready : rounded;
        switch (of.channels) {
            case 16: all_columns<16>(of, x, first, count); break;
            case 32: all_columns<32>(of, x, first, count); break;
            case 64: all_columns<64>(of, x, first, count); break;
            case 128: all_columns<128>(of, x, first, count); break;
            case 192: all_columns<192>(of, x, first, count); break;
            default: all_columns<0>(of, x, first, count);
        }
    }
}

void depthwise_int8(const float* const* rows, const float* taps, int64_t channels, int64_t dilation, int64_t pixels,
                    const Bytes& how, uint8_t* out) {
    taps_rounded(rows, taps, channels, dilation, pixels, Rounded(how), out);
}

}  // namespace aprcnn

#else

namespace aprcnn {

bool has_int8_planes() { return false; }
void mix_int8(const Mix&, int64_t) { throw std::runtime_error("this build has no products of 8 bits"); }
void depthwise_int8(const float* const*, const float*, int64_t, int64_t, int64_t, const Bytes&, uint8_t*) {
    throw std::runtime_error("this build has no products of 8 bits");
}

}  // namespace aprcnn

#endif
