// Convolution 3 x 3 x 3 of rows in blocks of siblings: by minimal filtering where blocks, or cubes of them, are full, else tap by tap. What lies
// around a block takes the place of a neighbour table of eight times its size, a second source of channels that of a concatenation.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <set>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "block_patches.hpp"
#include "conv.hpp"
#include "conv_blocks.hpp"
#include "conv_packed.hpp"
#include "halves.hpp"
#include "parallel.hpp"
#include "particles.hpp"

namespace aprcnn {

constexpr int64_t rows_together = 7 * 12;  // a multiple of the rows that the inner loops take at once; their taps stay in cache

// Where rows are written: as they lie, or, slots given, those of block b from slots[b] - base on, one after the other.
template <class O>
struct Target {
    O* out;
    const int32_t* slots = nullptr;
    int32_t base = 0;
};

// How rows are convolved, and what `first` and `last` of a task count: blocks tap by tap, blocks, single blocks, cubes.
enum class Way { plain, blocks, singles, cubes };
struct PatchTask {
    int64_t first, last, depth;
    Way way;
};

// The 27 taps of the row whose patch begins at `first`; four at a time, of which the next line overwrites the last.
inline void copy_taps(const int32_t* first, int32_t* to) {
    for (int line = 0; line < 8; ++line) std::memcpy(to + 3 * line, first + 16 * (line / 3) + 4 * (line % 3), 4 * sizeof(int32_t));
    std::memcpy(to + 24, first + 40, 3 * sizeof(int32_t));
}

// Four indices at a time.
inline void take_smaller(int32_t* to, const int32_t* from) {
    int32_t four[4], there[4];
    std::memcpy(four, from, sizeof four);
    std::memcpy(there, to, sizeof there);
    for (int x = 0; x < 4; ++x) four[x] = std::min(four[x], there[x]);
    std::memcpy(to, four, sizeof four);
}

inline const TileTable<float>& tiles_of(const ConvTable& table, const float*) { return table.tiles; }
inline const TileTable<uint16_t>& tiles_of(const ConvTable& table, const uint16_t*) { return table.half_tiles; }

template <class T, class O>
class PatchRun {
  public:
    PatchRun(const ConvSource<T>* sources, int source_count, StageSize size, const float* weight, KernelShape kernel,
             const float* bias, const PatchTable& table)
        : conv_(conv_table()), tiles_(tiles_of(conv_, sources[0].features)), sources_(sources), count_(source_count), size_(size), weight_(weight), kernel_(kernel),
          inside_{kernel.in, sources[0].channels}, table_(table), patches_(table, size) {
        cut_columns(conv_, kernel.out, blocks_);
        bias_.assign(blocks_.padded(), 0.0f);
        nothing_ = bias_;
        if (bias != nullptr) std::copy(bias, bias + kernel.out, bias_.begin());
        if (kernel.in == 1) joined_ = joined_rows(sources[0].features, sources[0].tree, sources[0].size);
        int64_t before = 0;
        for (int s = 0; s < count_; ++s) {
            const ConvSource<T>& source = sources[s];
            const T* features = joined_.empty() ? source.features : joined_.data();
            const T* tree = joined_.empty() ? source.tree : joined_.data() + source.size.rows;
            from_.emplace_back(features, tree, source.size.rows, source.channels);
            KernelShape own = kernel;
            own.in = source.channels;
            packed_.emplace_back(weight + before * kernel.taps, own, blocks_, false, kernel.in);
            before += source.channels;
        }
    }
    PatchRun(const PatchRun&) = delete;
    PatchRun& operator=(const PatchRun&) = delete;

    bool filters() const { return std::is_same<T, O>::value && fits_blocks(kernel_, inside_); }

    void prepare(const std::vector<PatchTask>& tasks, int threads) {
        std::set<int64_t> plain;
        for (const PatchTask& task : tasks) {
            if (task.depth < 0 || task.depth >= kernel_.depths) throw std::invalid_argument("a segment is deeper than the weights");
            if (task.way == Way::plain)
                plain.insert(task.depth);
            else
                filters_[{task.way == Way::cubes ? Tile::cube : Tile::block, task.depth}];
        }
        for (Packed& one : packed_) one.prepare(plain, threads);
        std::vector<std::pair<Tile, int64_t>> wanted;
        for (const auto& one : filters_) wanted.push_back(one.first);
        parallel_for(static_cast<int64_t>(wanted.size()), threads, [&](int64_t i, int, const StopFlag&) {
            const float* own = weight_ + wanted[i].second * kernel_.out * kernel_.in * kernel_.taps;
            filters_.at(wanted[i]) = filtered_weights(own, kernel_, inside_, blocks_, wanted[i].first);
        });
    }

    void forget() {
        filters_.clear();
        for (Packed& one : packed_) one.forget();
    }
    // Of one depth.
    int64_t weight_bytes(Way way) const {
        const int64_t products = way == Way::plain ? kernel_.taps : products_of(way == Way::cubes ? Tile::cube : Tile::block);
        return products * kernel_.in * blocks_.padded() * static_cast<int64_t>(sizeof(float));
    }

    int64_t scratch() const {
        const int64_t plain = count_ * rows_together * kernel_.out + 16;
        if (!filters()) return plain;
        return std::max({plain, filter_scratch(kernel_, blocks_, Tile::block), filter_scratch(kernel_, blocks_, Tile::cube)});
    }

    // Blocks or cubes, some together; the next ones are looked up before, so that the processor can fetch what they will read.
    void filtered(const PatchTask& task, const Target<O>& target, float* room) const {
        const bool cubes = task.way == Way::cubes;
        const int64_t together = cubes ? cubes_together : blocks_together;
        const auto run = cubes ? tiles_.cubes : tiles_.blocks;
        const float* weights = filters_.at({cubes ? Tile::cube : Tile::block, task.depth}).data();
        Gathered some[2] = {{cubes, together}, {cubes, together}};
        gather(task, task.first, target, some[0]);
        for (int64_t first = task.first, turn = 0; first < task.last; first += together, turn ^= 1) {
            gather(task, first + together, target, some[turn ^ 1]);
            if constexpr (std::is_same<T, O>::value)
                run(from_.data(), count_, some[turn].patches(), some[turn ^ 1].patches(), blocks_, weights, bias_.data(),
                    kernel_.out, target.out, room);
        }
    }

    void plain(const PatchTask& task, const Target<O>& target, float* room) const {
        std::vector<int32_t> taps(27 * rows_together), rows(rows_together);
        int64_t held = 0;
        for (int64_t block = task.first; block < task.last; ++block) {
            int32_t patch[64];
            patches_.find(block, patch);
            int32_t here[8];
            rows_of(block, target, here);
            for (int child = 0; child < 8; ++child) {
                if (here[child] < 0) continue;
                copy_taps(patch + 16 * (child / 4) + 4 * (child / 2 % 2) + child % 2, taps.data() + 27 * held);
                rows[held++] = here[child];
                if (held < rows_together) continue;
                plain_rows(task.depth, taps, rows, held, target.out, room);
                held = 0;
            }
        }
        plain_rows(task.depth, taps, rows, held, target.out, room);
    }

  private:
    // Patches that are convolved together, and the rows in them.
    struct Gathered {
        Gathered(bool cubes, int64_t together)
            : patch(cubes ? 216 : 64), block(cubes ? 64 : 8), own(patch * together), mapped(own.size()), rows(block * together) {}
        Patches patches() const { return {{own.data(), mapped.data()}, rows.data(), count}; }
        int64_t patch, block, count = 0;
        std::vector<int32_t> own, mapped, rows;
    };
    void gather(const PatchTask& task, int64_t first, const Target<O>& target, Gathered& to) const {
        const bool cubes = task.way == Way::cubes;
        const int64_t together = cubes ? cubes_together : blocks_together;
        to.count = std::max<int64_t>(0, std::min(together, task.last - first));
        for (int64_t i = first + together; i < std::min(task.last, first + 2 * together); ++i) ask_for_tables(task.way, i);
        for (int64_t b = 0; b < to.count; ++b) {
            int32_t* rows = to.rows.data() + to.block * b;
            if (cubes) {
                join_blocks(table_.cubes + 8 * (first + b), target, to.own.data() + 216 * b, rows);
                continue;
            }
            const int64_t block = task.way == Way::singles ? table_.singles[first + b] : first + b;
            rows_of(block, target, rows);
            patches_.find(block, to.own.data() + 64 * b);
        }
        if (count_ > 1)
            for (int64_t i = 0; i < to.patch * to.count; ++i) to.mapped[i] = sources_[1].places[to.own[i]];
    }
    // The patch of a cube from those of its blocks, which overlap: a position is outside where no row of any block needs it.
    void join_blocks(const int32_t* cube, const Target<O>& target, int32_t* patch, int32_t* rows) const {
        std::fill_n(patch, 216, patches_.outside());
        std::fill_n(rows, 64, -1);
        for (int octant = 0; octant < 8; ++octant) {
            if (cube[octant] < 0) continue;
            const int z0 = 2 * (octant / 4), y0 = 2 * (octant / 2 % 2), x0 = 2 * (octant % 2);
            int32_t own[64];
            patches_.find(cube[octant], own);
            // Nothing is larger than outside.
            for (int line = 0; line < 16; ++line) take_smaller(patch + 36 * (z0 + line / 4) + 6 * (y0 + line % 4) + x0, own + 4 * line);
            int32_t here[8];
            rows_of(cube[octant], target, here);
            for (int child = 0; child < 8; ++child)
                rows[16 * (z0 + child / 4) + 4 * (y0 + child / 2 % 2) + x0 + child % 2] = here[child];
        }
    }
    // Where a block's rows are written; -1 where there is none.
    void rows_of(int64_t block, const Target<O>& target, int32_t* rows) const {
        const int32_t* here = patches_.children_of(block);
        int32_t slot = target.slots == nullptr ? 0 : target.slots[block] - target.base;
        for (int child = 0; child < 8; ++child) {
            const bool there = patches_.is_row(here[child]);
            rows[child] = !there ? -1 : target.slots == nullptr ? here[child] : slot++;
        }
    }
    // The tables of a block or a cube that comes later.
    void ask_for_tables(Way way, int64_t index) const {
        if (way != Way::cubes) return patches_.ask_for(way == Way::singles ? table_.singles[index] : index);
        for (int octant = 0; octant < 8; ++octant)
            if (table_.cubes[8 * index + octant] >= 0) patches_.ask_for(table_.cubes[8 * index + octant]);
    }

    void plain_rows(int64_t depth, std::vector<int32_t>& taps, const std::vector<int32_t>& rows, int64_t count, O* out, float* room) const {
        for (int s = 0; s < count_; ++s) {
            if (s > 0)
                for (int64_t i = 0; i < 27 * count; ++i) taps[i] = sources_[s].places[taps[i]];
            float* to = room + s * rows_together * kernel_.out;
            sum_taps(from_[s], taps, count, packed_[s].at(depth), s == 0 ? bias_.data() : nothing_.data(), to);
        }
        const float* second = room + rows_together * kernel_.out;
        for (int64_t i = 0; i < count; ++i) {
            O* to = out + rows[i] * kernel_.out;
            const float* one = room + i * kernel_.out;
            const float* two = second + i * kernel_.out;
            if (count_ > 1)
                for (int64_t c = 0; c < kernel_.out; ++c) narrow(one[c] + two[c], to + c);
            else
                for (int64_t c = 0; c < kernel_.out; ++c) narrow(one[c], to + c);
        }
    }

    void sum_taps(const Rows2& from, const std::vector<int32_t>& taps, int64_t count, const float* weights, const float* bias,
                  float* to) const {
        conv_.forward(from, {taps.data(), 27}, blocks_, weights, bias, kernel_.out, 0, count, to);
    }
    // Rows of half the size are brought to float, each as often as a tap reads it.
    void sum_taps(const RowsOf<uint16_t>& from, const std::vector<int32_t>& taps, int64_t count, const float* weights,
                  const float* bias, float* to) const {
        constexpr int64_t some = 12;
        std::vector<float> wide((27 * some + 1) * from.channels, 0.0f);
        std::vector<int32_t> own(27 * some);
        std::iota(own.begin(), own.end(), 0);
        const Rows2 near(wide.data(), wide.data() + 27 * some * from.channels, 27 * some, from.channels);
        for (int64_t first = 0; first < count; first += some) {
            const int64_t now = std::min(some, count - first);
            tiles_.widen(from, taps.data() + 27 * first, 27 * now, wide.data());
            conv_.forward(near, {own.data(), 27}, blocks_, weights, bias, kernel_.out, 0, now, to + first * kernel_.out);
        }
    }

    const ConvTable& conv_;
    const TileTable<T>& tiles_;
    const ConvSource<T>* sources_;
    int count_;
    StageSize size_;
    const float* weight_;
    KernelShape kernel_;
    Inside inside_;
    PatchTable table_;
    BlockPatches patches_;
    Blocks blocks_;
    std::vector<float> bias_, nothing_;
    std::vector<T> joined_;
    std::vector<RowsOf<T>> from_;
    std::vector<Packed> packed_;
    std::map<std::pair<Tile, int64_t>, AlignedFloats> filters_;  // of the depths with full blocks or cubes
};

}  // namespace aprcnn
