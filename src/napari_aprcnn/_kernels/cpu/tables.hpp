// Index tables of one pooling stage. See docs/particles.md for what the indices mean.
#pragma once

#include <cstdint>

#include "tree.hpp"

namespace aprcnn {

// Where an item of a batch stands among all rows: indices of a feature row and of a tree row are its own plus these.
struct Places {
    int64_t feature_base = 0;
    int64_t tree_base = 0;
    int64_t outside = 0;
};

struct Stage {
    const Tree* tree = nullptr;
    int64_t finest = 0;  // level m: the finest level of the stage
    Places places;

    int64_t particle_count() const { return tree->particles.offsets[tree->particles.level_rows[finest + 1]]; }
    int64_t first_node() const { return finest < tree->level_max ? tree->nodes.first(finest) : 0; }
    int64_t node_features() const {
        return finest < tree->level_max ? tree->nodes.first(finest + 1) - tree->nodes.first(finest) : 0;
    }
    int64_t rows() const { return particle_count() + node_features(); }
    int64_t tree_rows() const { return finest < tree->level_max ? first_node() : tree->nodes.count(); }
};

// out [rows][kz * ky * kx]
void neighbour_table(const Stage& stage, const int64_t* kernel, int32_t* out, int threads);
// out [block_count][27]: what lies around every block on its own level. blocks are ascending tree rows of this tree alone.
void around_table(const Stage& stage, const int32_t* blocks, int64_t block_count, int32_t* out, int threads);
// out [tree_rows][8]
void children_table(const Stage& stage, int32_t* out, int threads);
// out [rows][4]: z, y, x, shift to the grid of the finest level
void cells_table(const Stage& stage, int32_t* out, int threads);

}  // namespace aprcnn
