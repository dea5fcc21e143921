#include "tables.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "parallel.hpp"

namespace aprcnn {

namespace {

// Writes where the cells of row (level, z, y) are found to row[x]: particles and nodes of the level, and the particles one
// level coarser that cover it. Every position that a neighbour of a particle of this level can have is one of these.
void spread_row(const Stage& stage, int64_t level, int64_t z, int64_t y, int32_t* row) {
    const Tree& tree = *stage.tree;
    const int64_t nx = tree.dim(2, level);
    const Rows& particles = tree.particles;
    if (level > 1) {
        const int64_t r = particles.level_rows[level - 1] + (z >> 1) * tree.dim(1, level - 1) + (y >> 1);
        for (int64_t i = particles.offsets[r]; i < particles.offsets[r + 1]; ++i) {
            const int64_t x = 2 * static_cast<int64_t>(particles.x[i]);
            const auto value = static_cast<int32_t>(stage.places.feature_base + i);
            row[x] = value;
            if (x + 1 < nx) row[x + 1] = value;
        }
    }
    const int64_t at = z * tree.dim(1, level) + y;
    {
        const int64_t r = particles.level_rows[level] + at;
        for (int64_t i = particles.offsets[r]; i < particles.offsets[r + 1]; ++i)
            row[particles.x[i]] = static_cast<int32_t>(stage.places.feature_base + i);
    }
    if (level < tree.level_max) {
        const int64_t r = tree.nodes.level_rows[level] + at;
        const int64_t base = level == stage.finest
                                 ? stage.places.feature_base + stage.particle_count() - stage.first_node()
                                 : stage.places.tree_base;
        for (int64_t i = tree.nodes.offsets[r]; i < tree.nodes.offsets[r + 1]; ++i)
            row[tree.nodes.x[i]] = static_cast<int32_t>(base + i);
    }
}

// The rows around one row, written out and kept while the row moves along y.
class Window {
  public:
    // From `before` cells before the row to `behind` cells behind it, along z and y; `beside` cells of "outside" at both ends.
    Window(const Stage& stage, int64_t level, const int64_t* before, const int64_t* behind, int64_t beside)
        : stage_(stage), level_(level), before_{before[0], before[1]}, behind_{behind[0], behind[1]}, beside_(beside),
          nz_(stage.tree->dim(0, level)), ny_(stage.tree->dim(1, level)), width_(stage.tree->dim(2, level) + 2 * beside),
          slots_y_(before[1] + behind[1] + 1),
          buffer_((before[0] + behind[0] + 1) * slots_y_ * width_, static_cast<int32_t>(stage.places.outside)),
          empty_(width_, static_cast<int32_t>(stage.places.outside)),
          holds_((before[0] + behind[0] + 1) * slots_y_, -1) {}

    // Pointers to position -beside of the rows around (z, y), in order.
    void around(int64_t z, int64_t y, const int32_t** rows) {
        for (int64_t dz = -before_[0]; dz <= behind_[0]; ++dz)
            for (int64_t dy = -before_[1]; dy <= behind_[1]; ++dy) *rows++ = row(z + dz, y + dy, dz + before_[0]);
    }

  private:
    const int32_t* row(int64_t z, int64_t y, int64_t slot_z) {
        if (z < 0 || z >= nz_ || y < 0 || y >= ny_) return empty_.data();
        const int64_t slot = slot_z * slots_y_ + y % slots_y_;
        int32_t* data = buffer_.data() + slot * width_;
        if (holds_[slot] != z * ny_ + y) {
            spread_row(stage_, level_, z, y, data + beside_);
            holds_[slot] = z * ny_ + y;
        }
        return data;
    }

    const Stage& stage_;
    int64_t level_, before_[2], behind_[2], beside_, nz_, ny_, width_, slots_y_;
    std::vector<int32_t> buffer_, empty_;
    std::vector<int64_t> holds_;
};

template <int Width>
void copy_taps(const int32_t* const* rows, int64_t lines, int64_t width, const uint16_t* x, int64_t count, int32_t* out) {
    for (int64_t i = 0; i < count; ++i)
        for (int64_t line = 0; line < lines; ++line, out += (Width > 0 ? Width : width))
            std::memcpy(out, rows[line] + x[i], (Width > 0 ? Width : width) * sizeof(int32_t));
}

void write_taps(const int32_t* const* rows, int64_t lines, int64_t width, const uint16_t* x, int64_t count, int32_t* out) {
    if (width == 3) return copy_taps<3>(rows, lines, width, x, count, out);
    if (width == 5) return copy_taps<5>(rows, lines, width, x, count, out);
    copy_taps<0>(rows, lines, width, x, count, out);
}

// Runs of rows of about the same number of cells, a few times more than threads.
template <class Work>
void over_rows(int64_t rows, int threads, const Work& work) {
    const int64_t run = std::max<int64_t>(64, (rows + 63) / 64);
    const int64_t tasks = (rows + run - 1) / run;
    parallel_for(tasks, threads, [&](int64_t task, int, const StopFlag&) {
        work(task * run, std::min(rows, (task + 1) * run));
    });
}

}  // namespace

void neighbour_table(const Stage& stage, const int64_t* kernel, int32_t* out, int threads) {
    const Tree& tree = *stage.tree;
    const int64_t lines = kernel[0] * kernel[1], taps = lines * kernel[2];
    for (int64_t level = 1; level <= stage.finest; ++level) {
        const int64_t ny = tree.dim(1, level);
        over_rows(tree.dim(0, level) * ny, threads, [&](int64_t first, int64_t last) {
            const int64_t half[2] = {kernel[0] / 2, kernel[1] / 2};
            Window window(stage, level, half, half, kernel[2] / 2);
            std::vector<const int32_t*> rows(lines);
            for (int64_t at = first; at < last; ++at) {
                const int64_t r = tree.particles.level_rows[level] + at;
                const int64_t p = tree.particles.offsets[r], count = tree.particles.offsets[r + 1] - p;
                int64_t n = 0, nodes = 0;
                if (level == stage.finest && level < tree.level_max) {
                    const int64_t s = tree.nodes.level_rows[level] + at;
                    n = tree.nodes.offsets[s];
                    nodes = tree.nodes.offsets[s + 1] - n;
                }
                if (count + nodes == 0) continue;
                window.around(at / ny, at % ny, rows.data());
                write_taps(rows.data(), lines, kernel[2], tree.particles.x + p, count, out + p * taps);
                write_taps(rows.data(), lines, kernel[2], tree.nodes.x + n, nodes,
                           out + (stage.particle_count() + n - stage.first_node()) * taps);
            }
        });
    }
}

void around_table(const Stage& stage, const int32_t* blocks, int64_t block_count, int32_t* out, int threads) {
    const Tree& tree = *stage.tree;
    const int64_t one[2] = {1, 1};
    for (int64_t level = 0; level < stage.finest; ++level) {
        const int64_t ny = tree.dim(1, level), level_row = tree.nodes.level_rows[level];
        over_rows(tree.dim(0, level) * ny, threads, [&](int64_t first, int64_t last) {
            Window window(stage, level, one, one, 1);
            const int32_t* rows[9];
            const int32_t* block = std::lower_bound(blocks, blocks + block_count, tree.nodes.offsets[level_row + first]);
            for (int64_t at = first; at < last; ++at) {
                const int64_t end = tree.nodes.offsets[level_row + at + 1];
                if (block == blocks + block_count || *block >= end) continue;
                window.around(at / ny, at % ny, rows);
                for (; block != blocks + block_count && *block < end; ++block)
                    copy_taps<3>(rows, 9, 3, tree.nodes.x + *block, 1, out + 27 * (block - blocks));
            }
        });
    }
}

void children_table(const Stage& stage, int32_t* out, int threads) {
    const Tree& tree = *stage.tree;
    for (int64_t level = 0; level < stage.finest; ++level) {
        const int64_t ny = tree.dim(1, level), fz = tree.dim(0, level + 1), fy = tree.dim(1, level + 1);
        const int64_t fx = tree.dim(2, level + 1);
        over_rows(tree.dim(0, level) * ny, threads, [&](int64_t first, int64_t last) {
            std::vector<int32_t> row(fx + 1);
            for (int64_t at = first; at < last; ++at) {
                const int64_t r = tree.nodes.level_rows[level] + at;
                const int64_t n = tree.nodes.offsets[r], count = tree.nodes.offsets[r + 1] - n;
                if (count == 0) continue;
                for (int64_t part = 0; part < 4; ++part) {
                    const int64_t z = 2 * (at / ny) + part / 2, y = 2 * (at % ny) + part % 2;
                    const bool inside = z < fz && y < fy;
                    if (inside) spread_row(stage, level + 1, z, y, row.data());
                    for (int64_t i = n; i < n + count; ++i)
                        for (int64_t dx = 0; dx < 2; ++dx) {
                            const int64_t x = 2 * static_cast<int64_t>(tree.nodes.x[i]) + dx;
                            out[i * 8 + part * 2 + dx] =
                                inside && x < fx ? row[x] : static_cast<int32_t>(stage.places.outside);
                        }
                }
            }
        });
    }
}

void cells_table(const Stage& stage, int32_t* out, int threads) {
    const Tree& tree = *stage.tree;
    const auto write = [&](const Rows& rows, int64_t level, int64_t shift_rows) {
        const int64_t ny = tree.dim(1, level);
        over_rows(tree.dim(0, level) * ny, threads, [&, shift_rows, level, ny](int64_t first, int64_t last) {
            for (int64_t at = first; at < last; ++at) {
                const int64_t r = rows.level_rows[level] + at;
                for (int64_t i = rows.offsets[r]; i < rows.offsets[r + 1]; ++i) {
                    int32_t* cell = out + (i + shift_rows) * 4;
                    cell[0] = static_cast<int32_t>(at / ny);
                    cell[1] = static_cast<int32_t>(at % ny);
                    cell[2] = rows.x[i];
                    cell[3] = static_cast<int32_t>(stage.finest - level);
                }
            }
        });
    };
    for (int64_t level = 1; level <= stage.finest; ++level) write(tree.particles, level, 0);
    if (stage.finest < tree.level_max) write(tree.nodes, stage.finest, stage.particle_count() - stage.first_node());
}

}  // namespace aprcnn
