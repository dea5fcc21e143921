// Particle layers on float32 features, channels last; where T is said also on bfloat16, uint16_t, with sums in float32. The tables are explained in docs/particles.md.
#pragma once

#include <cstdint>

namespace aprcnn {

// Sizes of one stage: feature rows, tree rows.
struct StageSize {
    int64_t rows;
    int64_t tree_rows;
};

struct KernelShape {
    int64_t in, out, taps, depths;
};

// segments [count][3]: first row, last row + 1, depth.
struct Segments {
    const int64_t* data;
    int64_t count;
};

// weight [depths][out][in][taps]; bias [out] or null; tree [tree_rows + 1][in] with a last row of zeros.
void conv_forward(const float* features, const float* tree, StageSize size, const float* weight, KernelShape kernel,
                  const float* bias, const int32_t* table, Segments segments, float* out, int threads);

// Where input channels come from: features [rows][channels] and tree [tree_rows + 1][channels] of a stage; places
// [rows + tree_rows + 1] of the stage that is convolved: the extended index here of each of its own, or null for the same stage.
template <class T>
struct ConvSource {
    const T *features, *tree;
    StageSize size;
    int64_t channels;
    const int32_t* places;
};

// Blocks of siblings: which tree rows they are [count], what lies around them on their own level [count][27], children [tree_rows][8]; cubes
// [cube_count][8] of blocks, or -1 where there is none, and single blocks, which are in no cube. Of every segment its first block, last
// block + 1, the rows in them, the cubes and the single blocks likewise [segments][7]. cuts [cut_count],
// ascending: blocks that begin two planes of blocks, from which no row reads further than the two planes before and behind.
struct PatchTable {
    const int32_t *nodes, *around;
    int64_t count;
    const int32_t *cubes, *singles;
    int64_t cube_count, single_count;
    const int32_t* children;
    const int64_t* ranges;
    const int64_t* cuts;
    int64_t cut_count;
};

// The same with a kernel 3 x 3 x 3 for features of one or two sources, whose channels follow one another. Rows that lie in full
// blocks or cubes take minimal filtering, a third to an eighth of the products and other roundings. float may come in and bfloat16 go
// out: then nothing is filtered. `out` may be the features of the first source: they are written over, with the same results.
template <class T, class O>
void conv_patches(const ConvSource<T>* sources, int source_count, StageSize size, const float* weight, KernelShape kernel,
                  const float* bias, const PatchTable& table, Segments segments, O* out, int threads);

// slabs [count][5]: phase, task, first row, last row + 1, depth. Phases run one after the other, and so do the slabs of one
// task; tasks of one phase never touch the same rows. So sums are made in one order, whatever the number of threads.
void conv_input(const float* grad, StageSize size, const float* weight, KernelShape kernel, const int32_t* table,
                const int64_t* slabs, int64_t slab_count, float* grad_features, float* grad_tree, int threads);

// grad_weight [depths][out][in][taps]. Partial sums over parts that do not depend on the number of threads.
void conv_weight(const float* features, const float* tree, StageSize size, const float* grad, KernelShape kernel,
                 const int32_t* table, Segments segments, float* grad_weight, int threads);

// Restriction of kernels [count][kz][ky][kx] by `steps` levels along each axis, or its transpose (the gradient), which adds
// to out. Sums are double, in one order.
void restrict_kernels(const float* kernels, int64_t count, const int64_t* size, int64_t steps, bool transposed, float* out,
                      int threads);

void column_sums(const float* values, int64_t rows, int64_t columns, float* out, int threads);

// children [tree_rows][8] of extended indices; ranges [count][2] of tree rows, children before parents.
template <class T>
void fill_tree(const T* features, StageSize size, int64_t channels, const int32_t* children, const int64_t* ranges,
               int64_t range_count, T* tree, int threads);
// grad_tree is used up: what a node gets from its parent is added to it. grad_features is written, or added to.
void fill_tree_back(float* grad_tree, StageSize size, int64_t channels, const int32_t* children, const int64_t* ranges,
                    int64_t range_count, float* grad_features, bool add, int threads);

// children [nodes][8]: feature rows, `rows` where missing; ranges [count][5]: first row in, first row out, rows copied,
// first node, nodes.
struct PoolTable {
    const int32_t* children;
    const int64_t* ranges;
    int64_t range_count;
    int64_t rows;   // of the finer stage
    int64_t nodes;  // of all ranges together
};
template <class T>
void pool(const T* features, int64_t channels, PoolTable table, T* out, uint8_t* slot, int threads);
void pool_back(const float* grad, const uint8_t* slot, int64_t channels, PoolTable table, float* grad_features, int threads);
void upsample(const float* features, int64_t channels, PoolTable table, float* out, int threads);
void upsample_back(const float* grad, int64_t channels, PoolTable table, float* grad_features, int threads);

}  // namespace aprcnn
