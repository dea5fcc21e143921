// Networks of separable convolutions on planes: [row][column][channel], a few rows at a time, in cache from the first
// operation of a block to its last.
#pragma once

#include <cstdint>

namespace aprcnn {

// --- inner loops, compiled for each instruction set ----------------------------------------------------------------------

// Where products are to be of 8 bits (planes_int8.hpp): x becomes round(x * inverse + zero), 0 to 255; weights, -127 to 127, in
// fours of channels, [block][k / 4][column][4]; a sum times scale[column] plus shift[column] is what x times weights gives.
struct Bytes {
    const int8_t* weights = nullptr;
    const float* scale = nullptr;
    const float* shift = nullptr;
    float inverse = 0.0f, zero = 0.0f;
};

// out[p][n] = bias[n] + sum over k of x[p][k] weights[k][n] (+ add[p][n] (* add_scale[n])), at least 0 with relu.
// weights: blocks of 2 x lanes columns, or of lanes where no more are left; in a block [k][column]. columns: whole blocks.
struct Mix {
    const float* x;
    int64_t x_stride;  // from pixel to pixel
    int64_t k_stride;  // from channel to channel: 1, unless x_stride is
    int64_t channels;
    const float* weights;
    const float* bias;
    int64_t columns;
    const float* add;
    const float* add_scale;
    int64_t add_stride;
    int64_t add_next;  // from what is added now to what will be soon
    bool relu;
    float* out;
    int64_t out_stride;
    int64_t out_next;  // from what is written now to what will be soon, where it is not in the cache
    // Where products are to be of bfloat16 (planes_bf16.hpp): weights in pairs of channels, [block][k / 2][column][2]; x
    // rounded, [pixel][channel], or null if it is to be rounded here.
    const uint16_t* halves = nullptr;
    const uint16_t* x_halves = nullptr;
    // With bytes.weights x_halves, if there is one, holds bytes.
    Bytes bytes = {};
    float* seen = nullptr;  // smallest and largest x so far, where somebody wants to know
};

struct PlanesTable {
    int64_t lanes;
    // 3 x 3 taps [9][channels] of three rows that point at the first pixel and may be read `dilation` pixels beyond.
    void (*depthwise)(const float* const* rows, const float* taps, int64_t channels, int64_t dilation, int64_t pixels, float* out);
    void (*mix)(const Mix& of, int64_t pixels);
    // out = max(0, scale x + shift)
    void (*line)(const float* x, int64_t pixels, int64_t channels, const float* scale, const float* shift, float* out);
    // Largest of 2 x 2 pixels.
    void (*pool)(const float* above, const float* below, int64_t pixels, int64_t channels, float* out);
    // out[2 p + i] = max(0, coarse[p] + scale skip[2 p + i]), i 0 and 1; skip + ahead is asked for.
    void (*join)(const float* coarse, const float* skip, const float* scale, int64_t ahead, int64_t pixels, int64_t channels,
                 float* out);
    // The same as line and depthwise for one plane of an image; taps [9][tap_stride].
    void (*plane_line)(const float* x, int64_t pixels, float scale, float shift, float* out);
    void (*plane_taps)(const float* const* rows, const float* taps, int64_t tap_stride, int64_t dilation, int64_t pixels, float* out);
    // out[head][p] = bias[head] + sum over k of x[p][k] weights[k][head]; `columns` is a register's width.
    void (*heads)(const float* x, int64_t pixels, int64_t channels, const float* weights, const float* bias, int64_t heads,
                  int64_t plane_size, float* out);
};

extern const PlanesTable planes_plain;
#if defined(APRCNN_X86_VARIANTS)
extern const PlanesTable planes_avx2;
extern const PlanesTable planes_avx512;
#endif

// The table that goes with the instruction set that was chosen.
const PlanesTable& planes_table();

// --- blocks ------------------------------------------------------------------------------------------------------------

// A pointwise convolution; weights and bias as in Mix.
struct Pointwise {
    const float* weights = nullptr;
    const float* bias = nullptr;
    int64_t channels = 0, columns = 0;
    const uint16_t* halves = nullptr;  // as in Mix
    Bytes bytes = {};
    float* seen = nullptr;
};

// A depthwise 3 x 3 convolution, zero outside the image, then a pointwise one.
struct Separable {
    const float* taps = nullptr;
    int64_t dilation = 1;
    Pointwise mix;
};

enum class Source { direct, doubled, planes };

// out = second(max(0, first(max(0, scale source + shift)) + add add_scale)) + residual
struct PairBlock {
    const float* x = nullptr;  // [.][.][channels]: the block's size or half of it; or [channels][height][width]
    int64_t channels = 0;      // of the source: whole registers, but for planes
    Source source = Source::direct;
    const float* scale = nullptr;
    const float* shift = nullptr;
    Separable first, second;
    const float* add = nullptr;  // [height][width][columns], or null
    const float* add_scale = nullptr;
    bool identity = false;   // the source is added
    Pointwise projection;    // or its projection is, where there are weights
    int64_t height = 0, width = 0;
    // A head takes the place of the result: planes of max(0, head_scale result + head_shift) mixed to few channels.
    Pointwise head;
    const float* head_scale = nullptr;
    const float* head_shift = nullptr;
    int64_t heads = 0;
    float* out = nullptr;     // [height][width][columns], or [heads][height][width]
    float* pooled = nullptr;  // [height / 2][width / 2][columns]: the largest of 2 x 2 results, too; or null
};

// Rows first..last-1 of the result.
void run_pair(const PairBlock& block, int64_t first, int64_t last, int threads);

// A decoder without residuals, scale by scale from the coarsest: t = max(0, up(depthwise(t before)) + shift + skip add_scale),
// `up` being a pointwise convolution whose columns are the 2 x 2 pixels of the finer scale: one Pointwise for each of its
// rows, columns [pixel][channel].
struct PlainScale {
    const float* skip = nullptr;      // [height][width][channels]
    const float* add_scale = nullptr;  // [2 x channels]; of the coarsest scale [channels]
    const float* shift = nullptr;      // of the coarsest scale [channels]; else null: it is in the bias of `up`
    const float* taps = nullptr;
    Pointwise up[2];  // from this scale to the finer one; not of the finest. Doubled: one, to its channels
    int64_t channels = 0;
};

struct PlainDecoder {
    PlainScale scale[4];  // 0 is the finest
    bool doubled = false;  // the 2 x 2 pixels of the finer scale are alike: `up` is computed once
    Pointwise last;       // of the finest scale, with its ReLU
    Pointwise head;
    int64_t heads = 0;
    int64_t height = 0, width = 0;
    float* out = nullptr;  // [heads][height][width]
};

void run_plain_decoder(const PlainDecoder& net, int64_t first, int64_t last, int threads);

// out [2 height][2 width][columns / 2]: a transposed convolution of kernel 2 and stride 2.
struct Up {
    const float* x = nullptr;  // [height][width][channels]
    int64_t height = 0, width = 0;
    Pointwise rows[2];               // the upper and the lower of 2 x 2 pixels
    const float* add = nullptr;       // as out, or null
    const float* add_scale = nullptr;  // [columns]
    bool relu = false;
    float* out = nullptr;
};

void run_up(const Up& of, int threads);

}  // namespace aprcnn
