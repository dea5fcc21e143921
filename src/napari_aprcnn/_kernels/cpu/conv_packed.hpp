// What the outer loops of the convolutions share: weights packed for the inner loops, and how columns are cut.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <vector>

#include "conv.hpp"
#include "particles.hpp"

namespace aprcnn {

// Depths that some rows use, each with its packed weights.
class Packed {
  public:
    // Transposed: columns are the input channels, as the gradient of the input needs them. Weights of some of `all` input channels
    // begin at the first of them.
    Packed(const float* weight, KernelShape kernel, const Blocks& blocks, bool transposed, int64_t all = 0)
        : weight_(weight), kernel_(kernel), all_(all == 0 ? kernel.in : all), blocks_(blocks), transposed_(transposed) {}

    void prepare(int64_t depth) {
        if (depth < 0 || depth >= kernel_.depths) throw std::invalid_argument("a segment is deeper than the weights");
        if (made_.count(depth) != 0) return;
        const int64_t columns = transposed_ ? kernel_.in : kernel_.out, sums = transposed_ ? kernel_.out : kernel_.in;
        std::vector<float>& to = made_[depth];
        to.assign(blocks_.padded() * kernel_.taps * sums, 0.0f);
        const float* from = weight_ + depth * kernel_.out * all_ * kernel_.taps;
        int64_t column = 0, at = 0;
        for (int b = 0; b < blocks_.count; ++b) {
            const int64_t width = blocks_.width[b];
            for (int64_t k = 0; k < kernel_.taps; ++k)
                for (int64_t i = 0; i < sums; ++i, at += width)
                    for (int64_t c = 0; c < std::min(width, columns - column); ++c) {
                        const int64_t o = transposed_ ? i : column + c, n = transposed_ ? column + c : i;
                        to[at + c] = from[(o * all_ + n) * kernel_.taps + k];
                    }
            column += width;
        }
    }
    const float* at(int64_t depth) const { return made_.at(depth).data(); }

  private:
    const float* weight_;
    KernelShape kernel_;
    int64_t all_;
    const Blocks& blocks_;
    bool transposed_;
    std::map<int64_t, std::vector<float>> made_;
};

// One input channel: features and tree in one array, which the inner loop reads faster.
inline std::vector<float> joined_rows(const float* features, const float* tree, StageSize size) {
    std::vector<float> joined(size.rows + size.tree_rows + 1);
    std::copy(features, features + size.rows, joined.begin());
    std::copy(tree, tree + size.tree_rows + 1, joined.begin() + size.rows);
    return joined;
}

inline void cut_columns(const ConvTable& table, int64_t columns, Blocks& blocks) {
    if (columns > 8192) throw std::invalid_argument("more than 8192 channels");
    table.cut(columns, blocks);
}

}  // namespace aprcnn
