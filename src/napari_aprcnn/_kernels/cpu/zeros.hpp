// Features that wait, without their zeros, in the memory that they had.
#pragma once

#include <cstdint>

namespace aprcnn {

constexpr int64_t marked = 16;      // values of one mark
constexpr int64_t waiting_parts = 2;  // of memory, each by itself: what it keeps lies at its front, the system has the rest

// Move what is not zero (by its bits) to the front of each part and give the pages behind it to the system. marks: a bit for each
// value. T: uint32_t or uint16_t; count: a multiple of `marked`; values begin on a cache line. Returns the bytes given.
template <class T>
int64_t leave_out_zeros(T* values, int64_t count, uint16_t* marks, int threads);

// Everything as it was.
template <class T>
void put_back_zeros(T* values, int64_t count, const uint16_t* marks, int threads);

}  // namespace aprcnn
