// What the compiler has beyond C++17. With -DAPRCNN_PLAIN_ARRAYS none of it is used, as for MSVC, so that this can be tested elsewhere.
#pragma once

#if (defined(__clang__) || defined(__GNUC__)) && !defined(APRCNN_PLAIN_ARRAYS)
#define APRCNN_VECTORS 1
#if defined(__clang__) || __GNUC__ >= 12
#define APRCNN_SHUFFLES 1  // __builtin_shufflevector and conversions between vectors
#endif
#endif
