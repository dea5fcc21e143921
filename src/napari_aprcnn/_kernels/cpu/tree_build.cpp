#include "tree_build.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "parallel.hpp"

namespace aprcnn {

namespace {

// Work is cut by z planes, and along y too where there are few planes.
struct Strips {
    int64_t planes, rows, cut, per;
    Strips(int64_t nz, int64_t ny) : planes(nz), rows(ny), cut(nz >= 16 ? 1 : std::min<int64_t>(16, ny)), per(0) {
        per = (ny + cut - 1) / cut;
    }
    int64_t count() const { return planes * cut; }
    int64_t z(int64_t i) const { return i / cut; }
    int64_t first(int64_t i) const { return std::min(rows, (i % cut) * per); }
    int64_t last(int64_t i) const { return std::min(rows, (i % cut + 1) * per); }
};

void reduce_row(const uint8_t* const* from, int sources, int64_t n, uint8_t* to) {
    for (int64_t x = 0; x < n; x += 2) {
        uint8_t best = 0;
        for (int s = 0; s < sources; ++s) {
            best = std::max(best, from[s][x]);
            if (x + 1 < n) best = std::max(best, from[s][x + 1]);
        }
        to[x / 2] = best;
    }
}

}  // namespace

LevelPyramid::LevelPyramid(const uint8_t* levels, const int64_t* shape, int64_t level_max, int threads)
    : levels_(levels), shape_{shape[0], shape[1], shape[2]}, top_(level_max - 1), coarse_(level_max) {
    for (int64_t level = top_ - 1; level >= 0; --level) {
        const int64_t nz = dim(0, level), ny = dim(1, level), nx = dim(2, level);
        const int64_t fz = dim(0, level + 1), fy = dim(1, level + 1), fx = dim(2, level + 1);
        coarse_[level].resize(nz * ny * nx);
        const uint8_t* fine = at(level + 1);
        uint8_t* out = coarse_[level].data();
        parallel_for(nz, nz * ny * nx > 4096 ? threads : 1, [&](int64_t z, int, const StopFlag&) {
            for (int64_t y = 0; y < ny; ++y) {
                const uint8_t* sources[4];
                int count = 0;
                for (int64_t dz = 0; dz < 2; ++dz)
                    for (int64_t dy = 0; dy < 2; ++dy)
                        if (2 * z + dz < fz && 2 * y + dy < fy)
                            sources[count++] = fine + ((2 * z + dz) * fy + 2 * y + dy) * fx;
                reduce_row(sources, count, fx, out + (z * ny + y) * nx);
            }
        });
    }
}

namespace {

// One row of a level: calls take(x) for every cell of it that is a particle, or a node.
template <class Take>
void visit_row(const LevelPyramid& pyramid, bool nodes, int64_t level, int64_t z, int64_t y, const Take& take) {
    if (level == pyramid.level_max()) {  // voxels: their cells are one level up
        const int64_t nx = pyramid.dim(2, level), cells = pyramid.dim(2, level - 1);
        const uint8_t* row = pyramid.at(level - 1) + ((z >> 1) * pyramid.dim(1, level - 1) + (y >> 1)) * cells;
        for (int64_t x = 0; x < cells; ++x) {
            if (row[x] != level) continue;
            take(2 * x);
            if (2 * x + 1 < nx) take(2 * x + 1);
        }
        return;
    }
    const int64_t nx = pyramid.dim(2, level);
    const uint8_t* row = pyramid.at(level) + (z * pyramid.dim(1, level) + y) * nx;
    if (nodes) {
        for (int64_t x = 0; x < nx; ++x)
            if (row[x] > level) take(x);
    } else {
        for (int64_t x = 0; x < nx; ++x)
            if (row[x] == level) take(x);
    }
}

}  // namespace

OwnedRows build_rows(const LevelPyramid& pyramid, bool nodes, int threads) {
    const int64_t levels = pyramid.level_max() + (nodes ? 0 : 1);
    OwnedRows rows;
    rows.level_rows.assign(levels + 1, 0);
    for (int64_t l = 0; l < levels; ++l)
        rows.level_rows[l + 1] = rows.level_rows[l] + pyramid.dim(0, l) * pyramid.dim(1, l);
    rows.offsets.assign(rows.level_rows[levels] + 1, 0);
    const auto each_row = [&](const auto& work) {
        for (int64_t l = nodes ? 0 : 1; l < levels; ++l) {
            const Strips strips(pyramid.dim(0, l), pyramid.dim(1, l));
            const int team = rows.level_rows[l + 1] - rows.level_rows[l] > 256 ? threads : 1;
            parallel_for(strips.count(), team, [&](int64_t i, int, const StopFlag&) {
                for (int64_t y = strips.first(i); y < strips.last(i); ++y)
                    work(l, strips.z(i), y, rows.level_rows[l] + strips.z(i) * strips.rows + y);
            });
        }
    };
    each_row([&](int64_t l, int64_t z, int64_t y, int64_t row) {
        int64_t count = 0;
        visit_row(pyramid, nodes, l, z, y, [&](int64_t) { ++count; });
        rows.offsets[row + 1] = count;
    });
    for (size_t r = 1; r < rows.offsets.size(); ++r) rows.offsets[r] += rows.offsets[r - 1];
    rows.x.resize(rows.offsets.back());
    each_row([&](int64_t l, int64_t z, int64_t y, int64_t row) {
        uint16_t* to = rows.x.data() + rows.offsets[row];
        visit_row(pyramid, nodes, l, z, y, [&](int64_t x) { *to++ = static_cast<uint16_t>(x); });
    });
    return rows;
}

bool find_jump(const LevelPyramid& pyramid, int64_t* where, int threads) {
    for (int64_t level = pyramid.level_max() - 1; level >= 1; --level) {
        const int64_t nz = pyramid.dim(0, level), ny = pyramid.dim(1, level), nx = pyramid.dim(2, level);
        const uint8_t* cells = pyramid.at(level);
        const bool top = level == pyramid.level_max() - 1;
        std::vector<int64_t> first(nz, -1);
        parallel_for(nz, threads, [&](int64_t z, int, const StopFlag&) {
            for (int64_t y = 0; y < ny && first[z] < 0; ++y) {
                for (int64_t x = 0; x < nx && first[z] < 0; ++x) {
                    const int64_t here = cells[(z * ny + y) * nx + x];
                    if (here != level && !(top && here == level + 1)) continue;
                    for (int64_t c = std::max<int64_t>(z - 1, 0); c <= std::min(z + 1, nz - 1); ++c)
                        for (int64_t b = std::max<int64_t>(y - 1, 0); b <= std::min(y + 1, ny - 1); ++b)
                            for (int64_t a = std::max<int64_t>(x - 1, 0); a <= std::min(x + 1, nx - 1); ++a)
                                if (cells[(c * ny + b) * nx + a] + 1 < here) first[z] = y * nx + x;
                }
            }
        });
        for (int64_t z = 0; z < nz; ++z) {
            if (first[z] < 0) continue;
            where[0] = level;
            where[1] = z;
            where[2] = first[z] / nx;
            where[3] = first[z] % nx;
            return true;
        }
    }
    return false;
}

int64_t paint_levels(const Tree& tree, uint8_t* levels) {
    const int64_t top = tree.level_max - 1;
    const int64_t nz = tree.dim(0, top), ny = tree.dim(1, top), nx = tree.dim(2, top);
    std::memset(levels, 0, static_cast<size_t>(nz * ny * nx));
    std::vector<uint8_t> voxels(nz * ny * nx, 0);  // how many voxels of a cell are particles
    int64_t bad = 0;
    for (int64_t l = 1; l <= tree.level_max; ++l) {
        const int64_t rows = tree.dim(1, l), shift = l > top ? 0 : top - l;
        for (int64_t r = tree.particles.level_rows[l]; r < tree.particles.level_rows[l + 1]; ++r) {
            const int64_t local = r - tree.particles.level_rows[l];
            const int64_t z = local / rows, y = local % rows;
            for (int64_t i = tree.particles.offsets[r]; i < tree.particles.offsets[r + 1]; ++i) {
                const int64_t x = tree.particles.x[i];
                if (x >= tree.dim(2, l)) {  // rows may come from a file
                    ++bad;
                    continue;
                }
                if (l > top) {
                    const int64_t cell = ((z >> 1) * ny + (y >> 1)) * nx + (x >> 1);
                    bad += voxels[cell] == 0 ? levels[cell] != 0 : 0;
                    levels[cell] = static_cast<uint8_t>(l);
                    ++voxels[cell];
                    continue;
                }
                for (int64_t c = z << shift; c < std::min((z + 1) << shift, nz); ++c)
                    for (int64_t b = y << shift; b < std::min((y + 1) << shift, ny); ++b)
                        for (int64_t a = x << shift; a < std::min((x + 1) << shift, nx); ++a) {
                            uint8_t& cell = levels[(c * ny + b) * nx + a];
                            bad += cell != 0;
                            cell = static_cast<uint8_t>(l);
                        }
            }
        }
    }
    for (int64_t c = 0; c < nz; ++c)
        for (int64_t b = 0; b < ny; ++b)
            for (int64_t a = 0; a < nx; ++a) {
                const int64_t cell = (c * ny + b) * nx + a;
                const int64_t inside = std::min<int64_t>(2, tree.shape[0] - 2 * c) *
                                       std::min<int64_t>(2, tree.shape[1] - 2 * b) *
                                       std::min<int64_t>(2, tree.shape[2] - 2 * a);
                bad += levels[cell] == 0 || (levels[cell] == tree.level_max && voxels[cell] != inside);
            }
    return bad;
}

}  // namespace aprcnn
