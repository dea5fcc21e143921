// Masks to flows: heat spreads from the centre of each object, the flow is the direction in which it rises.
#include <algorithm>
#include <cmath>
#include <utility>

#include "hot.hpp"
#include "objects.hpp"

namespace aprcnn {

namespace {

constexpr int64_t flow_rounds = 6;   // Cellpose's
constexpr int64_t check_rounds = 2;  // directions differ from those after 6 by 0.001 (mean squared) or less

}  // namespace

std::vector<Box> find_boxes(const uint32_t* labels, const Grid& grid, uint32_t n, int threads) {
    const int64_t rows = grid.z * grid.y;
    const int64_t chunk = std::max<int64_t>(1, (rows + 63) / 64);
    const int64_t chunks = (rows + chunk - 1) / chunk;
    std::vector<std::vector<Box>> partial(static_cast<size_t>(std::max(threads, 1)));
    parallel_for(chunks, threads, [&](int64_t task, int worker, const StopFlag&) {
        std::vector<Box>& boxes = partial[static_cast<size_t>(worker)];
        if (boxes.empty()) boxes.resize(n);
        for (int64_t row = task * chunk; row < std::min(rows, (task + 1) * chunk); ++row) {
            const uint32_t* line = labels + row * grid.x;
            const int32_t z = static_cast<int32_t>(row / grid.y);
            const int32_t y = static_cast<int32_t>(row % grid.y);
            for (int64_t x = 0; x < grid.x;) {
                const uint32_t label = line[x];
                const int64_t start = x;
                while (x < grid.x && line[x] == label) ++x;
                if (label == 0) continue;
                Box& box = boxes[label - 1];
                box.low[0] = std::min(box.low[0], z);
                box.low[1] = std::min(box.low[1], y);
                box.low[2] = std::min(box.low[2], static_cast<int32_t>(start));
                box.high[0] = std::max(box.high[0], z + 1);
                box.high[1] = std::max(box.high[1], y + 1);
                box.high[2] = std::max(box.high[2], static_cast<int32_t>(x));
                box.count += x - start;
            }
        }
    });
    std::vector<Box> boxes(n);
    for (const std::vector<Box>& part : partial) {
        for (size_t i = 0; i < part.size(); ++i) {
            for (int axis = 0; axis < 3; ++axis) {
                boxes[i].low[axis] = std::min(boxes[i].low[axis], part[i].low[axis]);
                boxes[i].high[axis] = std::max(boxes[i].high[axis], part[i].high[axis]);
            }
            boxes[i].count += part[i].count;
        }
    }
    return boxes;
}

Crop prepare_heat(HeatScratch& scratch, const uint32_t* labels, const Grid& grid, const Box& box, uint32_t label) {
    Crop crop;
    const int64_t margin = grid.flat ? 0 : 1;
    crop.planes = box.high[0] - box.low[0] + 2 * margin;
    crop.rows = box.high[1] - box.low[1] + 2;
    crop.stride = (box.high[2] - box.low[2] + 2 + 7) / 8 * 8;
    const int64_t plane = crop.rows * crop.stride;
    crop.offset = margin * plane + crop.stride + 1;
    scratch.size = crop.planes * plane;
    const int64_t spaced = scratch.size + 16;
    scratch.memory.assign(static_cast<size_t>(3 * spaced + 16), 0.0);
    double* start = scratch.memory.data() + 8;
    while (reinterpret_cast<uintptr_t>(start) % 64 != 0) ++start;
    scratch.now = start;
    scratch.next = start + spaced;
    scratch.share = start + 2 * spaced;
    scratch.inside.clear();
    const double share = grid.flat ? 1.0 / 9.0 : 1.0 / 7.0;
    for (int64_t z = box.low[0]; z < box.high[0]; ++z) {
        for (int64_t y = box.low[1]; y < box.high[1]; ++y) {
            const uint32_t* line = labels + (z * grid.y + y) * grid.x;
            const int64_t first = crop.offset + (z - box.low[0]) * plane + (y - box.low[1]) * crop.stride - box.low[2];
            for (int64_t x = box.low[2]; x < box.high[2]; ++x) {
                if (line[x] != label) continue;
                scratch.share[first + x] = share;
                scratch.inside.push_back({first + x, static_cast<int32_t>(z - box.low[0]),
                                          static_cast<int32_t>(y - box.low[1]), static_cast<int32_t>(x - box.low[2])});
            }
        }
    }
    return crop;
}

namespace {

// The voxel nearest to the mean of all; the first in scan order where several are equally near.
int64_t nearest_to_mean(const std::vector<Cell>& voxels) {
    // Places count from the margin of the crop, as in the reference: ties are decided by rounding, which must be its own.
    int64_t sum[3] = {0, 0, 0};
    for (const Cell& cell : voxels) {
        sum[0] += cell.z + 1;
        sum[1] += cell.y + 1;
        sum[2] += cell.x + 1;
    }
    const double count = static_cast<double>(voxels.size());
    const double mean[3] = {static_cast<double>(sum[0]) / count, static_cast<double>(sum[1]) / count,
                            static_cast<double>(sum[2]) / count};
    double best = HUGE_VAL;
    int64_t nearest = voxels.front().at;
    for (const Cell& cell : voxels) {
        const double dz = (cell.z + 1) - mean[0];
        const double dy = (cell.y + 1) - mean[1];
        const double dx = (cell.x + 1) - mean[2];
        const double distance = (dz * dz + dy * dy) + dx * dx;
        if (distance < best) {
            best = distance;
            nearest = cell.at;
        }
    }
    return nearest;
}

}  // namespace

Heat run_heat(HeatScratch& scratch, const Crop& crop, const Grid& grid, const Box& box,
              const std::vector<Cell>& voxels, int64_t rounds_3d) {
    const int64_t plane = crop.rows * crop.stride;
    const int64_t source = nearest_to_mean(voxels);
    const int64_t edge_z = box.high[0] - box.low[0];
    const int64_t edge_y = box.high[1] - box.low[1];
    const int64_t edge_x = box.high[2] - box.low[2];
    const double* warm;
    if (grid.flat) {
        warm = hot().diffuse2d(scratch.now, scratch.next, scratch.share, crop.rows, crop.stride, source,
                               2 * (edge_y + edge_x + 4));
    } else {
        warm = hot().diffuse3d(scratch.now, scratch.next, scratch.share, crop.planes, crop.rows, crop.stride, source,
                               rounds_3d * (edge_z + edge_y + edge_x + 3));
    }
    return {warm, plane, crop.stride};
}

void unit_gradient(const Heat& heat, int64_t at, bool flat, double* vector) {
    const double* here = heat.values + at;
    const int first = flat ? 0 : 1;
    if (!flat) vector[0] = here[heat.plane] - here[-heat.plane];
    vector[first] = here[heat.stride] - here[-heat.stride];
    vector[first + 1] = here[1] - here[-1];
    double square = 0.0;
    for (int axis = 0; axis < first + 2; ++axis) square += vector[axis] * vector[axis];
    // 1e-60 only avoids 0 / 0; it is far below any heat that a double can carry through its square.
    const double length = 1e-60 + std::sqrt(square);
    for (int axis = 0; axis < first + 2; ++axis) vector[axis] /= length;
}

namespace {

// Voxels of one object that heat from the centre of another piece never reached, as connected pieces.
std::vector<std::vector<Cell>> cold_pieces(const HeatScratch& scratch, const Heat& heat, const Crop& crop, bool flat) {
    std::vector<Cell> cold;
    for (const Cell& cell : scratch.inside) {
        if (heat.values[cell.at] == 0.0) cold.push_back(cell);
    }
    std::vector<std::vector<Cell>> pieces;
    if (cold.empty()) return pieces;
    std::vector<int64_t> steps;
    const int64_t plane = crop.rows * crop.stride;
    if (flat) {
        for (int64_t dy = -1; dy <= 1; ++dy)
            for (int64_t dx = -1; dx <= 1; ++dx)
                if (dy != 0 || dx != 0) steps.push_back(dy * crop.stride + dx);
    } else {
        steps = {-plane, plane, -crop.stride, crop.stride, -1, 1};
    }
    std::vector<int64_t> waiting(static_cast<size_t>(scratch.size), -1);  // number in `cold`, or -1
    for (size_t i = 0; i < cold.size(); ++i) waiting[static_cast<size_t>(cold[i].at)] = static_cast<int64_t>(i);
    for (size_t seed = 0; seed < cold.size(); ++seed) {
        if (waiting[static_cast<size_t>(cold[seed].at)] < 0) continue;
        waiting[static_cast<size_t>(cold[seed].at)] = -1;
        std::vector<Cell> piece{cold[seed]};
        for (size_t i = 0; i < piece.size(); ++i) {
            for (const int64_t step : steps) {
                int64_t& other = waiting[static_cast<size_t>(piece[i].at + step)];
                if (other < 0) continue;
                piece.push_back(cold[static_cast<size_t>(other)]);
                other = -1;
            }
        }
        std::sort(piece.begin(), piece.end(), [](const Cell& a, const Cell& b) { return a.at < b.at; });
        pieces.push_back(std::move(piece));
    }
    return pieces;
}

// The voxel's flat index in the image.
int64_t flat_index(const Cell& cell, const Box& box, const Grid& grid) {
    return ((box.low[0] + cell.z) * grid.y + box.low[1] + cell.y) * grid.x + box.low[2] + cell.x;
}

}  // namespace

bool flows_from_labels(const uint32_t* labels, const Grid& grid, uint32_t n, float* flows, int threads,
                       const Poll& poll) {
    const std::vector<Box> boxes = find_boxes(labels, grid, n, threads);
    std::vector<HeatScratch> scratches(static_cast<size_t>(std::max(threads, 1)));
    const int64_t size = grid.size();
    const int axes = grid.flat ? 2 : 3;
    return parallel_for(n, threads, [&](int64_t i, int worker, const StopFlag&) {
        const Box& box = boxes[static_cast<size_t>(i)];
        if (box.count == 0) return;
        HeatScratch& scratch = scratches[static_cast<size_t>(worker)];
        const Crop crop = prepare_heat(scratch, labels, grid, box, static_cast<uint32_t>(i + 1));
        const auto write = [&](const Heat& heat, const std::vector<Cell>& voxels) {
            for (const Cell& cell : voxels) {
                double vector[3];
                unit_gradient(heat, cell.at, grid.flat, vector);
                float* to = flows + flat_index(cell, box, grid);
                for (int axis = 0; axis < axes; ++axis) to[axis * size] = static_cast<float>(vector[axis]);
            }
        };
        const Heat heat = run_heat(scratch, crop, grid, box, scratch.inside, flow_rounds);
        write(heat, scratch.inside);
        // Cellpose leaves further pieces without flow; a network learns more from their own centres.
        for (const std::vector<Cell>& piece : cold_pieces(scratch, heat, crop, grid.flat)) {
            std::fill_n(scratch.now, scratch.size, 0.0);
            std::fill_n(scratch.next, scratch.size, 0.0);
            write(run_heat(scratch, crop, grid, box, piece, flow_rounds), piece);
        }
    }, poll);
}

bool flow_errors(const uint32_t* labels, const Grid& grid, uint32_t n, const float* flows, double* errors, int threads,
                 const Poll& poll) {
    const std::vector<Box> boxes = find_boxes(labels, grid, n, threads);
    std::vector<HeatScratch> scratches(static_cast<size_t>(std::max(threads, 1)));
    const int64_t size = grid.size();
    return parallel_for(n, threads, [&](int64_t i, int worker, const StopFlag&) {
        const Box& box = boxes[static_cast<size_t>(i)];
        errors[i] = 0.0;
        if (box.count == 0) return;
        HeatScratch& scratch = scratches[static_cast<size_t>(worker)];
        const Crop crop = prepare_heat(scratch, labels, grid, box, static_cast<uint32_t>(i + 1));
        const Heat heat = run_heat(scratch, crop, grid, box, scratch.inside, check_rounds);
        double sum = 0.0;
        for (const Cell& cell : scratch.inside) {
            double expected[3];
            unit_gradient(heat, cell.at, grid.flat, expected);
            const float* got = flows + flat_index(cell, box, grid);
            if (grid.flat) {
                const double dy = expected[0] - static_cast<double>(got[0]) / 5.0;
                const double dx = expected[1] - static_cast<double>(got[size]) / 5.0;
                sum += dy * dy + dx * dx;
            } else {
                // Flows averaged over three planes are no unit vectors, so directions are compared.
                const double gz = got[0], gy = got[size], gx = got[2 * size];
                const double length = 1e-60 + std::sqrt((gz * gz + gy * gy) + gx * gx);
                const double dz = expected[0] - gz / length;
                const double dy = expected[1] - gy / length;
                const double dx = expected[2] - gx / length;
                sum += (dz * dz + dy * dy) + dx * dx;
            }
        }
        errors[i] = sum / static_cast<double>(box.count);
    }, poll);
}

}  // namespace aprcnn
