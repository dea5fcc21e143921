#include "binding.hpp"
#include "stars.hpp"

namespace aprcnn {

using namespace nb::literals;

void bind_stars(nb::module_& m) {
    m.def("ray_distances", [](const Array<const uint32_t>& labels, const Array<const int64_t>& corners,
                              const Array<const uint32_t>& own, const Array<const double>& rays, const Array<float>& out,
                              int threads, nb::object poll) {
        if (labels.ndim() != 3) throw std::invalid_argument("expected labels of 3 axes");
        const int64_t points = static_cast<int64_t>(own.size());
        const int64_t ray_count = static_cast<int64_t>(rays.size() / 3);
        same_size(corners.size(), points * 3, "corners do not fit the points");
        same_size(rays.size(), ray_count * 3, "expected rays [n, 3]");
        same_size(out.size(), points * ray_count, "out does not fit points and rays");
        LabelGrid grid{labels.data(), {}};
        for (int axis = 0; axis < 3; ++axis) grid.shape[axis] = static_cast<int64_t>(labels.shape(axis));
        const Poll asked = poll_of(poll);
        const nb::gil_scoped_release released;
        return ray_distances(grid, corners.data(), own.data(), points, rays.data(), ray_count, out.data(), threads, asked);
    }, "labels"_a.noconvert(), "corners"_a.noconvert(), "own"_a.noconvert(), "rays"_a.noconvert(), "out"_a.noconvert(),
       "threads"_a, "poll"_a.none());
}

}  // namespace aprcnn
