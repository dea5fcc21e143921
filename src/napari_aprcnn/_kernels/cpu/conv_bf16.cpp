#include "conv_bf16.hpp"

#include <stdexcept>

#if defined(APRCNN_X86_VARIANTS) && defined(__AVX512BF16__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "parallel.hpp"

namespace aprcnn {

namespace {

constexpr int lanes = 16;

struct HalfRows {
    const uint16_t* base[2];
    int64_t rows, channels;
    const uint16_t* at(int64_t index) const { return base[index >= rows ? 1 : 0] + index * channels; }
};

__m512bh pair_everywhere(const uint16_t* at) {
    int32_t both;
    std::memcpy(&both, at, sizeof both);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(both));
}

__m512bh weights_at(const uint16_t* at) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(at)); }

// P rows, C registers of 16 columns; U pairs of channels at a time.
template <int P, int C, int U>
void tile(const HalfRows& from, const int32_t* table, int64_t taps, const uint16_t* w, const float* bias, uint16_t* out,
          int64_t stride, int64_t keep) {
    __m512 sum[P][C];
#pragma GCC unroll 32
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) sum[p][c] = _mm512_loadu_ps(bias + c * lanes);
    const int64_t pairs = from.channels / 2;
    for (int64_t k = 0; k < taps; ++k) {
        const uint16_t* x[P];
#pragma GCC unroll 32
        for (int p = 0; p < P; ++p) x[p] = from.at(table[p * taps + k]);
        int64_t i = 0;
        for (; i + U <= pairs; i += U, w += U * C * 2 * lanes) {
            __m512bh weight[U][C];
#pragma GCC unroll 4
            for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
                for (int c = 0; c < C; ++c) weight[u][c] = weights_at(w + (u * C + c) * 2 * lanes);
#pragma GCC unroll 32
            for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
                for (int u = 0; u < U; ++u)
#pragma GCC unroll 4
                    for (int c = 0; c < C; ++c)
                        sum[p][c] = _mm512_dpbf16_ps(sum[p][c], weight[u][c], pair_everywhere(x[p] + 2 * (i + u)));
        }
        for (; i < pairs; ++i, w += C * 2 * lanes)
#pragma GCC unroll 32
            for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
                for (int c = 0; c < C; ++c)
                    sum[p][c] = _mm512_dpbf16_ps(sum[p][c], weights_at(w + c * 2 * lanes), pair_everywhere(x[p] + 2 * i));
    }
    for (int p = 0; p < P; ++p)
        for (int c = 0; c < C; ++c) {
            const int64_t left = std::min<int64_t>(lanes, keep - c * lanes);
            if (left <= 0) continue;
            const auto mask = static_cast<__mmask16>((1u << left) - 1);
            _mm256_mask_storeu_epi16(out + p * stride + c * lanes, mask,
                                     reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sum[p][c])));
        }
}

template <int P, int C, int U>
void block(const HalfRows& from, const int32_t* table, int64_t taps, const uint16_t* w, const float* bias, uint16_t* out,
           int64_t stride, int64_t keep, int64_t count) {
    int64_t i = 0;
    for (; i + P <= count; i += P)
        tile<P, C, U>(from, table + i * taps, taps, w, bias, out + i * stride, stride, keep);
    for (; i < count; ++i) tile<1, C, U>(from, table + i * taps, taps, w, bias, out + i * stride, stride, keep);
}

// [block][tap][pair][column][2]
std::vector<uint16_t> pack(const uint16_t* weight, KernelShape kernel) {
    const int64_t pairs = kernel.in / 2;
    std::vector<uint16_t> packed;
    for (int64_t column = 0; column < kernel.out;) {
        const int64_t width = kernel.out - column > lanes ? 2 * lanes : lanes;
        for (int64_t k = 0; k < kernel.taps; ++k)
            for (int64_t i = 0; i < pairs; ++i)
                for (int64_t c = 0; c < width; ++c)
                    for (int64_t half = 0; half < 2; ++half) {
                        const int64_t o = column + c;
                        packed.push_back(o < kernel.out ? weight[(o * kernel.in + 2 * i + half) * kernel.taps + k] : 0);
                    }
        column += width;
    }
    return packed;
}

}  // namespace

bool has_bf16_products() {
    return __builtin_cpu_supports("avx512bf16") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
           __builtin_cpu_supports("avx512vl") != 0;
}

void conv_forward_bf16(const uint16_t* features, const uint16_t* tree, StageSize size, const uint16_t* weight,
                       KernelShape kernel, const float* bias, const int32_t* table, Segments segments, uint16_t* out,
                       int threads) {
    if (!has_bf16_products()) throw std::runtime_error("this processor has no bfloat16 products");
    if (kernel.in % 2 != 0) throw std::invalid_argument("expected an even number of input channels");
    struct Task {
        int64_t first, last, depth;
    };
    constexpr int64_t run = 14 * 12 * 12, group = 14 * 12;
    std::vector<Task> tasks;
    std::map<int64_t, std::vector<uint16_t>> packed;
    for (int64_t s = 0; s < segments.count; ++s) {
        const int64_t first = segments.data[3 * s], last = segments.data[3 * s + 1], depth = segments.data[3 * s + 2];
        if (first < 0 || last > size.rows) throw std::invalid_argument("a segment reaches outside the rows");
        if (depth < 0 || depth >= kernel.depths) throw std::invalid_argument("a segment is deeper than the weights");
        if (first < last && packed.count(depth) == 0)
            packed[depth] = pack(weight + depth * kernel.out * kernel.in * kernel.taps, kernel);
        for (int64_t row = first; row < last; row += run) tasks.push_back({row, std::min(last, row + run), depth});
    }
    std::vector<float> padded((kernel.out + 2 * lanes) / lanes * lanes + lanes, 0.0f);
    if (bias != nullptr) std::copy(bias, bias + kernel.out, padded.begin());
    const HalfRows from{{features, tree - size.rows * kernel.in}, size.rows, kernel.in};
    parallel_for(static_cast<int64_t>(tasks.size()), threads, [&](int64_t t, int, const StopFlag&) {
        for (int64_t row = tasks[t].first; row < tasks[t].last; row += group) {
            const int64_t count = std::min(group, tasks[t].last - row);
            const uint16_t* w = packed.at(tasks[t].depth).data();
            const int32_t* rows = table + row * kernel.taps;
            for (int64_t column = 0; column < kernel.out;) {
                const bool wide = kernel.out - column > lanes;
                uint16_t* to = out + row * kernel.out + column;
                const float* b = padded.data() + column;
                if (wide) block<12, 2, 2>(from, rows, kernel.taps, w, b, to, kernel.out, kernel.out - column, count);
                else block<14, 1, 4>(from, rows, kernel.taps, w, b, to, kernel.out, kernel.out - column, count);
                const int64_t width = wide ? 2 * lanes : lanes;
                w += kernel.taps * kernel.in * width;
                column += width;
            }
        }
    });
}

}  // namespace aprcnn

#else

namespace aprcnn {

bool has_bf16_products() { return false; }

void conv_forward_bf16(const uint16_t*, const uint16_t*, StageSize, const uint16_t*, KernelShape, const float*, const int32_t*,
                       Segments, uint16_t*, int) {
    throw std::runtime_error("this build has no bfloat16 products");
}

}  // namespace aprcnn

#endif
