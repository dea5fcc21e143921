// The pulling scheme: which cells become particles, from the wanted levels.
//
// V_l is the octant maximum of the wanted levels. A cell of level l is split where V_l > l within its 3x3x3 neighbourhood.
// An unsplit cell becomes its children where V_l = l (fine), else it is one particle.
#include "convert.hpp"

namespace aprcnn {

namespace {

constexpr int64_t rows_of_a_task = 64;

// V of the next coarser grid.
bool reduce_max(const uint8_t* fine, const Shape& s, uint8_t* out, Job& job) {
    const Shape c = coarser(s, 1);
    return job.run((c.z * c.y + rows_of_a_task - 1) / rows_of_a_task, [&](int64_t task) {
        for (int64_t r = task * rows_of_a_task; r < std::min(c.z * c.y, (task + 1) * rows_of_a_task); ++r) {
            const int64_t z0 = r / c.y * 2, y0 = r % c.y * 2, z1 = std::min(z0 + 1, s.z - 1), y1 = std::min(y0 + 1, s.y - 1);
            const uint8_t* rows[4] = {fine + (z0 * s.y + y0) * s.x, fine + (z0 * s.y + y1) * s.x,
                                      fine + (z1 * s.y + y0) * s.x, fine + (z1 * s.y + y1) * s.x};
            uint8_t* to = out + r * c.x;
            for (int64_t i = 0; i < c.x; ++i) {
                const int64_t a = 2 * i, b = std::min(a + 1, s.x - 1);
                uint8_t best = 0;
                for (const uint8_t* row : rows) best = std::max(best, std::max(row[a], row[b]));
                to[i] = best;
            }
        }
    });
}

// Largest V in the 3x3x3 neighbourhood of each cell of a row.
void near_row(const uint8_t* v, const Shape& s, int64_t z, int64_t y, uint8_t* APRCNN_NOALIAS across,
              uint8_t* APRCNN_NOALIAS out) {
    std::fill(across, across + s.x, uint8_t{0});
    for (int64_t zz = std::max<int64_t>(z - 1, 0); zz <= std::min(z + 1, s.z - 1); ++zz) {
        for (int64_t yy = std::max<int64_t>(y - 1, 0); yy <= std::min(y + 1, s.y - 1); ++yy) {
            const uint8_t* row = v + (zz * s.y + yy) * s.x;
            for (int64_t x = 0; x < s.x; ++x) across[x] = across[x] > row[x] ? across[x] : row[x];
        }
    }
    for (int64_t x = 0; x < s.x; ++x) {
        uint8_t best = across[x];
        if (x > 0) best = std::max(best, across[x - 1]);
        if (x + 1 < s.x) best = std::max(best, across[x + 1]);
        out[x] = best;
    }
}

// What covers each cell of level l: a particle's level, or 0 where the cell is split. `parent`: the same one level up.
bool settle(const uint8_t* v, const Shape& s, const uint8_t* parent, int level, bool top, bool optimise, uint8_t* out,
            Job& job) {
    const Shape up = coarser(s, 1);
    return job.run((s.z * s.y + rows_of_a_task - 1) / rows_of_a_task, [&](int64_t task) {
        std::vector<uint8_t> across(static_cast<size_t>(s.x)), nearby(static_cast<size_t>(s.x));
        const uint8_t here = static_cast<uint8_t>(level), finer = static_cast<uint8_t>(level + 1);
        for (int64_t r = task * rows_of_a_task; r < std::min(s.z * s.y, (task + 1) * rows_of_a_task); ++r) {
            const int64_t z = r / s.y, y = r % s.y;
            const uint8_t* own = v + r * s.x;
            const uint8_t* near_ = own;
            if (!top || !optimise) {
                near_row(v, s, z, y, across.data(), nearby.data());
                near_ = nearby.data();
            }
            const uint8_t* deciding = optimise ? own : near_;
            const uint8_t* above = parent == nullptr ? nullptr : parent + ((z / 2) * up.y + y / 2) * up.x;
            uint8_t* to = out + r * s.x;
            for (int64_t x = 0; x < s.x; ++x) {
                const uint8_t settled = above == nullptr ? uint8_t{0} : above[x / 2];
                const uint8_t mine = deciding[x] == here ? finer : here;
                const uint8_t split = !top && near_[x] > here ? uint8_t{0} : mine;
                to[x] = settled != 0 ? settled : split;
            }
        }
    });
}

}  // namespace

int64_t pyramid_size(const Shape& grid, int top) {
    int64_t total = 0;
    for (int level = top; level >= 1; --level) total += coarser(grid, top - level).size();
    return total;
}

bool pull(const uint8_t* wanted, const Shape& grid, int top, bool optimise, uint8_t* out, Job& job) {
    std::vector<std::vector<uint8_t>> v(static_cast<size_t>(top));
    const auto at = [&](int level) { return level == top ? wanted : v[static_cast<size_t>(level)].data(); };
    for (int level = top - 1; level >= 1; --level) {
        v[static_cast<size_t>(level)].resize(static_cast<size_t>(coarser(grid, top - level).size()));
        if (!reduce_max(at(level + 1), coarser(grid, top - level - 1), v[static_cast<size_t>(level)].data(), job))
            return false;
    }
    std::vector<uint8_t> parent, mine;
    for (int level = 1; level <= top; ++level) {
        const Shape s = coarser(grid, top - level);
        uint8_t* to = out;
        if (level < top) {
            mine.resize(static_cast<size_t>(s.size()));
            to = mine.data();
        }
        if (!settle(at(level), s, level == 1 ? nullptr : parent.data(), level, level == top, optimise, to, job))
            return false;
        parent.swap(mine);
    }
    return true;
}

namespace {

// Particles of the level `level` that `bad(z, y, x)` become their children. Returns their number, -1 if stopped.
template <class F>
int64_t split_where(uint8_t* levels, const Shape& grid, int top, int level, F&& bad, Job& job) {
    const int64_t shift = top - level;
    const Shape s = coarser(grid, shift);
    std::vector<int64_t> counts(static_cast<size_t>(s.z), 0);
    const bool going = job.run(s.z, [&](int64_t z) {
        for (int64_t y = 0; y < s.y; ++y) {
            const int64_t corner = ((z << shift) * grid.y + (y << shift)) * grid.x;
            for (int64_t x = 0; x < s.x; ++x) {
                if (levels[corner + (x << shift)] != level || !bad(z, y, x)) continue;
                ++counts[static_cast<size_t>(z)];
                const int64_t x1 = std::min(grid.x, (x + 1) << shift);
                for (int64_t zz = z << shift; zz < std::min(grid.z, (z + 1) << shift); ++zz)
                    for (int64_t yy = y << shift; yy < std::min(grid.y, (y + 1) << shift); ++yy)
                        std::fill(levels + (zz * grid.y + yy) * grid.x + (x << shift), levels + (zz * grid.y + yy) * grid.x + x1,
                                  static_cast<uint8_t>(level + 1));
            }
        }
    });
    if (!going) return -1;
    int64_t total = 0;
    for (const int64_t n : counts) total += n;
    return total;
}

// One sweep that splits whatever touches particles two or more levels finer, from the finest level on: splitting a cell
// can bring its coarser neighbours into that state. Returns how many were split.
int64_t balance(uint8_t* levels, const Shape& grid, int top, Job& job) {
    int64_t total = 0;
    std::vector<uint8_t> below, here, near_;
    for (int level = top - 1; level >= 1; --level) {
        // The finest level within each cell of this level and of the next finer one.
        const Shape fine = coarser(grid, top - level - 1), s = coarser(grid, top - level);
        const uint8_t* finest = level == top - 1 ? levels : below.data();
        near_.resize(static_cast<size_t>(fine.size()));
        const bool going = job.run(fine.z, [&](int64_t z) {
            std::vector<uint8_t> across(static_cast<size_t>(fine.x));
            for (int64_t y = 0; y < fine.y; ++y)
                near_row(finest, fine, z, y, across.data(), near_.data() + (z * fine.y + y) * fine.x);
        });
        if (!going) return -1;
        const int64_t n = split_where(levels, grid, top, level, [&](int64_t z, int64_t y, int64_t x) {
            for (int64_t zz = 2 * z; zz < std::min(fine.z, 2 * z + 2); ++zz)
                for (int64_t yy = 2 * y; yy < std::min(fine.y, 2 * y + 2); ++yy)
                    for (int64_t xx = 2 * x; xx < std::min(fine.x, 2 * x + 2); ++xx)
                        if (near_[static_cast<size_t>((zz * fine.y + yy) * fine.x + xx)] > level + 1) return true;
            return false;
        }, job);
        if (n < 0) return -1;
        total += n;
        // In what was split just now, `finest` of the finer grid is one too low, which makes no difference to S > level.
        here.resize(static_cast<size_t>(s.size()));
        if (!reduce_max(finest, fine, here.data(), job)) return -1;
        if (n > 0 && level < top - 1) {
            const int64_t shift = top - level;
            for (int64_t z = 0; z < s.z; ++z)
                for (int64_t y = 0; y < s.y; ++y)
                    for (int64_t x = 0; x < s.x; ++x) {
                        uint8_t& cell = here[static_cast<size_t>((z * s.y + y) * s.x + x)];
                        cell = std::max(cell, levels[((z << shift) * grid.y + (y << shift)) * grid.x + (x << shift)]);
                    }
        }
        below.swap(here);
    }
    return total;
}

}  // namespace

int refine(uint8_t* levels, const Shape& grid, int top, const uint8_t* fails, Job& job) {
    for (int round = 0;; ++round) {
        int64_t total = 0;
        const uint8_t* failed = fails + pyramid_size(grid, top);
        for (int level = 1; level <= top; ++level) {  // children are looked at next
            const Shape s = coarser(grid, top - level);
            failed -= s.size();
            const int64_t n = split_where(levels, grid, top, level, [&](int64_t z, int64_t y, int64_t x) {
                return failed[(z * s.y + y) * s.x + x] != 0;
            }, job);
            if (n < 0) return -1;
            total += n;
        }
        if (total == 0) return round;
        // A particle that is three levels too coarse needs two sweeps, ...
        int64_t split = 1;
        while (split > 0) split = balance(levels, grid, top, job);
        if (split < 0) return -1;
    }
}

}  // namespace aprcnn
