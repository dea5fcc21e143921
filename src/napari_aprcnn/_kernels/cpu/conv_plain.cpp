// Four lanes: what every x86-64 and ARM64 processor has.
#define APRCNN_CONV_TABLE conv_plain
#define APRCNN_ROWS_TABLE rows_plain
#define APRCNN_NORMS_TABLE norms_plain
#define APRCNN_PLANES_TABLE planes_plain
#if defined(__aarch64__) || defined(_M_ARM64)
#define APRCNN_CONV_NAME "neon"
#define APRCNN_REGISTERS 32
#define APRCNN_ROWS_WIDE 10
#define APRCNN_ROWS_NARROW 12
#else
#define APRCNN_CONV_NAME "plain"
#define APRCNN_REGISTERS 16
#define APRCNN_ROWS_WIDE 5
#define APRCNN_ROWS_NARROW 8
#endif
#define APRCNN_LANES 4
#define APRCNN_HALF_LANES 4
#define APRCNN_BLOCK_TILE 4
#define APRCNN_CUBE_TILE 3
#define APRCNN_UNROLL_WIDE 1
#define APRCNN_UNROLL_NARROW 2
#define APRCNN_CHANNELS_WIDE 4
#define APRCNN_CHANNELS_NARROW 8
#include "conv.inc"
#include "rows.inc"
#include "norms.inc"
#include "planes.inc"
