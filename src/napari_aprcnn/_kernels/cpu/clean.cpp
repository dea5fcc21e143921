// Small objects out, holes filled.
#include <algorithm>

#include "masks.hpp"

namespace aprcnn {

namespace {

struct Scratch {
    std::vector<uint8_t> cells;
    std::vector<int64_t> queue;
};

// Flat indices of the holes of one object in one plane: what the background, going by edges, cannot reach from
// outside the bounding box.
void plane_holes(const uint32_t* labels, const Grid& grid, const Box& box, uint32_t label, int64_t z, Scratch& scratch,
                 std::vector<uint32_t>& holes) {
    const int64_t height = box.high[1] - box.low[1];
    const int64_t width = box.high[2] - box.low[2];
    // A hole has object to its left and right, so that a plane whose rows are single runs has none.
    bool possible = false;
    for (int64_t y = 0; y < height && !possible; ++y) {
        const uint32_t* line = labels + (z * grid.y + box.low[1] + y) * grid.x + box.low[2];
        int runs = 0;
        for (int64_t x = 0; x < width; ++x) runs += line[x] == label && (x == 0 || line[x - 1] != label);
        possible = runs > 1;
    }
    if (!possible) return;
    const int64_t stride = width + 2;
    constexpr uint8_t background = 0, object = 1, outside = 2;
    scratch.cells.assign(static_cast<size_t>((height + 2) * stride), background);
    for (int64_t y = 0; y < height; ++y) {
        const uint32_t* line = labels + (z * grid.y + box.low[1] + y) * grid.x + box.low[2];
        uint8_t* cells = scratch.cells.data() + (y + 1) * stride + 1;
        for (int64_t x = 0; x < width; ++x) cells[x] = line[x] == label ? object : background;
    }
    const int64_t size = static_cast<int64_t>(scratch.cells.size());
    scratch.queue.assign(1, 0);
    scratch.cells[0] = outside;
    while (!scratch.queue.empty()) {
        const int64_t at = scratch.queue.back();
        scratch.queue.pop_back();
        // The margin is one wide, so that steps over a row's end stay in the margin.
        for (const int64_t other : {at - stride, at + stride, at - 1, at + 1}) {
            if (other < 0 || other >= size || scratch.cells[static_cast<size_t>(other)] != background) continue;
            scratch.cells[static_cast<size_t>(other)] = outside;
            scratch.queue.push_back(other);
        }
    }
    for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) {
            if (scratch.cells[static_cast<size_t>((y + 1) * stride + x + 1)] != background) continue;
            holes.push_back(static_cast<uint32_t>((z * grid.y + box.low[1] + y) * grid.x + box.low[2] + x));
        }
    }
}

std::vector<uint32_t> object_holes(const uint32_t* labels, const Grid& grid, const Box& box, uint32_t label,
                                   Scratch& scratch) {
    std::vector<uint32_t> holes;
    for (int64_t z = box.low[0]; z < box.high[0]; ++z) plane_holes(labels, grid, box, label, z, scratch, holes);
    return holes;
}

int64_t count_voxels(const uint32_t* labels, const Grid& grid, const Box& box, uint32_t label) {
    int64_t count = 0;
    for (int64_t z = box.low[0]; z < box.high[0]; ++z)
        for (int64_t y = box.low[1]; y < box.high[1]; ++y) {
            const uint32_t* line = labels + (z * grid.y + y) * grid.x;
            for (int64_t x = box.low[2]; x < box.high[2]; ++x) count += line[x] == label;
        }
    return count;
}

// Fill holes in the order of the labels. An object that lies in another's hole is swallowed; one that was touched
// before its turn is measured again.
void apply_holes(uint32_t* labels, const Grid& grid, std::vector<Box>& boxes, int64_t min_size,
                 const std::vector<std::vector<uint32_t>>& holes) {
    std::vector<char> touched(boxes.size(), 0);
    Scratch scratch;
    for (size_t i = 0; i < boxes.size(); ++i) {
        const uint32_t label = static_cast<uint32_t>(i + 1);
        std::vector<uint32_t> own;
        if (touched[i]) {
            boxes[i].count = count_voxels(labels, grid, boxes[i], label);
            if (boxes[i].count >= std::max<int64_t>(min_size, 1)) {
                own = object_holes(labels, grid, boxes[i], label, scratch);
            }
        }
        if (boxes[i].count < std::max<int64_t>(min_size, 1)) continue;
        for (const uint32_t voxel : touched[i] ? own : holes[i]) {
            const uint32_t other = labels[voxel];
            if (other == label) continue;
            if (other != 0) {
                touched[other - 1] = 1;
                boxes[other - 1].count -= 1;
            }
            boxes[i].count += 1;  // what was filled may be swallowed by a later object, too
            labels[voxel] = label;
        }
    }
}

}  // namespace

int64_t clean_labels(uint32_t* labels, const Grid& grid, uint32_t n, int64_t min_size, bool fill_holes, int threads,
                     const Poll& poll) {
    std::vector<Box> boxes = find_boxes(labels, grid, n, threads);
    const int64_t needed = std::max<int64_t>(min_size, 1);
    if (fill_holes) {
        std::vector<std::vector<uint32_t>> holes(n);
        std::vector<Scratch> scratches(static_cast<size_t>(std::max(threads, 1)));
        const bool finished = parallel_for(n, threads, [&](int64_t i, int worker, const StopFlag&) {
            const size_t at = static_cast<size_t>(i);
            if (boxes[at].count < needed) return;
            holes[at] = object_holes(labels, grid, boxes[at], static_cast<uint32_t>(i + 1),
                                     scratches[static_cast<size_t>(worker)]);
        }, poll);
        if (!finished) return -1;
        apply_holes(labels, grid, boxes, min_size, holes);
    }
    std::vector<uint32_t> map(static_cast<size_t>(n) + 1, 0);
    uint32_t kept = 0;
    bool changed = false;
    for (uint32_t i = 0; i < n; ++i) {
        // What was too small before filling stays so, as in Cellpose; an object that others swallowed has none left.
        if (boxes[i].count >= needed) map[i + 1] = ++kept;
        changed |= map[i + 1] != i + 1;
    }
    if (changed) relabel(labels, grid.size(), map.data(), threads);
    return kept;
}

}  // namespace aprcnn
