// Particle values: the mean over each cell's voxels, from the image as it lies in memory.
#include <cmath>
#include <stdexcept>
#include <type_traits>

#include "convert_values.hpp"
#include "convert_voxels.hpp"

namespace aprcnn {

namespace {

struct Piece {
    int64_t level, first, end;  // particles
};

constexpr int64_t work = 65536;  // voxels of a task, about

std::vector<Piece> pieces_of(const Rows& rows, int64_t level_max) {
    std::vector<Piece> out;
    for (int64_t level = 0; level < rows.levels; ++level) {
        const int64_t shift = std::min<int64_t>(3 * (level_max - level), 16);
        const int64_t some = std::max<int64_t>(8, work >> shift), end = rows.first(level + 1);
        for (int64_t i = rows.first(level); i < end; i += some) out.push_back({level, i, std::min(end, i + some)});
    }
    return out;
}

// One cell: voxels z0..z1-1, ...
struct Cell {
    int64_t z0, z1, y0, y1, x0, x1;
};

template <class V, class Out>
Out mean_value(const Source& source, const Cell& c) {
    using T = typename V::type;
    using Sum = std::conditional_t<std::is_same_v<Out, float>, double, int64_t>;
    Sum sum = 0;
    for (int64_t z = c.z0; z < c.z1; ++z) {
        for (int64_t y = c.y0; y < c.y1; ++y) {
            const char* from = source.at(z, y, c.x0);
            for (int64_t x = c.x0; x < c.x1; ++x, from += source.stride[2]) {
                const T value = voxel<T, V::swap>(from);
                if constexpr (std::is_same_v<T, Half>) {
                    sum += static_cast<Sum>(as_float(value));
                } else {
                    sum += static_cast<Sum>(value);
                }
            }
        }
    }
    const int64_t count = (c.z1 - c.z0) * (c.y1 - c.y0) * (c.x1 - c.x0);
    if constexpr (std::is_same_v<Out, float>) {
        return static_cast<float>(sum / static_cast<double>(count));
    } else {
        const int64_t whole = sum / count, twice = 2 * (sum % count);
        return static_cast<Out>(whole + (twice > count || (twice == count && whole % 2 != 0) ? 1 : 0));
    }
}

// The reference's value: means of eight, cut to the type at each level; an odd end counts twice.
template <class V, class Out>
Out repeated_mean(const Source& source, int64_t z, int64_t y, int64_t x, int64_t shift) {
    if (shift == 0) return static_cast<Out>(as_float(voxel<typename V::type, V::swap>(source.at(z, y, x))));
    const Shape below = coarser(source.shape, shift - 1);
    const bool dz = 2 * z + 1 < below.z, dy = 2 * y + 1 < below.y, dx = 2 * x + 1 < below.x;
    Out child[8];
    for (int i = 0; i < 8; ++i) {
        // Where there is no second child along an axis, the first is taken again.
        const int same = i & ((dz ? 4 : 0) | (dy ? 2 : 0) | (dx ? 1 : 0));
        child[i] = same != i ? child[same]
                             : repeated_mean<V, Out>(source, 2 * z + (i >> 2), 2 * y + ((i >> 1) & 1), 2 * x + (i & 1), shift - 1);
    }
    float sum = 0.0f;
    for (const Out value : child) sum += static_cast<float>(value);
    return static_cast<Out>(sum * 0.125f);
}

template <class V, class Out>
void fill_piece(const Source& source, const Rows& rows, int64_t level_max, const Piece& piece, bool repeated, Out* out) {
    const Shape& s = source.shape;
    const int64_t shift = level_max - piece.level, ny = coarser(s, shift).y;
    const int64_t* begin = rows.offsets + rows.level_rows[piece.level];
    const int64_t* end = rows.offsets + rows.level_rows[piece.level + 1];
    const int64_t* at = std::upper_bound(begin, end, piece.first) - 1;
    for (int64_t i = piece.first; i < piece.end; ++i) {
        while (at[1] <= i) ++at;
        const int64_t row = at - begin, z = row / ny, y = row % ny, x = rows.x[i];
        if ((x << shift) >= s.x) throw std::invalid_argument("a particle lies outside the image");
        if (repeated) {
            out[i] = repeated_mean<V, Out>(source, z, y, x, shift);
        } else {
            out[i] = mean_value<V, Out>(source, {z << shift, std::min(s.z, (z + 1) << shift), y << shift,
                                                 std::min(s.y, (y + 1) << shift), x << shift,
                                                 std::min(s.x, (x + 1) << shift)});
        }
    }
}

}  // namespace

bool sample_values(const Source& source, const Rows& rows, int64_t level_max, bool repeated, void* out, Job& job) {
    const std::vector<Piece> pieces = pieces_of(rows, level_max);
    return job.run(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
        const Piece& piece = pieces[static_cast<size_t>(i)];
        with_voxels(source, [&](auto type) {
            using V = decltype(type);
            using T = typename V::type;
            using Out = std::conditional_t<std::is_same_v<T, uint8_t> || std::is_same_v<T, uint16_t>, T, float>;
            fill_piece<V, Out>(source, rows, level_max, piece, repeated, static_cast<Out*>(out));
        });
    });
}

}  // namespace aprcnn
