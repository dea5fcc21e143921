// The target's baseline: SSE2 on x86-64, NEON on 64-bit ARM.
#define APRCNN_HOT_TABLE hot_plain
#if defined(__ARM_NEON) || defined(_M_ARM64)
#define APRCNN_HOT_NAME "neon"
#else
#define APRCNN_HOT_NAME "plain"
#endif
#include "hot.inc"
