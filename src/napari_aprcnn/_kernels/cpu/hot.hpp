// The inner loops that are compiled once for each instruction set, and the table that dispatch chooses.
// Plain C types only: a standard-library template compiled here with AVX-512 could be the copy that the linker keeps
// for the whole module.
#pragma once

#include <cstdint>

namespace aprcnn {

// Displacements are stored as 16-bit fixed point: steps of 1/8192 pixel up to almost 4 pixels.
constexpr float field_unit = 8192.0f;
// Positions are rounded to 1/2048 pixel where a float has finer steps (below 4096 pixels).
constexpr float position_unit = 2048.0f;

struct HotTable {
    const char* name;

    // Heat from one source, 2D: `steps` times {source += 1; T = mean of the 3 x 3 neighbourhood inside the object}.
    // now, next, share: rows x stride doubles with 8 readable ones before and after; stride is a multiple of 8.
    // now and next start at zero; share is 1/9 inside the object, 0 outside. Returns which of them holds the result.
    const double* (*diffuse2d)(double* now, double* next, const double* share, int64_t rows, int64_t stride,
                               int64_t source, int64_t steps);

    // The same in 3D with the 6 face neighbours and the voxel itself: share is 1/7 inside.
    const double* (*diffuse3d)(double* now, double* next, const double* share, int64_t planes, int64_t rows,
                               int64_t stride, int64_t source, int64_t steps);

    // One component of one row: flows (5 x steps) as fixed-point displacements, 0 outside. Returns 0 if an inside flow
    // is not finite.
    int (*displace)(int16_t* out, const float* flow, const uint8_t* inside, int64_t count);

    // Euler steps. at: points x 2 (y, x) or points x 4 (z, y, x, 0) floats, in pixels, changed in place; in 2D with
    // room for an even number of points. field: interleaved fixed-point displacements (2 or 3 a pixel; 8 readable ones
    // after the end). In 3D a position is multiplied by scale and moved by shift to become an index. Positions are
    // clamped to 0..top.
    void (*advance2d)(float* at, int64_t points, const int16_t* field, int64_t row, const float* top, int64_t steps);
    void (*advance3d)(float* at, int64_t points, const int16_t* field, int64_t plane, int64_t row, const float* scale,
                      const float* shift, const float* top, int64_t steps);

    // Positions rounded to 1 / position_unit pixel.
    void (*round_positions)(float* out, const float* at, int64_t count);
};

extern const HotTable hot_plain;
#if defined(APRCNN_X86_VARIANTS)
extern const HotTable hot_avx2;
extern const HotTable hot_avx512;
#endif

// The table in use, and its choice by name ("" = the best that this machine has). False if it has no such set.
const HotTable& hot();
bool choose_instruction_set(const char* name);
bool has_instruction_set(const char* name);

}  // namespace aprcnn
