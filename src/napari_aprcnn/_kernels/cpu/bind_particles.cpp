#include "binding.hpp"
#include "cells.hpp"

namespace aprcnn {

namespace {

using namespace nb::literals;
using Table = Array<const int32_t>;

// Shape of a grid [z, y, x, ...].
template <class A>
void grid_shape(const A& array, int64_t* shape) {
    if (array.ndim() < 3) throw std::invalid_argument("expected a grid of 3 axes");
    for (int axis = 0; axis < 3; ++axis) shape[axis] = static_cast<int64_t>(array.shape(axis));
}

int64_t cell_count(const Table& cells) {
    if (cells.ndim() != 2 || cells.shape(1) != 4) throw std::invalid_argument("expected cells [n, 4]");
    return static_cast<int64_t>(cells.shape(0));
}

template <class T>
void bind_cells(nb::module_& m) {
    m.def("average_cells", [](const Array<const T>& image, const Table& cells, const Array<double>& out, int threads) {
        int64_t shape[3];
        grid_shape(image, shape);
        const int64_t count = cell_count(cells);
        same_size(out.size(), count, "out does not fit the cells");
        const nb::gil_scoped_release released;
        average_cells(image.data(), cells.data(), count, shape, out.data(), threads);
    }, "image"_a.noconvert(), "cells"_a.noconvert(), "out"_a.noconvert(), "threads"_a);
}

template <class T>
void bind_paint(nb::module_& m) {
    m.def("paint_cells", [](const Array<const T>& values, const Table& cells, const Array<T>& out, int threads) {
        int64_t shape[3];
        grid_shape(out, shape);
        const int64_t count = cell_count(cells);
        const int64_t channels = count == 0 ? 1 : static_cast<int64_t>(values.size()) / count;
        same_size(values.size(), count * channels, "values do not fit the cells");
        same_size(out.size(), shape[0] * shape[1] * shape[2] * channels, "out does not fit the values");
        const nb::gil_scoped_release released;
        paint_cells(reinterpret_cast<const uint8_t*>(values.data()), cells.data(), count,
                    channels * static_cast<int64_t>(sizeof(T)), shape, reinterpret_cast<uint8_t*>(out.data()), threads);
    }, "values"_a.noconvert(), "cells"_a.noconvert(), "out"_a.noconvert(), "threads"_a);
}

}  // namespace

void bind_particles(nb::module_& m) {
    bind_cells<uint8_t>(m);
    bind_cells<uint16_t>(m);
    bind_cells<float>(m);
    bind_cells<double>(m);
    bind_paint<uint8_t>(m);
    bind_paint<uint16_t>(m);
    bind_paint<uint32_t>(m);
    bind_paint<uint64_t>(m);

    m.def("sum_cells", [](const Array<const float>& dense, const Table& cells, bool mean, const Array<float>& out,
                          int threads) {
        int64_t shape[3];
        grid_shape(dense, shape);
        const int64_t count = cell_count(cells);
        const int64_t channels = static_cast<int64_t>(dense.size()) / (shape[0] * shape[1] * shape[2]);
        same_size(out.size(), count * channels, "out does not fit the cells");
        const nb::gil_scoped_release released;
        sum_cells(dense.data(), cells.data(), count, channels, shape, mean, out.data(), threads);
    }, "dense"_a.noconvert(), "cells"_a.noconvert(), "mean"_a, "out"_a.noconvert(), "threads"_a);
}

}  // namespace aprcnn
