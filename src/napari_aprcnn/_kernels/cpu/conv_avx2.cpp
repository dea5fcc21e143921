#if defined(APRCNN_X86_VARIANTS)
#define APRCNN_CONV_TABLE conv_avx2
#define APRCNN_ROWS_TABLE rows_avx2
#define APRCNN_NORMS_TABLE norms_avx2
#define APRCNN_PLANES_TABLE planes_avx2
#define APRCNN_CONV_NAME "avx2"
#define APRCNN_REGISTERS 16
#define APRCNN_LANES 8
#define APRCNN_HALF_LANES 4
#define APRCNN_ROWS_WIDE 6
#define APRCNN_ROWS_NARROW 12
#define APRCNN_BLOCK_TILE 6
#define APRCNN_CUBE_TILE 6
#define APRCNN_UNROLL_WIDE 1
#define APRCNN_UNROLL_NARROW 2
#define APRCNN_CHANNELS_WIDE 4
#define APRCNN_CHANNELS_NARROW 8
#include "conv.inc"
#include "rows.inc"
#include "norms.inc"
#include "planes.inc"
#endif
