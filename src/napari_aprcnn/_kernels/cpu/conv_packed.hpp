// What the outer loops of the convolutions share: weights packed for the inner loops, and how columns are cut.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <stdexcept>
#include <vector>

#include "conv.hpp"
#include "pages.hpp"
#include "parallel.hpp"
#include "particles.hpp"

namespace aprcnn {

// Depths that some rows use, each with its packed weights.
class Packed {
  public:
    // Transposed: columns are the input channels, as the gradient of the input needs them. Weights of some of `all` input channels
    // begin at the first of them.
    Packed(const float* weight, KernelShape kernel, const Blocks& blocks, bool transposed, int64_t all = 0)
        : weight_(weight), kernel_(kernel), all_(all == 0 ? kernel.in : all), blocks_(blocks), transposed_(transposed) {}

    // Weights of these depths; those that are there already, too.
    void prepare(const std::set<int64_t>& depths, int threads) {
        const int64_t sums = transposed_ ? kernel_.out : kernel_.in;
        std::vector<Piece> pieces;
        for (const int64_t depth : depths) {
            if (depth < 0 || depth >= kernel_.depths) throw std::invalid_argument("a segment is deeper than the weights");
            if (made_.count(depth) != 0) continue;
            AlignedFloats& to = made_[depth];
            to.resize(blocks_.padded() * kernel_.taps * sums);
            int64_t column = 0;
            for (int b = 0; b < blocks_.count; column += blocks_.width[b], ++b)
                pieces.push_back({depth, column, blocks_.width[b], to.data() + column * kernel_.taps * sums});
        }
        const int64_t count = static_cast<int64_t>(pieces.size()) * kernel_.taps;
        const int64_t work = count * sums * blocks_.padded() / std::max(blocks_.count, 1);
        parallel_for(count, work > 50000 ? threads : 1, [&](int64_t task, int, const StopFlag&) {
            pack(pieces[task / kernel_.taps], task % kernel_.taps);
        });
    }
    void forget() { made_.clear(); }
    const float* at(int64_t depth) const { return made_.at(depth).data(); }

  private:
    struct Piece {
        int64_t depth, column, width;
        float* to;
    };

    void pack(const Piece& piece, int64_t tap) const {
        const int64_t columns = transposed_ ? kernel_.in : kernel_.out, sums = transposed_ ? kernel_.out : kernel_.in;
        const float* from = weight_ + piece.depth * kernel_.out * all_ * kernel_.taps + tap;
        float* to = piece.to + tap * sums * piece.width;
        for (int64_t i = 0; i < sums; ++i, to += piece.width)
            for (int64_t c = 0; c < piece.width; ++c) {
                const int64_t column = piece.column + c, o = transposed_ ? i : column, n = transposed_ ? column : i;
                to[c] = column < columns ? from[(o * all_ + n) * kernel_.taps] : 0.0f;
            }
    }

    const float* weight_;
    KernelShape kernel_;
    int64_t all_;
    const Blocks& blocks_;
    bool transposed_;
    std::map<int64_t, AlignedFloats> made_;
};

// One input channel: features and tree in one array, which the inner loop reads faster.
template <class T>
std::vector<T> joined_rows(const T* features, const T* tree, StageSize size) {
    std::vector<T> joined(size.rows + size.tree_rows + 1);
    std::copy(features, features + size.rows, joined.begin());
    std::copy(tree, tree + size.tree_rows + 1, joined.begin() + size.rows);
    return joined;
}

inline void cut_columns(const ConvTable& table, int64_t columns, Blocks& blocks) {
    if (columns > 8192) throw std::invalid_argument("more than 8192 channels");
    table.cut(columns, blocks);
}

}  // namespace aprcnn
