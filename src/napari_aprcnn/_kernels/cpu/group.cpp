// Places where many voxels end become objects.
#include <algorithm>
#include <array>
#include <utility>

#include "masks.hpp"

namespace aprcnn {

namespace {

constexpr uint32_t seed_count = 10;    // a seed has more voxels than this
constexpr uint32_t member_count = 2;   // a place of an object has more voxels than this
constexpr int64_t peak_radius = 2;     // a seed is the largest of its 5 x 5 (x 5) neighbourhood
constexpr int64_t extend_radius = 5;   // a seed grows this many times by one place in every direction

struct Seed {
    uint32_t count, place;
};

struct Window {
    int64_t low[3], high[3];
};

Window window_around(const Grid& grid, int64_t place, int64_t radius) {
    const int64_t at[3] = {place / (grid.y * grid.x), place / grid.x % grid.y, place % grid.x};
    const int64_t edges[3] = {grid.z, grid.y, grid.x};
    Window window;
    for (int axis = 0; axis < 3; ++axis) {
        window.low[axis] = std::max<int64_t>(0, at[axis] - radius);
        window.high[axis] = std::min(edges[axis], at[axis] + radius + 1);
    }
    return window;
}

bool is_peak(const uint32_t* counts, const Grid& grid, int64_t place) {
    const Window window = window_around(grid, place, peak_radius);
    for (int64_t z = window.low[0]; z < window.high[0]; ++z)
        for (int64_t y = window.low[1]; y < window.high[1]; ++y)
            for (int64_t x = window.low[2]; x < window.high[2]; ++x)
                if (counts[(z * grid.y + y) * grid.x + x] > counts[place]) return false;
    return true;
}

std::vector<Seed> find_seeds(const uint32_t* counts, const Grid& grid, int threads, const Poll& poll, bool& finished) {
    const int64_t chunk = 1 << 16;
    const int64_t chunks = (grid.size() + chunk - 1) / chunk;
    std::vector<std::vector<Seed>> found(static_cast<size_t>(chunks));
    finished = parallel_for(chunks, threads, [&](int64_t task, int, const StopFlag&) {
        for (int64_t place = task * chunk; place < std::min(grid.size(), (task + 1) * chunk); ++place) {
            if (counts[place] > seed_count && is_peak(counts, grid, place)) {
                found[static_cast<size_t>(task)].push_back({counts[place], static_cast<uint32_t>(place)});
            }
        }
    }, poll);
    std::vector<Seed> seeds;
    for (const std::vector<Seed>& part : found) seeds.insert(seeds.end(), part.begin(), part.end());
    // The fullest last: where two objects grow into each other it wins.
    std::stable_sort(seeds.begin(), seeds.end(), [](const Seed& a, const Seed& b) { return a.count < b.count; });
    return seeds;
}

// All places that `extend_radius` dilations of the seed reach over places with enough voxels.
std::vector<uint32_t> extend(const uint32_t* counts, const Grid& grid, uint32_t seed) {
    constexpr int64_t edge = 2 * extend_radius + 1;
    const Window reach = window_around(grid, seed, extend_radius);
    std::array<bool, edge * edge * edge> seen{};
    std::vector<uint32_t> members{seed};
    size_t front = 0;
    for (int64_t round = 0; round < extend_radius; ++round) {
        for (const size_t end = members.size(); front < end; ++front) {
            const Window window = window_around(grid, members[front], 1);
            for (int64_t z = window.low[0]; z < window.high[0]; ++z)
                for (int64_t y = window.low[1]; y < window.high[1]; ++y)
                    for (int64_t x = window.low[2]; x < window.high[2]; ++x) {
                        bool& known = seen[static_cast<size_t>(
                            ((z - reach.low[0]) * edge + y - reach.low[1]) * edge + x - reach.low[2])];
                        const int64_t place = (z * grid.y + y) * grid.x + x;
                        if (known || place == seed || counts[place] <= member_count) continue;
                        known = true;
                        members.push_back(static_cast<uint32_t>(place));
                    }
        }
    }
    return members;
}

struct Tally {
    std::vector<int64_t> voxels;
    std::vector<int64_t> first;
};

}  // namespace

bool relabel(uint32_t* labels, int64_t size, const uint32_t* map, int threads) {
    const int64_t chunk = 1 << 18;
    return parallel_for((size + chunk - 1) / chunk, threads, [&](int64_t task, int, const StopFlag&) {
        for (int64_t i = task * chunk; i < std::min(size, (task + 1) * chunk); ++i) {
            if (labels[i] != 0) labels[i] = map[labels[i]];  // pages of background stay untouched
        }
    });
}

int64_t group_ends(uint32_t* ends, uint32_t* counts, const Grid& grid, double max_voxels, int threads,
                   const Poll& poll) {
    bool finished = true;
    const std::vector<Seed> seeds = find_seeds(counts, grid, threads, poll, finished);
    if (!finished) return -1;
    std::vector<std::vector<uint32_t>> members(seeds.size());
    finished = parallel_for(static_cast<int64_t>(seeds.size()), threads, [&](int64_t i, int, const StopFlag&) {
        members[static_cast<size_t>(i)] = extend(counts, grid, seeds[static_cast<size_t>(i)].place);
    }, poll);
    if (!finished) return -1;

    // The histogram is not needed any more: its memory becomes the map from place to object.
    const int64_t size = grid.size();
    const int64_t chunk = 1 << 18;
    const int64_t chunks = (size + chunk - 1) / chunk;
    parallel_for(chunks, threads, [&](int64_t task, int, const StopFlag&) {
        for (int64_t i = task * chunk; i < std::min(size, (task + 1) * chunk); ++i) {
            if (counts[i] != 0) counts[i] = 0;  // pages in which no voxel ends stay untouched
        }
    });
    for (size_t i = 0; i < members.size(); ++i) {
        for (const uint32_t place : members[i]) counts[place] = static_cast<uint32_t>(i + 1);
    }

    std::vector<Tally> tallies(static_cast<size_t>(std::max(threads, 1)));
    finished = parallel_for(chunks, threads, [&](int64_t task, int worker, const StopFlag&) {
        Tally& tally = tallies[static_cast<size_t>(worker)];
        if (tally.voxels.empty()) {
            tally.voxels.assign(seeds.size() + 1, 0);
            tally.first.assign(seeds.size() + 1, INT64_MAX);
        }
        uint32_t last_end = 0, label = 0;
        for (int64_t i = task * chunk; i < std::min(size, (task + 1) * chunk); ++i) {
            if (ends[i] == 0) continue;
            if (ends[i] != last_end) {
                last_end = ends[i];
                label = counts[last_end - 1];
                if (label != 0) tally.first[label] = std::min(tally.first[label], i);
            }
            ends[i] = label;
            ++tally.voxels[label];
        }
    }, poll);
    if (!finished) return -1;

    std::vector<std::pair<int64_t, uint32_t>> order;  // first voxel, label
    for (uint32_t label = 1; label <= seeds.size(); ++label) {
        int64_t voxels = 0;
        int64_t first = INT64_MAX;
        for (const Tally& tally : tallies) {
            if (tally.voxels.empty()) continue;
            voxels += tally.voxels[label];
            first = std::min(first, tally.first[label]);
        }
        if (voxels > 0 && static_cast<double>(voxels) <= max_voxels) order.emplace_back(first, label);
    }
    std::sort(order.begin(), order.end());
    std::vector<uint32_t> map(seeds.size() + 1, 0);
    for (size_t i = 0; i < order.size(); ++i) map[order[i].second] = static_cast<uint32_t>(i + 1);
    relabel(ends, size, map.data(), threads);
    return static_cast<int64_t>(order.size());
}

}  // namespace aprcnn
