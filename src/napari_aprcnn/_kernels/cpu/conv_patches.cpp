// Which rows are convolved together, in which order, and where they are written: all at once, or, in place, wave after wave.
#include <algorithm>
#include <cstring>
#include <set>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "patch_run.hpp"

namespace aprcnn {

namespace {

// Of a chunk of weights; half as much where memory goes back to the system, in which they would add to the peak.
int64_t most_weight_bytes() { return int64_t{Reuse::active() && !keeps_memory() ? 4 : 8} << 20; }
constexpr int64_t wave_bytes = int64_t{3} << 19;  // of a wave's outputs, which stay in cache until they are written back
constexpr int64_t blocks_of_a_copy = 512;

// Every block lies in one cube of its segment or is one of its single blocks.
class Cover {
  public:
    explicit Cover(const PatchTable& table) : table_(table), seen_(table.count, 0) {}
    void add(const BlockRange& range) {
        for (int64_t c = range.first_cube; c < range.last_cube; ++c)
            for (int octant = 0; octant < 8; ++octant)
                if (table_.cubes[8 * c + octant] >= 0) see(range, table_.cubes[8 * c + octant]);
        for (int64_t s = range.first_single; s < range.last_single; ++s) see(range, table_.singles[s]);
        for (int64_t block = range.first; block < range.last; ++block)
            if (seen_[block] == 0) throw std::invalid_argument("a block is in no cube and not single");
    }

  private:
    void see(const BlockRange& range, int64_t block) {
        if (block < range.first || block >= range.last || seen_[block] != 0)
            throw std::invalid_argument("a block of a cube, or a single one, is of another segment or there twice");
        seen_[block] = 1;
    }
    const PatchTable& table_;
    std::vector<uint8_t> seen_;
};

// The blocks of every segment, which follow one another and are all there.
std::vector<BlockRange> ranges_of(const PatchTable& table, Segments segments) {
    std::vector<BlockRange> ranges;
    Cover cover(table);
    BlockRange before{};
    for (int64_t s = 0; s < segments.count; ++s) {
        const int64_t* own = table.ranges + 7 * s;
        const BlockRange range{own[0], own[1], own[2], own[3], own[4], own[5], own[6]};
        if (range.first != before.last || range.last < range.first || range.last > table.count)
            throw std::invalid_argument("the blocks of the segments do not follow one another");
        if (range.first_cube != before.last_cube || range.last_cube < range.first_cube || range.last_cube > table.cube_count ||
            range.first_single != before.last_single || range.last_single < range.first_single || range.last_single > table.single_count)
            throw std::invalid_argument("the cubes and single blocks of the segments do not follow one another");
        if (range.rows != segments.data[3 * s + 1] - segments.data[3 * s])
            throw std::invalid_argument("the rows of a segment are not those of its blocks");
        cover.add(range);
        before = range;
        ranges.push_back(range);
    }
    if (before.last != table.count) throw std::invalid_argument("a block belongs to no segment");
    return ranges;
}

// How a segment is convolved, and into how many blocks or cubes its tasks are cut: finely where few run before threads wait.
class Cutter {
  public:
    Cutter(bool filters, bool finely) : filters_(filters), share_(finely ? 4 : 1) {}
    // Tasks of part of a segment.
    void cut(const BlockRange& whole, const BlockRange& part, int64_t depth, std::vector<PatchTask>& tasks) const {
        if (!filters_ || !whole.filtered()) {
            add(part.first, part.last, 21 * blocks_together, depth, Way::plain, tasks);
        } else if (!whole.has_cubes()) {
            add(part.first, part.last, 8 * blocks_together, depth, Way::blocks, tasks);
        } else {
            add(part.first_cube, part.last_cube, 8 * cubes_together, depth, Way::cubes, tasks);
            add(part.first_single, part.last_single, 8 * blocks_together, depth, Way::singles, tasks);
        }
    }

  private:
    void add(int64_t first, int64_t last, int64_t step, int64_t depth, Way way, std::vector<PatchTask>& tasks) const {
        step /= share_;
        for (int64_t i = first; i < last; i += step) tasks.push_back({i, std::min(last, i + step), depth, way});
    }
    bool filters_;
    int64_t share_;
};

// Blocks that are convolved before any of their rows is written back.
struct Wave {
    int64_t first = 0, last = 0;
    std::vector<PatchTask> tasks;
};

// Waves of all segments, finest first: a level's rows read those of their own level, of the next coarser one, and means of finer ones, which
// lie apart. Within a level a wave ends where `cuts` has a block, so that its rows read no further than the waves before and behind it.
class Waves {
  public:
    Waves(const PatchTable& table, StageSize size, int64_t most_rows)
        : table_(table), patches_(table, size), most_rows_(most_rows), slots_(table.count + 1, 0) {
        for (int64_t block = 0; block < table.count; ++block) {
            const int32_t* here = patches_.children_of(block);
            int32_t rows = 0;
            for (int child = 0; child < 8; ++child) rows += static_cast<int32_t>(patches_.is_row(here[child]));
            slots_[block + 1] = slots_[block] + rows;
        }
    }

    void add(const BlockRange& range, int64_t depth, const Cutter& cutter) {
        if (range.first == range.last) return;
        const bool small = rows(range.first, range.last) <= most_rows_;
        // Small segments share a wave, as long as they follow one another.
        const bool joins = small && open_ && waves_.back().first == range.last && rows(range.first, waves_.back().last) <= most_rows_;
        open_ = small;
        if (small) {
            if (!joins) waves_.push_back({range.first, range.last, {}});
            waves_.back().first = range.first;
            cutter.cut(range, range, depth, waves_.back().tasks);
            return;
        }
        const int64_t* end = table_.cuts + table_.cut_count;
        const int64_t* cut = std::upper_bound(table_.cuts, end, range.first);
        for (int64_t first = range.first; first < range.last;) {
            int64_t last = cut == end ? range.last : std::min(range.last, *cut);
            for (; cut != end && *cut < range.last && rows(first, *cut) <= most_rows_; ++cut) last = *cut;
            if (cut != end && *cut == last) ++cut;
            if (last <= first) throw std::invalid_argument("expected ascending cuts");
            if ((cut == end || *cut >= range.last) && rows(first, range.last) <= most_rows_) last = range.last;
            waves_.push_back({first, last, {}});
            cutter.cut(range, part_of(range, first, last), depth, waves_.back().tasks);
            first = last;
        }
    }

    const std::vector<Wave>& all() const { return waves_; }
    const int32_t* slots() const { return slots_.data(); }
    int64_t rows(int64_t first, int64_t last) const { return slots_[last] - slots_[first]; }

    // Some blocks of a wave, from where they were written to where they belong.
    template <class O>
    void copy_back(const Wave& wave, int64_t part, const O* from, int64_t columns, O* to) const {
        const int64_t first = wave.first + part * blocks_of_a_copy, last = std::min(wave.last, first + blocks_of_a_copy);
        from += (slots_[first] - slots_[wave.first]) * columns;
        for (int64_t block = first; block < last; ++block) {
            const int32_t* here = patches_.children_of(block);
            for (int child = 0; child < 8; ++child) {
                if (!patches_.is_row(here[child])) continue;
                std::memcpy(to + here[child] * columns, from, columns * sizeof(O));
                from += columns;
            }
        }
    }

  private:
    BlockRange part_of(const BlockRange& range, int64_t first, int64_t last) const {
        BlockRange part = range;
        part.first = first;
        part.last = last;
        const auto highest = [&](int64_t cube) { return *std::max_element(table_.cubes + 8 * cube, table_.cubes + 8 * cube + 8); };
        const auto cube_from = [&](int64_t block) {
            int64_t low = range.first_cube, high = range.last_cube;
            while (low < high) {
                const int64_t middle = (low + high) / 2;
                (highest(middle) < block ? low : high) = highest(middle) < block ? middle + 1 : middle;
            }
            return low;
        };
        const auto single_from = [&](int64_t block) {
            return std::lower_bound(table_.singles + range.first_single, table_.singles + range.last_single, block) - table_.singles;
        };
        part.first_cube = cube_from(first);
        part.last_cube = cube_from(last);
        part.first_single = single_from(first);
        part.last_single = single_from(last);
        for (int64_t c = 8 * part.first_cube; c < 8 * part.last_cube; ++c)
            if (table_.cubes[c] >= 0 && (table_.cubes[c] < first || table_.cubes[c] >= last))
                throw std::invalid_argument("a cube lies on both sides of a cut");
        return part;
    }

    PatchTable table_;
    BlockPatches patches_;
    int64_t most_rows_;
    std::vector<int32_t> slots_;
    std::vector<Wave> waves_;
    bool open_ = false;
};

// The weights of all depths at once can be more than the features: those of only so many tasks are there at a time.
template <class Run>
class WeightsHeld {
  public:
    explicit WeightsHeld(const Run& run) : run_(run) {}
    // Whether these tasks' weights may be there beside the others'.
    bool add(const std::vector<PatchTask>& tasks) {
        auto with = keys_;
        int64_t bytes = bytes_;
        for (const PatchTask& task : tasks)
            if (with.insert({task.way, task.depth}).second) bytes += run_.weight_bytes(task.way);
        if (!keys_.empty() && bytes > most_weight_bytes() && with.size() > keys_.size()) return false;
        keys_ = std::move(with);
        bytes_ = bytes;
        return true;
    }

  private:
    const Run& run_;
    std::set<std::pair<Way, int64_t>> keys_;
    int64_t bytes_ = 0;
};

template <class Run, class O>
void do_task(const Run& run, const PatchTask& task, const Target<O>& target, AlignedFloats& room) {
    room.resize(run.scratch());
    if (task.way == Way::plain)
        run.plain(task, target, room.data());
    else
        run.filtered(task, target, room.data());
}

template <class Run, class O>
void run_apart(Run& run, const std::vector<PatchTask>& tasks, O* out, int threads) {
    std::vector<AlignedFloats> rooms(std::max(threads, 1) + 1);
    for (size_t first = 0; first < tasks.size();) {
        size_t last = first;
        for (WeightsHeld<Run> held(run); last < tasks.size() && held.add({tasks[last]}); ++last) {}
        const std::vector<PatchTask> some(tasks.begin() + static_cast<int64_t>(first), tasks.begin() + static_cast<int64_t>(last));
        run.prepare(some, threads);
        parallel_for(static_cast<int64_t>(some.size()), threads, [&](int64_t t, int worker, const StopFlag&) {
            do_task(run, some[t], Target<O>{out}, rooms.at(worker));
        });
        run.forget();
        first = last;
    }
}

// A wave is written apart, and back when the wave behind it is done, too: while the one behind that is convolved.
template <class Run, class O>
void run_in_place(Run& run, const Waves& waves, int64_t columns, O* out, int threads) {
    std::vector<AlignedFloats> rooms(std::max(threads, 1) + 1);
    const std::vector<Wave>& all = waves.all();
    std::vector<O> apart[3];
    const auto count = static_cast<int64_t>(all.size());
    int64_t prepared = 0;
    for (int64_t w = 0; w < count + 2; ++w) {
        if (w == prepared && w < count) {
            std::vector<PatchTask> some;
            for (WeightsHeld<Run> held(run); prepared < count && held.add(all[prepared].tasks); ++prepared)
                some.insert(some.end(), all[prepared].tasks.begin(), all[prepared].tasks.end());
            run.forget();
            run.prepare(some, threads);
        }
        const Wave none;
        const Wave& now = w < count ? all[w] : none;
        const Wave& done = w >= 2 ? all[w - 2] : none;
        std::vector<O>& fresh = apart[w % 3];
        if (w < count && fresh.size() < static_cast<size_t>(waves.rows(now.first, now.last) * columns))
            fresh.resize(waves.rows(now.first, now.last) * columns);
        const Target<O> target{fresh.data(), waves.slots(), waves.slots()[now.first]};
        const auto tasks = static_cast<int64_t>(now.tasks.size());
        const int64_t copies = (done.last - done.first + blocks_of_a_copy - 1) / blocks_of_a_copy;
        parallel_for(tasks + copies, threads, [&](int64_t t, int worker, const StopFlag&) {
            if (t < tasks)
                do_task(run, now.tasks[t], target, rooms.at(worker));
            else
                waves.copy_back(done, t - tasks, apart[(w + 1) % 3].data(), columns, out);
        });
    }
    run.forget();
}

}  // namespace

template <class T, class O>
void conv_patches(const ConvSource<T>* sources, int source_count, StageSize size, const float* weight, KernelShape kernel,
                  const float* bias, const PatchTable& table, Segments segments, O* out, int threads) {
    for (int64_t i = 0; i < table.count; ++i)
        if (table.nodes[i] < 0 || table.nodes[i] >= size.tree_rows) throw std::invalid_argument("a block is no tree row");
    const std::vector<BlockRange> ranges = ranges_of(table, segments);
    const bool in_place = static_cast<const void*>(out) == static_cast<const void*>(sources[0].features);
    PatchRun<T, O> run(sources, source_count, size, weight, kernel, bias, table);
    const Cutter cutter(run.filters(), in_place);
    if (!in_place) {
        std::vector<PatchTask> tasks;
        for (int64_t s = 0; s < segments.count; ++s) cutter.cut(ranges[s], ranges[s], segments.data[3 * s + 2], tasks);
        return run_apart(run, tasks, out, threads);
    }
    const int64_t columns = kernel.out;
    if (!std::is_same<T, O>::value || columns != sources[0].channels || columns == 1)
        throw std::invalid_argument("expected as many channels out as in, two or more, of one type, to write over the features");
    Waves waves(table, size, std::max<int64_t>(2048, wave_bytes / (columns * static_cast<int64_t>(sizeof(O)))));
    for (int64_t s = segments.count - 1; s >= 0; --s) waves.add(ranges[s], segments.data[3 * s + 2], cutter);
    run_in_place(run, waves, columns, out, threads);
}

template void conv_patches(const ConvSource<float>*, int, StageSize, const float*, KernelShape, const float*, const PatchTable&,
                           Segments, float*, int);
template void conv_patches(const ConvSource<float>*, int, StageSize, const float*, KernelShape, const float*, const PatchTable&,
                           Segments, uint16_t*, int);
template void conv_patches(const ConvSource<uint16_t>*, int, StageSize, const float*, KernelShape, const float*,
                           const PatchTable&, Segments, uint16_t*, int);

}  // namespace aprcnn
