#include "planes.hpp"

#include <algorithm>
#include <vector>

#include "conv.hpp"
#include "parallel.hpp"
#include "planes_rows.hpp"

namespace aprcnn {

namespace {

// --- a pair of convolutions ----------------------------------------------------------------------------------------------

class PairBand {
  public:
    PairBand(const PairBlock& block, Scratch& from) : b_(block), k_(planes_table()) {
        const int64_t w = b_.width, c = b_.channels, m = b_.first.mix.columns, n = b_.second.mix.columns;
        rows1_ = 2 * b_.first.dilation + 1;
        rows2_ = 2 * b_.second.dilation + 1;
        chunk1_ = chunk_of(c);
        chunk2_ = chunk_of(m);
        const bool planes = b_.source == Source::planes;
        const size_t inner = planes ? static_cast<size_t>(c) * Ring::need(rows1_, w, 1) : Ring::need(rows1_, w, c);
        from.start(inner + Ring::need(rows2_, w, m) + rounded(chunk1_ * c) + rounded(chunk2_ * m) +
                   rounded(w * c) + 2 * rounded(w * n) + 2 * rounded(chunk2_ * n));
        if (planes)
            for (int64_t i = 0; i < c; ++i) inner_.emplace_back(from, rows1_, b_.height, w, 1);
        else
            inner_.emplace_back(from, rows1_, b_.height, w, c);
        outer_ = Ring(from, rows2_, b_.height, w, m);
        spread1_ = from.take(static_cast<size_t>(chunk1_ * c));
        spread2_ = from.take(static_cast<size_t>(chunk2_ * m));
        lines_ = from.take(static_cast<size_t>(w * c));
        projected_ = from.take(static_cast<size_t>(w * n));
        residual_ = from.take(static_cast<size_t>(w * n));
        result_ = from.take(static_cast<size_t>(chunk2_ * n));
        active_ = from.take(static_cast<size_t>(chunk2_ * n));
    }

    void run(int64_t first, int64_t last) {
        const int64_t d1 = b_.first.dilation, d2 = b_.second.dilation;
        for (int64_t y = first - d1 - d2; y < last + d1 + d2; ++y) {
            if (y >= 0 && y < b_.height) make_inner(y);
            const int64_t middle = y - d1;
            if (middle >= std::max<int64_t>(0, first - d2) && middle < std::min(b_.height, last + d2)) make_outer(middle);
            const int64_t done = middle - d2;
            if (done >= first && done < last) make_result(done);
        }
    }

  private:
    const float* source_row(int64_t y) const {
        const int64_t w = b_.width, c = b_.channels;
        return b_.source == Source::doubled ? b_.x + y / 2 * (w / 2) * c : b_.x + y * w * c;
    }

    void make_inner(int64_t y) {
        const int64_t w = b_.width, c = b_.channels;
        if (b_.source == Source::planes) {
            for (int64_t i = 0; i < c; ++i)
                k_.plane_line(b_.x + (i * b_.height + y) * w, w, b_.scale[i], b_.shift[i], inner_[i].row(y));
            return;
        }
        float* to = inner_[0].row(y);
        if (b_.source == Source::doubled) {
            if (line_row_ != y / 2) k_.line(source_row(y), w / 2, c, b_.scale, b_.shift, lines_);
            line_row_ = y / 2;
            twice(lines_, w / 2, c, to);
        } else {
            k_.line(source_row(y), w, c, b_.scale, b_.shift, to);
        }
    }

    void make_outer(int64_t y) {
        const int64_t w = b_.width, c = b_.channels, m = b_.first.mix.columns, d = b_.first.dilation;
        const bool planes = b_.source == Source::planes;
        float* to = outer_.row(y);
        for (int64_t x = 0; x < w; x += chunk1_) {
            const int64_t n = std::min(chunk1_, w - x);
            const int64_t pixel = planes ? 1 : c;
            Mix mix = planes ? mix_of_planes(b_.first.mix, spread1_, chunk1_, to + x * m, m)
                             : mix_of(b_.first.mix, spread1_, c, to + x * m, m);
            for (size_t i = 0; i < inner_.size(); ++i) {
                const float* at[3];
                for (int r = 0; r < 3; ++r) at[r] = inner_[i].row(y + (r - 1) * d) + x * pixel;
                if (planes)
                    k_.plane_taps(at, b_.first.taps + i, c, d, n, spread1_ + static_cast<int64_t>(i) * chunk1_);
                else
                    spread(k_, at, b_.first.taps, c, d, n, spread1_, mix);
            }
            mix.relu = true;
            if (b_.add != nullptr) {
                mix.add = b_.add + (y * w + x) * m;
                mix.add_stride = m;
                mix.add_next = w * m;
                mix.add_scale = b_.add_scale;
            }
            aprcnn::mix(k_, mix, n);
        }
    }

    // What is added to the result; null for nothing.
    const float* residual(int64_t y) {
        const int64_t w = b_.width, n = b_.second.mix.columns;
        if (b_.identity) return b_.x + y * w * n;
        if (b_.projection.weights == nullptr) return nullptr;
        if (b_.source == Source::planes) {
            k_.mix(mix_of_planes(b_.projection, b_.x + y * w, b_.height * w, residual_, n), w);
        } else if (b_.source == Source::doubled) {
            if (projected_row_ != y / 2) {
                aprcnn::mix(k_, mix_of(b_.projection, source_row(y), b_.channels, projected_, n), w / 2);
                twice(projected_, w / 2, n, residual_);
            }
            projected_row_ = y / 2;
        } else {
            aprcnn::mix(k_, mix_of(b_.projection, source_row(y), b_.channels, residual_, n), w);
        }
        return residual_;
    }

    void make_result(int64_t y) {
        const int64_t w = b_.width, m = b_.first.mix.columns, n = b_.second.mix.columns, d = b_.second.dilation;
        const float* rows[3] = {outer_.row(y - d), outer_.row(y), outer_.row(y + d)};
        const float* extra = residual(y);
        const bool ends = b_.head.weights != nullptr;
        for (int64_t x = 0; x < w; x += chunk2_) {
            const int64_t count = std::min(chunk2_, w - x);
            const float* at[3] = {rows[0] + x * m, rows[1] + x * m, rows[2] + x * m};
            Mix mix = mix_of(b_.second.mix, spread2_, m, ends ? result_ : b_.out + (y * w + x) * n, n);
            spread(k_, at, b_.second.taps, m, d, count, spread2_, mix);
            if (!ends) mix.out_next = w * n;
            if (extra != nullptr) {
                mix.add = extra + x * n;
                mix.add_stride = n;
                if (b_.identity) mix.add_next = w * n;
            }
            aprcnn::mix(k_, mix, count);
            if (!ends) continue;
            k_.line(result_, count, n, b_.head_scale, b_.head_shift, active_);
            k_.heads(active_, count, n, b_.head.weights, b_.head.bias, b_.heads, b_.height * w, b_.out + y * w + x);
        }
        if (b_.pooled != nullptr && y % 2 == 1) {  // bands begin at even rows
            const float* below = b_.out + y * w * n;
            k_.pool(below - w * n, below, w / 2, n, b_.pooled + y / 2 * (w / 2) * n);
        }
    }

    const PairBlock& b_;
    const PlanesTable& k_;
    int64_t rows1_, rows2_, chunk1_, chunk2_;
    std::vector<Ring> inner_;  // one, or one for each plane
    Ring outer_;
    float *spread1_, *spread2_, *lines_, *projected_, *residual_, *result_, *active_;
    int64_t line_row_ = -1, projected_row_ = -1;
};

// Bands of rows, one for each thread, or more where they are long: the rows around a band are computed twice.
template <class Work>
void in_bands(int64_t first, int64_t last, int64_t least, int threads, const Work& work) {
    const int64_t rows = last - first;
    int64_t count = std::max<int64_t>(1, std::min<int64_t>(threads, rows / least));
    while (rows / (2 * count) >= 8 * least && count < 64) count *= 2;
    parallel_for(count, threads, [&](int64_t i, int, const StopFlag&) {
        // Even rows, as pairs of rows come from one row of the coarser scale.
        const int64_t from = first + rows * i / count / 2 * 2, to = i + 1 == count ? last : first + rows * (i + 1) / count / 2 * 2;
        if (from < to) work(from, to);
    });
}

// --- the decoder without residuals -----------------------------------------------------------------------------------------

class DecoderBand {
  public:
    DecoderBand(const PlainDecoder& net, int64_t first, int64_t last, Scratch& from) : net_(net), k_(planes_table()) {
        size_t need = 0;
        for (int s = 0; s < 4; ++s) {
            const int64_t own = net_.scale[s].channels;
            need += Ring::need(4, width(s), own) + rounded(chunk_of(own) * own);
            if (s > 0) need += rounded(chunk_of(own) * net_.scale[s - 1].channels);
        }
        const int64_t c = net_.scale[0].channels, chunk = chunk_of(c);
        from.start(need + rounded(chunk * net_.last.columns));
        for (int s = 0; s < 4; ++s) {
            ring_[s] = Ring(from, 4, height(s), width(s), net_.scale[s].channels);
            spread_[s] = from.take(static_cast<size_t>(chunk_of(net_.scale[s].channels) * net_.scale[s].channels));
            if (s > 0) coarse_[s] = from.take(static_cast<size_t>(chunk_of(net_.scale[s].channels) * net_.scale[s - 1].channels));
        }
        active_ = from.take(static_cast<size_t>(chunk * net_.last.columns));
        // Depthwise rows that are needed at every scale, and rows of t around them.
        wanted_[0] = {first, last};
        for (int s = 0; s < 4; ++s) {
            if (s > 0) wanted_[s] = {rows_[s - 1].first / 2, (rows_[s - 1].last + 1) / 2};
            rows_[s] = {std::max<int64_t>(0, wanted_[s].first - 1), std::min(height(s), wanted_[s].last + 1)};
        }
    }

    void run() {
        const PlainScale& coarse = net_.scale[3];
        for (int64_t y = rows_[3].first; y < rows_[3].last; ++y) {
            k_.line(coarse.skip + y * width(3) * coarse.channels, width(3), coarse.channels, coarse.add_scale, coarse.shift,
                    ring_[3].row(y));
            arrived(3, y);
        }
    }

  private:
    struct Range {
        int64_t first, last;
        bool holds(int64_t y) const { return y >= first && y < last; }
    };

    int64_t height(int s) const { return net_.height >> s; }
    int64_t width(int s) const { return net_.width >> s; }

    // Row y of t is there: the row above it is complete, and y itself where the image ends.
    void arrived(int s, int64_t y) {
        if (wanted_[s].holds(y - 1)) convolve(s, y - 1);
        if (y == height(s) - 1 && wanted_[s].holds(y)) convolve(s, y);
    }

    void convolve(int s, int64_t y) {
        const int64_t w = width(s), c = net_.scale[s].channels, chunk = chunk_of(c);
        const float* rows[3] = {ring_[s].row(y - 1), ring_[s].row(y), ring_[s].row(y + 1)};
        for (int64_t x = 0; x < w; x += chunk) {
            const int64_t n = std::min(chunk, w - x);
            const float* at[3] = {rows[0] + x * c, rows[1] + x * c, rows[2] + x * c};
            // Both products of a row, and all of its columns, read the same rounded pixels.
            Mix mix = mix_of(s > 0 ? net_.scale[s].up[0] : net_.last, spread_[s], c, nullptr, 0);
            spread(k_, at, net_.scale[s].taps, c, 1, n, spread_[s], mix);
            if (s > 0)
                raise(s, y, x, n, mix.x_halves);
            else
                finish(y, x, n, mix.x_halves);
        }
        if (s > 0)
            for (int64_t i = 0; i < 2; ++i)
                if (rows_[s - 1].holds(2 * y + i)) arrived(s - 1, 2 * y + i);
    }

    void raise(int s, int64_t y, int64_t x, int64_t n, const uint16_t* rounded) {
        const PlainScale &from = net_.scale[s], &to = net_.scale[s - 1];
        const int64_t both = 2 * to.channels;  // of two pixels
        if (net_.doubled) {
            Mix mix = mix_of(from.up[0], spread_[s], from.channels, coarse_[s], to.channels);
            mix.x_halves = rounded;
            aprcnn::mix(k_, mix, n);
            for (int64_t row = 2 * y; row < 2 * y + 2; ++row) {
                if (!rows_[s - 1].holds(row)) continue;
                const float* skip = to.skip + row * width(s - 1) * to.channels + x * both;
                k_.join(coarse_[s], skip, to.add_scale, 2 * width(s - 1) * to.channels, n, to.channels,
                        ring_[s - 1].row(row) + x * both);
            }
            return;
        }
        for (int64_t i = 0; i < 2; ++i) {
            const int64_t row = 2 * y + i;
            if (!rows_[s - 1].holds(row)) continue;
            Mix mix = mix_of(from.up[i], spread_[s], from.channels, ring_[s - 1].row(row) + x * both, both);
            mix.relu = true;
            mix.add = to.skip + (row * width(s - 1)) * to.channels + x * both;
            mix.add_scale = to.add_scale;
            mix.add_stride = both;
            mix.add_next = 2 * width(s - 1) * to.channels;
            mix.x_halves = rounded;
            aprcnn::mix(k_, mix, n);
        }
    }

    void finish(int64_t y, int64_t x, int64_t n, const uint16_t* rounded) {
        Mix mix = mix_of(net_.last, spread_[0], net_.scale[0].channels, active_, net_.last.columns);
        mix.relu = true;
        mix.x_halves = rounded;
        aprcnn::mix(k_, mix, n);
        k_.heads(active_, n, net_.last.columns, net_.head.weights, net_.head.bias, net_.heads, net_.height * net_.width,
                 net_.out + y * net_.width + x);
    }

    const PlainDecoder& net_;
    const PlanesTable& k_;
    Ring ring_[4];
    float *spread_[4], *coarse_[4] = {};
    float* active_;
    Range wanted_[4], rows_[4];
};

}  // namespace

const PlanesTable& planes_table() {
#if defined(APRCNN_X86_VARIANTS)
    const ConvTable* conv = &conv_table();
    if (conv == &conv_avx512) return planes_avx512;
    if (conv == &conv_avx2) return planes_avx2;
#endif
    return planes_plain;
}

void run_pair(const PairBlock& block, int64_t first, int64_t last, int threads) {
    in_bands(first, last, 16, threads, [&](int64_t from, int64_t to) { PairBand(block, scratch()).run(from, to); });
}

void run_plain_decoder(const PlainDecoder& net, int64_t first, int64_t last, int threads) {
    in_bands(first, last, 64, threads, [&](int64_t from, int64_t to) { DecoderBand(net, from, to, scratch()).run(); });
}

void run_up(const Up& of, int threads) {
    const PlanesTable& k = planes_table();
    parallel_for(of.height, threads, [&](int64_t y, int, const StopFlag&) {
        for (int64_t i = 0; i < 2; ++i) {
            const Pointwise& up = of.rows[i];
            const int64_t row = (2 * y + i) * of.width * up.columns;
            Mix work = mix_of(up, of.x + y * of.width * up.channels, up.channels, of.out + row, up.columns);
            work.relu = of.relu;
            if (of.add != nullptr) {
                work.add = of.add + row;
                work.add_scale = of.add_scale;
                work.add_stride = up.columns;
                if (y + 1 < of.height) work.add_next = 2 * of.width * up.columns;
            }
            mix(k, work, of.width);
        }
    });
}

}  // namespace aprcnn
