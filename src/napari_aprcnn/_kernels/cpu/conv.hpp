// Convolution over particles: an implicit matrix product that reads its input through an index table, no gather buffer.
#pragma once

#include <cstdint>

// What only asks for memory must be inlined: GCC takes a function of prefetches for one without effects and drops its calls.
#if defined(__clang__) || defined(__GNUC__)
#define APRCNN_ALWAYS __attribute__((always_inline))
#define APRCNN_INLINE APRCNN_ALWAYS inline
#else
#define APRCNN_ALWAYS
#define APRCNN_INLINE inline
#endif

namespace aprcnn {

// Extended rows: index e < rows is features[e], e < rows + tree_rows is tree[e - rows], larger is outside the image. The
// tree holds one row of zeros more, which is what outside reads.
template <class T>
struct RowsOf {
    const T* base[2];  // where row 0 would be: of the features, and of the extended rows that are the tree's
    int64_t rows;
    int64_t channels;
    RowsOf(const T* features, const T* tree, int64_t rows_, int64_t channels_)
        : base{features, tree - rows_ * channels_}, rows(rows_), channels(channels_) {}
    RowsOf from_channel(int64_t channel) const {
        RowsOf shifted = *this;
        shifted.base[0] += channel;
        shifted.base[1] += channel;
        return shifted;
    }
    bool joined() const { return base[0] == base[1]; }
    const T* at(int64_t index) const { return base[index >= rows ? 1 : 0] + index * channels; }
    // The same of many at once, as numbers: a loop without branches.
    void find(const int32_t* indices, int64_t count, const T** to) const {
        const uintptr_t first = reinterpret_cast<uintptr_t>(base[0]), second = reinterpret_cast<uintptr_t>(base[1]);
        const uintptr_t step = static_cast<uintptr_t>(channels) * sizeof(T);
        for (int64_t i = 0; i < count; ++i)
            to[i] = reinterpret_cast<const T*>((indices[i] >= rows ? second : first) + static_cast<uintptr_t>(indices[i]) * step);
    }
};
using Rows2 = RowsOf<float>;

struct Taps {
    const int32_t* table;  // [rows][count]
    int64_t count;
};

// Columns are cut into blocks of a few registers; a block's weights lie together: [block][tap][channel][width].
constexpr int max_blocks = 1024;
struct Blocks {
    int count = 0;
    int16_t width[max_blocks];
    int64_t padded() const {
        int64_t total = 0;
        for (int b = 0; b < count; ++b) total += width[b];
        return total;
    }
};

struct ColumnBlocks {
    int first, last;
};

constexpr int64_t blocks_together = 12;  // a multiple of every tile; more would not stay in cache with the weights
constexpr int64_t cubes_together = 6;
constexpr int64_t block_channels = 32;   // input channels that are summed at once where rows come in blocks

// Blocks or cubes that are convolved together: their extended indices in each source [count][64 or 216], and their rows
// [count][8 or 64], or -1.
struct Patches {
    const int32_t* indices[2];
    const int32_t* rows;
    int64_t count;
};

// Features are float, or bfloat16, of which the arithmetic is in float: uint16_t, the upper half of a float.
template <class T>
struct TileTable {
    // out[row][0..columns) = bias + sum over taps and channels of blocks of 2 x 2 x 2 rows whose channels come from one or two
    // sources; bias is padded, weights [64][pieces of channels][blocks][channel][width], see conv_blocks.hpp. What the next call will
    // read is asked for meanwhile.
    void (*blocks)(const RowsOf<T>* from, int sources, const Patches& now, const Patches& next, const Blocks& blocks,
                   const float* weights, const float* bias, int64_t columns, T* out, float* scratch);
    // The same of cubes of 4 x 4 x 4 rows; weights [216][...].
    void (*cubes)(const RowsOf<T>* from, int sources, const Patches& now, const Patches& next, const Blocks& blocks,
                  const float* weights, const float* bias, int64_t columns, T* out, float* scratch);
    // to[count][channels] = the rows at these extended indices.
    void (*widen)(const RowsOf<T>& from, const int32_t* indices, int64_t count, float* to);
};

struct PlaneFilter;

struct ConvTable {
    const char* name;
    // How `columns` output columns are cut for forward and input.
    void (*cut)(int64_t columns, Blocks& blocks);
    // out[row][0..columns) = bias + sum over taps and channels, rows first..last-1; bias is padded.
    void (*forward)(const Rows2& from, const Taps& taps, const Blocks& blocks, const float* weights, const float* bias,
                    int64_t columns, int64_t first, int64_t last, float* out);
    TileTable<float> tiles;
    TileTable<uint16_t> half_tiles;
    // Dense convolution of a plane; `nothing` are zeros, as many as channels.
    void (*plane)(const PlaneFilter& work, const Blocks& blocks, float* scratch, const float* nothing);
    // grad_features / grad_tree += the transposed product, in the columns of some blocks; nothing else may write to those of what
    // these rows' taps reach.
    void (*input)(const float* grad, int64_t grad_channels, const Taps& taps, const Blocks& blocks, ColumnBlocks which,
                  const float* weights, int64_t rows, int64_t tree_rows, int64_t channels, int64_t first, int64_t last,
                  float* grad_features, float* grad_tree, float* sink);
    // The same for up to 3 input channels; weights [grad_channels][padded], columns (tap, channel) padded to a multiple of
    // `few_pad`. The sink needs room for 16 rows of them.
    void (*input_few)(const float* grad, int64_t grad_channels, const Taps& taps, const float* weights, int64_t padded,
                      int64_t rows, int64_t tree_rows, int64_t channels, int64_t first, int64_t last, float* grad_features,
                      float* grad_tree, float* sink);
    int64_t few_pad;
    // sums[tap][channel][column] += x[channel] * grad[column] over the rows; columns, of `grad_stride` in a row of grad, are a
    // multiple of `pad`.
    int64_t pad;
    void (*weight)(const Rows2& from, const Taps& taps, const float* grad, int64_t grad_stride, int64_t columns, int64_t first,
                   int64_t last, float* sums);
};

extern const ConvTable conv_plain;
#if defined(APRCNN_X86_VARIANTS)
extern const ConvTable conv_avx2;
extern const ConvTable conv_avx512;
#endif

// The table that goes with the instruction set that was chosen (hot.hpp).
const ConvTable& conv_table();

}  // namespace aprcnn
