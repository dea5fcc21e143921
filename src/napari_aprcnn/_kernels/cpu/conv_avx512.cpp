#if defined(APRCNN_X86_VARIANTS)
#define APRCNN_CONV_TABLE conv_avx512
#define APRCNN_ROWS_TABLE rows_avx512
#define APRCNN_NORMS_TABLE norms_avx512
#define APRCNN_PLANES_TABLE planes_avx512
#define APRCNN_CONV_NAME "avx512"
#define APRCNN_REGISTERS 32
#define APRCNN_LANES 16
#define APRCNN_HALF_LANES 8
#define APRCNN_ROWS_WIDE 12
#define APRCNN_ROWS_NARROW 15
#define APRCNN_BLOCK_TILE 12
#define APRCNN_CUBE_TILE 6
#define APRCNN_UNROLL_WIDE 2
#define APRCNN_UNROLL_NARROW 2
#define APRCNN_CHANNELS_WIDE 8
#define APRCNN_CHANNELS_NARROW 16
#include "conv.inc"
#include "rows.inc"
#include "norms.inc"
#include "planes.inc"
#endif
