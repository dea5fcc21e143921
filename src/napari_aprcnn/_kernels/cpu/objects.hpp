// Label images: bounding boxes, sizes, and the heat flow of single objects.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel.hpp"

namespace aprcnn {

// Shape as z, y, x; a plane has z = 1 and flat = true.
struct Grid {
    int64_t z, y, x;
    bool flat;
    int64_t size() const { return z * y * x; }
};

struct Box {
    int32_t low[3] = {INT32_MAX, INT32_MAX, INT32_MAX};  // first voxel
    int32_t high[3] = {0, 0, 0};                         // one past the last
    int64_t count = 0;
};

// Boxes of labels 1..n (entry 0 is label 1).
std::vector<Box> find_boxes(const uint32_t* labels, const Grid& grid, uint32_t n, int threads);

// A voxel of an object in its crop: offset in doubles, and place in the box.
struct Cell {
    int64_t at;
    int32_t z, y, x;
};

// Scratch of one worker, reused from object to object.
struct HeatScratch {
    std::vector<double> memory;
    double *now, *next, *share;  // rows aligned to cache lines, 8 doubles of slack before and after each array
    int64_t size;                // doubles of each
    std::vector<Cell> inside;
};

// The heat of one object after diffusion, in a crop with a margin of one voxel.
struct Heat {
    const double* values;   // planes x rows x stride
    int64_t plane, stride;  // steps in doubles
};

struct Crop {
    int64_t planes, rows, stride, offset;  // planes and rows with the margin; offset of the box's first voxel
};

// Cut one object out: its mask into scratch.share, its voxels into scratch.inside.
Crop prepare_heat(HeatScratch& scratch, const uint32_t* labels, const Grid& grid, const Box& box, uint32_t label);

// Diffuse heat from the voxel nearest to the mean of `voxels`: 2D 2 (height + width + 4) steps as in Cellpose, 3D
// rounds_3d (depth + height + width + 3).
Heat run_heat(HeatScratch& scratch, const Crop& crop, const Grid& grid, const Box& box,
              const std::vector<Cell>& voxels, int64_t rounds_3d);

// Unit vector of heat's central differences at one voxel; zero where the heat is flat. 2D gives (y, x).
void unit_gradient(const Heat& heat, int64_t at, bool flat, double* vector);

// Unit vectors towards the centres, (y, x) or (z, y, x) planes; flows must be zero. False if stopped.
bool flows_from_labels(const uint32_t* labels, const Grid& grid, uint32_t n, float* flows, int threads,
                       const Poll& poll);
// Mean squared difference, for each object, between its heat flow and given flows (5 x unit vectors; in 3D only their
// directions count, and a third of the steps suffices). As Cellpose does, further pieces of an object have no flow of
// their own here.
bool flow_errors(const uint32_t* labels, const Grid& grid, uint32_t n, const float* flows, double* errors, int threads,
                 const Poll& poll);

}  // namespace aprcnn
