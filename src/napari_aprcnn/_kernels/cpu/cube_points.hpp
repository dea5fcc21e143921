// The filters of F(4, 3), with the points 0, +-3/4, +-3/2 and infinity, of cubes and of planes alike.
#pragma once

#include <cstdint>

namespace aprcnn {

// G g along an axis: three taps to six products.
inline void filter_four(const double* g, int64_t from_step, double* to, int64_t to_step) {
    constexpr double p = 0.75, q = 1.5, p2 = p * p, q2 = q * q, first = 1 / (p2 * q2);
    constexpr double own_p = 1 / (2 * p2 * (p2 - q2)), own_q = 1 / (2 * q2 * (q2 - p2));
    const double a = g[0], b = g[from_step], c = g[2 * from_step];
    to[0] = a * first;
    to[to_step] = (a + p2 * c) * own_p + b * (p * own_p);
    to[2 * to_step] = (a + p2 * c) * own_p - b * (p * own_p);
    to[3 * to_step] = (a + q2 * c) * own_q + b * (q * own_q);
    to[4 * to_step] = (a + q2 * c) * own_q - b * (q * own_q);
    to[5 * to_step] = c;
}

}  // namespace aprcnn
