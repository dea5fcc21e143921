// Any integer labels to 1..n.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace aprcnn {

// Labels of any integer type (0 = background) become 1..n in the order of their first voxel. Returns n, or -1 if a
// label is negative.
template <class T>
int64_t compact_labels(const T* labels, int64_t size, uint32_t* out) {
    constexpr uint64_t direct_limit = uint64_t{1} << 22;
    std::vector<uint32_t> direct;                     // small ids: a table
    std::unordered_map<uint64_t, uint32_t> sparse;    // huge ids: a map
    uint32_t n = 0;
    T last_id = 0;
    uint32_t last = 0;
    for (int64_t i = 0; i < size; ++i) {
        const T id = labels[i];
        if (id != last_id) {
            if constexpr (T(-1) < T(0)) {
                if (id < T(0)) return -1;
            }
            last_id = id;
            const uint64_t key = static_cast<uint64_t>(id);
            if (key == 0) {
                last = 0;
            } else if (key < direct_limit) {
                if (key >= direct.size()) direct.resize(static_cast<size_t>(key) + key / 2 + 64, 0);
                uint32_t& slot = direct[static_cast<size_t>(key)];
                if (slot == 0) slot = ++n;
                last = slot;
            } else {
                uint32_t& slot = sparse[key];
                if (slot == 0) slot = ++n;
                last = slot;
            }
        }
        out[i] = last;
    }
    return n;
}

}  // namespace aprcnn
