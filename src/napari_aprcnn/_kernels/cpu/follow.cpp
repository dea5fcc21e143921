// Following the flows. Three observations make it fast without changing where voxels end:
// - displacements need no more than 16 bits, so that the field of an object fits the nearest caches;
// - most voxels of an object soon share a path, so from the 12th step on positions are rounded to 1/2048 pixel every
//   4 steps and each distinct one goes on once;
// - a rounded position that a whole stage maps to itself stays there for good (a sink, or a cycle).
// The rounded position itself goes on, not one of its members: the outcome depends neither on the cut into bricks nor
// on the number of threads.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>

#include "hot.hpp"
#include "masks.hpp"

namespace aprcnn {

namespace {

constexpr int64_t first_steps = 12;  // sooner hardly any paths have met
constexpr int64_t stage_steps = 4;   // even, so that flips between two places count as standing still
constexpr int64_t batch = 256;  // points whose positions stay in the first-level cache
constexpr uint32_t empty_slot = UINT32_MAX;
constexpr uint32_t ended = 0x80000000u;  // marks a place in Brick::places instead of a slot of the next stage

struct Free {
    void operator()(int16_t* memory) const { std::free(memory); }
};

// Displacements in fixed point, interleaved, zero outside and in a margin of one pixel.
struct Field {
    std::unique_ptr<int16_t, Free> memory;
    int64_t plane, row;  // steps in numbers
    int axes;
};

Field make_field(const Grid& grid) {
    Field field;
    field.axes = grid.flat ? 2 : 3;
    field.row = (grid.x + 2) * field.axes;
    field.plane = (grid.y + 2) * field.row;
    const int64_t planes = grid.flat ? 1 : grid.z + 2;
    // calloc: pages in which nothing is written cost no memory. 8 more: the last load reads past the end.
    const size_t numbers = static_cast<size_t>(planes * field.plane + 8);
    field.memory.reset(static_cast<int16_t*>(std::calloc(numbers, sizeof(int16_t))));
    if (!field.memory) throw std::bad_alloc();
    return field;
}

// Writes one row of the field; false if an inside flow is not finite.
bool fill_row(const float* flows, const uint8_t* inside, const Grid& grid, int axes, std::vector<int16_t>& parts,
              int16_t* to) {
    if (std::memchr(inside, 1, static_cast<size_t>(grid.x)) == nullptr) return true;
    parts.resize(static_cast<size_t>(axes * grid.x));
    bool finite = true;
    for (int axis = 0; axis < axes; ++axis) {
        finite &= hot().displace(parts.data() + axis * grid.x, flows + axis * grid.size(), inside, grid.x) != 0;
    }
    const int16_t *a = parts.data(), *b = a + grid.x, *c = b + (axes == 3 ? grid.x : 0);
    for (int64_t x = 0; x < grid.x; ++x) {
        *to++ = a[x];
        *to++ = b[x];
        if (axes == 3) *to++ = c[x];
    }
    return finite;
}

struct Motion {
    Field field;
    float scale[4], shift[4], top[4];
    const int16_t* origin;
    int width;  // floats of a position

    void advance(float* at, int64_t points, int64_t steps) const {
        if (width == 2) {
            hot().advance2d(at, points, origin, field.row, top, steps);
        } else {
            hot().advance3d(at, points, origin, field.plane, field.row, scale, shift, top, steps);
        }
    }
};

Motion make_motion(const Grid& grid) {
    Motion motion;
    motion.field = make_field(grid);
    motion.width = grid.flat ? 2 : 4;
    const int64_t edges[3] = {grid.z, grid.y, grid.x};
    for (int axis = 0; axis < 4; ++axis) {
        motion.scale[axis] = motion.shift[axis] = motion.top[axis] = 0.0f;
    }
    if (grid.flat) {
        motion.top[0] = static_cast<float>(grid.y - 1);
        motion.top[1] = static_cast<float>(grid.x - 1);
        motion.origin = motion.field.memory.get() + motion.field.row + 2;
        return motion;
    }
    motion.origin = motion.field.memory.get();
    for (int axis = 0; axis < 3; ++axis) {
        // Cellpose samples volumes at x * W / (W - 1) - 1/2 (the margin adds 1).
        const float edge = static_cast<float>(edges[axis]);
        motion.scale[axis] = edges[axis] > 1 ? edge / (edge - 1.0f) : 1.0f;
        motion.shift[axis] = edges[axis] > 1 ? 0.5f : 1.0f;
        motion.top[axis] = edge - 1.0f;
    }
    return motion;
}

// The state of one brick; kept by a worker from brick to brick.
struct Brick {
    std::vector<uint32_t> voxels;                // flat indices of the brick's inside voxels
    std::vector<float> at, start, rounded;       // positions now, at the stage's start, and now rounded
    std::vector<std::vector<uint32_t>> passage;  // for each stage: slot -> slot of the next, or ended | place
    std::vector<uint32_t> weight, next_weight;   // voxels that a slot stands for
    std::vector<uint32_t> places, place_weight;  // where slots ended
    std::vector<uint32_t> table;
};

template <int width>
uint32_t hash_position(const float* at) {
    uint64_t bits[width / 2];
    std::memcpy(bits, at, sizeof bits);
    uint64_t hash = bits[0] * 0xff51afd7ed558ccdull;
    if (width == 4) hash = (hash ^ (hash >> 32) ^ bits[width / 2 - 1]) * 0xc4ceb9fe1a85ec53ull;
    return static_cast<uint32_t>(hash >> 32);
}

template <int width>
bool same_position(const float* a, const float* b) {
    return std::memcmp(a, b, width * sizeof(float)) == 0;  // a fixed size: no call
}

uint32_t flat_place(const float* at, const Grid& grid) {
    if (grid.flat) return static_cast<uint32_t>(static_cast<int64_t>(at[0]) * grid.x + static_cast<int64_t>(at[1]));
    return static_cast<uint32_t>((static_cast<int64_t>(at[0]) * grid.y + static_cast<int64_t>(at[1])) * grid.x +
                                 static_cast<int64_t>(at[2]));
}

// After a stage: rounds positions, ends those that a whole stage moved nowhere (and all of them after the last), merges
// equal ones. Returns how many go on.
template <int width>
int64_t merge(Brick& brick, int64_t points, const Grid& grid, bool whole, bool last, std::vector<uint32_t>& passage) {
    passage.resize(static_cast<size_t>(points));
    size_t slots = 64;
    while (slots < static_cast<size_t>(points) * 2) slots *= 2;
    brick.table.assign(last ? 0 : slots, empty_slot);
    brick.next_weight.clear();
    brick.rounded.resize(static_cast<size_t>(points * width));
    hot().round_positions(brick.rounded.data(), brick.at.data(), points * width);
    int64_t going = 0;
    for (int64_t i = 0; i < points; ++i) {
        const float* rounded = brick.rounded.data() + i * width;
        const uint32_t weight = brick.weight[static_cast<size_t>(i)];
        const bool still = whole && same_position<width>(rounded, brick.start.data() + i * width);
        if (last || still) {
            passage[static_cast<size_t>(i)] = ended | static_cast<uint32_t>(brick.places.size());
            brick.places.push_back(flat_place(still ? rounded : brick.at.data() + i * width, grid));
            brick.place_weight.push_back(weight);
            continue;
        }
        size_t slot = hash_position<width>(rounded) & (slots - 1);
        while (brick.table[slot] != empty_slot &&
               !same_position<width>(brick.at.data() + brick.table[slot] * width, rounded)) {
            slot = (slot + 1) & (slots - 1);
        }
        if (brick.table[slot] == empty_slot) {
            brick.table[slot] = static_cast<uint32_t>(going);
            // In place: what goes on never lies behind point i.
            std::memcpy(brick.at.data() + going * width, rounded, width * sizeof(float));
            brick.next_weight.push_back(weight);
            ++going;
        } else {
            brick.next_weight[brick.table[slot]] += weight;
        }
        passage[static_cast<size_t>(i)] = brick.table[slot];
    }
    brick.weight.swap(brick.next_weight);
    return going;
}

// Inside voxels of a brick, cube after cube: neighbours move together and find the field in the first-level cache.
void list_voxels(const uint8_t* inside, const Grid& grid, const std::array<int64_t, 3>& low,
                 const std::array<int64_t, 3>& high, std::vector<uint32_t>& voxels) {
    const int64_t cube = grid.flat ? 16 : 8;
    for (int64_t z0 = low[0]; z0 < high[0]; z0 += cube)
        for (int64_t y0 = low[1]; y0 < high[1]; y0 += cube)
            for (int64_t x0 = low[2]; x0 < high[2]; x0 += cube)
                for (int64_t z = z0; z < std::min(high[0], z0 + cube); ++z)
                    for (int64_t y = y0; y < std::min(high[1], y0 + cube); ++y) {
                        const int64_t row = (z * grid.y + y) * grid.x;
                        for (int64_t voxel = row + x0; voxel < row + std::min(high[2], x0 + cube); ++voxel) {
                            if (inside[voxel]) voxels.push_back(static_cast<uint32_t>(voxel));
                        }
                    }
}

void follow_brick(Brick& brick, const Motion& motion, const Grid& grid, int64_t n_steps, uint32_t* ends,
                  const StopFlag& stop) {
    const int width = motion.width;
    int64_t points = static_cast<int64_t>(brick.voxels.size());
    brick.at.assign(static_cast<size_t>((points + 1) * width), 0.0f);  // points are moved in twos
    for (int64_t i = 0; i < points; ++i) {
        const int64_t voxel = brick.voxels[static_cast<size_t>(i)];
        float* at = brick.at.data() + i * width;
        if (!grid.flat) *at++ = static_cast<float>(voxel / (grid.y * grid.x));
        at[0] = static_cast<float>(voxel / grid.x % grid.y);
        at[1] = static_cast<float>(voxel % grid.x);
    }
    brick.weight.assign(static_cast<size_t>(points), 1);
    brick.places.clear();
    brick.place_weight.clear();
    size_t stages = 0;
    // All stages but the first are of the same length: only they can tell that a point stands still.
    int64_t steps = n_steps <= first_steps ? n_steps : first_steps + n_steps % stage_steps;
    for (int64_t step = 0; points > 0 && !stop; step += steps, steps = stage_steps, ++stages) {
        const bool last = step + steps >= n_steps;
        brick.start.assign(brick.at.begin(), brick.at.begin() + points * width);
        for (int64_t first = 0; first < points; first += batch) {
            motion.advance(brick.at.data() + first * width, std::min(batch, points - first), steps);
        }
        if (brick.passage.size() <= stages) brick.passage.emplace_back();
        const bool whole = stages > 0;
        points = width == 2 ? merge<2>(brick, points, grid, whole, last, brick.passage[stages])
                            : merge<4>(brick, points, grid, whole, last, brick.passage[stages]);
    }
    if (stop) return;
    // From the last stage back: the place where each slot ends.
    for (size_t stage = stages; stage-- > 0;) {
        for (uint32_t& slot : brick.passage[stage]) {
            slot = slot >= ended ? brick.places[slot - ended] : brick.passage[stage + 1][slot];
        }
    }
    for (size_t i = 0; i < brick.voxels.size(); ++i) ends[brick.voxels[i]] = brick.passage[0][i] + 1;
}

}  // namespace

Outcome follow_flows(const float* flows, const uint8_t* inside, const Grid& grid, int64_t n_steps, uint32_t* ends,
                     uint32_t* counts, int threads, const Poll& poll) {
    Motion motion = make_motion(grid);
    const Field& field = motion.field;
    std::atomic<bool> finite{true};
    const int64_t rows = grid.z * grid.y;
    const int64_t rows_a_task = 64;
    std::vector<std::vector<int16_t>> parts(static_cast<size_t>(std::max(threads, 1)));
    bool finished = parallel_for((rows + rows_a_task - 1) / rows_a_task, threads, [&](int64_t task, int worker, const StopFlag&) {
        for (int64_t row = task * rows_a_task; row < std::min(rows, (task + 1) * rows_a_task); ++row) {
            const int64_t z = grid.flat ? 0 : row / grid.y + 1;
            int16_t* to = field.memory.get() + z * field.plane + (row % grid.y + 1) * field.row + field.axes;
            const int64_t start = row * grid.x;
            std::vector<int16_t>& own = parts[static_cast<size_t>(worker)];
            if (!fill_row(flows + start, inside + start, grid, field.axes, own, to)) finite = false;
        }
    }, poll);
    if (!finished) return Outcome::stopped;
    if (!finite) return Outcome::not_finite;

    const int64_t edge_z = grid.flat ? 1 : 16, edge_y = grid.flat ? 128 : 64, edge_x = grid.flat ? 128 : 64;
    const int64_t bricks_z = (grid.z + edge_z - 1) / edge_z;
    const int64_t bricks_y = (grid.y + edge_y - 1) / edge_y;
    const int64_t bricks_x = (grid.x + edge_x - 1) / edge_x;
    std::vector<Brick> bricks(static_cast<size_t>(std::max(threads, 1)));
    std::mutex counting;
    finished = parallel_for(bricks_z * bricks_y * bricks_x, threads, [&](int64_t task, int worker, const StopFlag& stop) {
        Brick& brick = bricks[static_cast<size_t>(worker)];
        brick.voxels.clear();
        const int64_t z0 = task / (bricks_y * bricks_x) * edge_z;
        const int64_t y0 = task / bricks_x % bricks_y * edge_y;
        const int64_t x0 = task % bricks_x * edge_x;
        list_voxels(inside, grid, {z0, y0, x0},
                    {std::min(grid.z, z0 + edge_z), std::min(grid.y, y0 + edge_y), std::min(grid.x, x0 + edge_x)},
                    brick.voxels);
        if (brick.voxels.empty()) return;
        follow_brick(brick, motion, grid, n_steps, ends, stop);
        const std::lock_guard<std::mutex> lock(counting);
        for (size_t i = 0; i < brick.places.size(); ++i) counts[brick.places[i]] += brick.place_weight[i];
    }, poll);
    return finished ? Outcome::finished : Outcome::stopped;
}

}  // namespace aprcnn
