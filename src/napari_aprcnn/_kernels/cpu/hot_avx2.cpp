#if defined(APRCNN_X86_VARIANTS)
#define APRCNN_HOT_TABLE hot_avx2
#define APRCNN_HOT_NAME "avx2"
#include "hot.inc"
#endif
