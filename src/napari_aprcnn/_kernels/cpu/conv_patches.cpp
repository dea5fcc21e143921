// Convolution 3 x 3 x 3 of rows in blocks of siblings: by minimal filtering where blocks are full, else tap by tap. One table of
// patches takes the place of a neighbour table a quarter as many rows long, and a second source of channels that of a
// concatenation.
#include <algorithm>
#include <cstring>
#include <map>
#include <stdexcept>
#include <vector>

#include "conv.hpp"
#include "conv_blocks.hpp"
#include "conv_packed.hpp"
#include "parallel.hpp"
#include "particles.hpp"

namespace aprcnn {

namespace {

constexpr int64_t rows_together = 14 * 12;  // a multiple of the rows that the inner loops take at once

struct PatchTask {
    const BlockList* list;
    int64_t first, last, depth;
};

// One input channel: features and tree in one array, which the inner loop reads faster.
std::vector<float> joined_rows(const ConvSource& source) {
    std::vector<float> joined(source.size.rows + source.size.tree_rows + 1);
    std::copy(source.features, source.features + source.size.rows, joined.begin());
    std::copy(source.tree, source.tree + source.size.tree_rows + 1, joined.begin() + source.size.rows);
    return joined;
}

// Channels from..from+count of weights [depths][out][in][taps].
std::vector<float> weight_part(const float* weight, const KernelShape& kernel, int64_t from, int64_t count) {
    std::vector<float> part(kernel.depths * kernel.out * count * kernel.taps);
    for (int64_t i = 0; i < kernel.depths * kernel.out; ++i)
        std::copy_n(weight + (i * kernel.in + from) * kernel.taps, count * kernel.taps, part.begin() + i * count * kernel.taps);
    return part;
}

class PatchRun {
  public:
    PatchRun(const ConvSource* sources, int source_count, StageSize size, const float* weight, KernelShape kernel,
             const float* bias, const int32_t* patches, const int32_t* children, float* out)
        : conv_(conv_table()), sources_(sources), count_(source_count), size_(size), weight_(weight), kernel_(kernel),
          inside_{kernel.in, sources[0].channels}, patches_(patches), children_(children), out_(out) {
        cut_columns(conv_, kernel.out, blocks_);
        bias_.assign(blocks_.padded(), 0.0f);
        nothing_ = bias_;
        if (bias != nullptr) std::copy(bias, bias + kernel.out, bias_.begin());
        if (kernel.in == 1) joined_ = joined_rows(sources[0]);
        int64_t before = 0;
        for (int s = 0; s < count_; ++s) {
            const ConvSource& source = sources[s];
            const float* features = joined_.empty() ? source.features : joined_.data();
            const float* tree = joined_.empty() ? source.tree : joined_.data() + source.size.rows;
            from_.emplace_back(features, tree, source.size.rows, source.channels);
            KernelShape own = kernel;
            own.in = source.channels;
            if (count_ > 1) parts_.push_back(weight_part(weight, kernel, before, source.channels));
            packed_.emplace_back(count_ > 1 ? parts_.back().data() : weight, own, blocks_, false);
            before += source.channels;
        }
    }
    PatchRun(const PatchRun&) = delete;
    PatchRun& operator=(const PatchRun&) = delete;

    bool filters() const { return fits_blocks(kernel_, inside_); }

    void prepare(const std::vector<PatchTask>& tasks, int threads) {
        std::map<int64_t, AlignedFloats> found;
        for (const PatchTask& task : tasks) {
            if (task.depth < 0 || task.depth >= kernel_.depths) throw std::invalid_argument("a segment is deeper than the weights");
            if (task.list->filtered && filters())
                filters_[task.depth];
            else
                for (Packed& one : packed_) one.prepare(task.depth);
        }
        std::vector<int64_t> depths;
        for (const auto& one : filters_) depths.push_back(one.first);
        parallel_for(static_cast<int64_t>(depths.size()), threads, [&](int64_t i, int, const StopFlag&) {
            const float* own = weight_ + depths[i] * kernel_.out * kernel_.in * kernel_.taps;
            filters_.at(depths[i]) = block_weights(own, kernel_, inside_, blocks_);
        });
    }

    int64_t scratch() const {
        const int64_t plain = count_ * rows_together * kernel_.out + 16;
        return std::max(plain, filters() ? block_scratch(kernel_, blocks_) : 0);
    }

    void filtered(const PatchTask& task, float* room) const {
        std::vector<int32_t> mapped(count_ > 1 ? 64 * blocks_together : 0), own(64 * blocks_together), rows(8 * blocks_together);
        for (int64_t block = task.first; block < task.last; block += blocks_together) {
            const int64_t count = std::min(blocks_together, task.last - block);
            for (int64_t b = 0; b < count; ++b) {
                std::memcpy(own.data() + 64 * b, patch(task, block + b), 64 * sizeof(int32_t));
                const int32_t* here = children_ + 8 * static_cast<int64_t>(task.list->nodes[block + b]);
                for (int child = 0; child < 8; ++child) rows[8 * b + child] = here[child] < size_.rows ? here[child] : -1;
            }
            const int32_t* tables[2] = {own.data(), mapped.data()};
            if (count_ > 1)
                for (int64_t i = 0; i < 64 * count; ++i) mapped[i] = sources_[1].places[own[i]];
            conv_.blocks(from_.data(), count_, tables, rows.data(), count, blocks_, filters_.at(task.depth).data(), bias_.data(),
                         kernel_.out, out_, room);
        }
    }

    void plain(const PatchTask& task, float* room) const {
        std::vector<int32_t> taps(27 * rows_together), rows(rows_together);
        int64_t held = 0;
        for (int64_t block = task.first; block < task.last; ++block) {
            const int32_t* at = patch(task, block);
            const int32_t* here = children_ + 8 * static_cast<int64_t>(task.list->nodes[block]);
            for (int child = 0; child < 8; ++child) {
                if (here[child] >= size_.rows) continue;
                const int32_t* first = at + 16 * (child / 4) + 4 * (child / 2 % 2) + child % 2;
                int32_t* to = taps.data() + 27 * held;
                for (int line = 0; line < 9; ++line, to += 3)
                    std::memcpy(to, first + 16 * (line / 3) + 4 * (line % 3), 3 * sizeof(int32_t));
                rows[held++] = here[child];
                if (held < rows_together) continue;
                plain_rows(task.depth, taps, rows, held, room);
                held = 0;
            }
        }
        plain_rows(task.depth, taps, rows, held, room);
    }

  private:
    const int32_t* patch(const PatchTask& task, int64_t block) const {
        return patches_ + 64 * static_cast<int64_t>(task.list->blocks[block]);
    }

    void plain_rows(int64_t depth, std::vector<int32_t>& taps, const std::vector<int32_t>& rows, int64_t count, float* room) const {
        for (int s = 0; s < count_; ++s) {
            if (s > 0)
                for (int64_t i = 0; i < 27 * count; ++i) taps[i] = sources_[s].places[taps[i]];
            conv_.forward(from_[s], {taps.data(), 27}, blocks_, packed_[s].at(depth), s == 0 ? bias_.data() : nothing_.data(),
                          kernel_.out, 0, count, room + s * rows_together * kernel_.out);
        }
        const float* second = room + rows_together * kernel_.out;
        for (int64_t i = 0; i < count; ++i) {
            float* to = out_ + rows[i] * kernel_.out;
            std::memcpy(to, room + i * kernel_.out, kernel_.out * sizeof(float));
            if (count_ > 1)
                for (int64_t c = 0; c < kernel_.out; ++c) to[c] += second[i * kernel_.out + c];
        }
    }

    const ConvTable& conv_;
    const ConvSource* sources_;
    int count_;
    StageSize size_;
    const float* weight_;
    KernelShape kernel_;
    Inside inside_;
    const int32_t *patches_, *children_;
    float* out_;
    Blocks blocks_;
    std::vector<float> bias_, nothing_, joined_;
    std::vector<Rows2> from_;
    std::vector<std::vector<float>> parts_;
    std::vector<Packed> packed_;
    std::map<int64_t, AlignedFloats> filters_;  // of the depths with full blocks
};

}  // namespace

void conv_patches(const ConvSource* sources, int source_count, StageSize size, const float* weight, KernelShape kernel,
                  const float* bias, const int32_t* patches, int64_t block_count, const int32_t* children, Segments segments,
                  float* out, int threads) {
    for (int64_t s = 0; s < segments.count; ++s)
        if (segments.data[3 * s] < 0 || segments.data[3 * s + 1] > size.rows)
            throw std::invalid_argument("a segment reaches outside the rows");
    const std::vector<BlockList> lists = list_blocks(children, size, segments);
    int64_t blocks = 0;
    for (const BlockList& list : lists) blocks += static_cast<int64_t>(list.blocks.size());
    if (blocks != block_count) throw std::invalid_argument("the patches are not those of the children");
    PatchRun run(sources, source_count, size, weight, kernel, bias, patches, children, out);
    std::vector<PatchTask> tasks;
    for (int64_t s = 0; s < segments.count; ++s) {
        const auto number = static_cast<int64_t>(lists[s].blocks.size());
        const int64_t step = (lists[s].filtered && run.filters() ? 8 : 21) * blocks_together;
        for (int64_t block = 0; block < number; block += step)
            tasks.push_back({&lists[s], block, std::min(number, block + step), segments.data[3 * s + 2]});
    }
    run.prepare(tasks, threads);
    std::vector<AlignedFloats> rooms(std::max(threads, 1) + 1);
    parallel_for(static_cast<int64_t>(tasks.size()), threads, [&](int64_t t, int worker, const StopFlag&) {
        rooms.at(worker).resize(run.scratch());
        float* room = rooms.at(worker).data();
        if (tasks[t].list->filtered && run.filters())
            run.filtered(tasks[t], room);
        else
            run.plain(tasks[t], room);
    });
}

}  // namespace aprcnn
