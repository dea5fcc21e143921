#if defined(APRCNN_X86_VARIANTS)
#define APRCNN_HOT_TABLE hot_avx512
#define APRCNN_HOT_NAME "avx512"
#include "hot.inc"
#endif
