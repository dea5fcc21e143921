// Reading voxels of any type, stride and byte order as float32.
#include <cstring>

#include "convert_voxels.hpp"

namespace aprcnn {

namespace {

template <class T, bool swap>
void read_run(const char* from, int64_t stride, int64_t count, float* APRCNN_NOALIAS out) {
    if (stride == static_cast<int64_t>(sizeof(T))) {
        for (int64_t i = 0; i < count; ++i) out[i] = as_float(voxel<T, swap>(from + i * static_cast<int64_t>(sizeof(T))));
    } else {
        for (int64_t i = 0; i < count; ++i) out[i] = as_float(voxel<T, swap>(from + i * stride));
    }
}

}  // namespace

void Source::read(int64_t z, int64_t y, int64_t x0, int64_t count, float* out) const {
    const char* from = at(z, y, x0);
    with_voxels(*this, [&](auto type) {
        using V = decltype(type);
        read_run<typename V::type, V::swap>(from, stride[2], count, out);
    });
}

bool Job::run(int64_t count, const std::function<void(int64_t)>& task) {
    Poll poll;
    if (poll_) {
        poll = [this](double share) {
            last_ = std::chrono::steady_clock::now();
            const double done = from_ + (to_ - from_) * (part_from_ + (part_to_ - part_from_) * share);
            shown_ = std::max(shown_, std::min(done, 1.0));
            return poll_(shown_);
        };
        // Loops shorter than the watcher's period would never ask.
        if (std::chrono::steady_clock::now() - last_ > std::chrono::milliseconds(40) && poll(0.0)) return false;
    }
    return parallel_for(count, threads_, [&task](int64_t i, int, const StopFlag&) { task(i); }, poll);
}

}  // namespace aprcnn
