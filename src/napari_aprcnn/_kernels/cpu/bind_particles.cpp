#include <string>
#include <vector>

#include "binding.hpp"
#include "cells.hpp"
#include "conv.hpp"
#include "conv_bf16.hpp"
#include "particles.hpp"

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

using Floats = Array<const float>;
using Longs = Array<const int64_t>;

template <class A>
int64_t rows_of(const A& array) { return static_cast<int64_t>(array.shape(0)); }
template <class A>
int64_t columns_of(const A& array) {
    if (array.ndim() != 2) throw std::invalid_argument("expected an array of 2 axes");
    return static_cast<int64_t>(array.shape(1));
}

// weight [depths, out, in, kz, ky, kx] beside a table [rows, taps].
template <class A>
KernelShape kernel_shape(const A& weight, const Table& table) {
    if (weight.ndim() != 6) throw std::invalid_argument("expected a weight of 6 axes");
    KernelShape kernel;
    kernel.depths = static_cast<int64_t>(weight.shape(0));
    kernel.out = static_cast<int64_t>(weight.shape(1));
    kernel.in = static_cast<int64_t>(weight.shape(2));
    kernel.taps = static_cast<int64_t>(weight.shape(3) * weight.shape(4) * weight.shape(5));
    same_size(table.ndim() == 2 ? table.shape(1) : 0, kernel.taps, "the table has other taps than the weight");
    return kernel;
}

Segments segments_of(const Longs& segments) {
    if (columns_of(segments) != 3) throw std::invalid_argument("expected segments [n, 3]");
    return {segments.data(), rows_of(segments)};
}

PoolTable pool_table(const Table& children, const Longs& ranges, int64_t rows) {
    if (columns_of(children) != 8 || columns_of(ranges) != 5) throw std::invalid_argument("expected [n, 8] and [n, 5]");
    return {children.data(), ranges.data(), rows_of(ranges), rows, rows_of(children)};
}

// float32 values of a parameter, or null.
const float* optional_bias(const nb::object& bias, Floats& held, int64_t size) {
    if (bias.is_none()) return nullptr;
    held = nb::cast<Floats>(bias);
    same_size(held.size(), size, "the bias does not fit the weight");
    return held.data();
}

// A forward convolution of features of type T; the bias is float32.
template <class T, class Work>
void bind_forward(nb::module_& m, const char* name, Work work) {
    m.def(name, [work](const Array<const T>& features, const Array<const T>& tree, const Array<const T>& weight,
                       nb::object bias, const Table& table, const Longs& segments, const Array<T>& out, int threads) {
        const KernelShape kernel = kernel_shape(weight, table);
        const StageSize size{rows_of(features), rows_of(tree) - 1};
        same_size(features.size(), size.rows * kernel.in, "features do not fit the weight");
        same_size(tree.size(), (size.tree_rows + 1) * kernel.in, "the tree does not fit the weight");
        same_size(table.size(), size.rows * kernel.taps, "the table does not fit the features");
        same_size(out.size(), size.rows * kernel.out, "out does not fit the features");
        Floats given;
        const float* added = optional_bias(bias, given, kernel.out);
        const nb::gil_scoped_release released;
        work(features.data(), tree.data(), size, weight.data(), kernel, added, table.data(), segments_of(segments), out.data(),
             threads);
    }, "features"_a.noconvert(), "tree"_a.noconvert(), "weight"_a.noconvert(), "bias"_a.none(), "table"_a.noconvert(),
          "segments"_a.noconvert(), "out"_a.noconvert(), "threads"_a);
}

// A second source of channels and where the stage's rows lie in it, or None for all three.
template <class T>
struct SecondSource {
    Array<const T> features, tree;
    Table places;
    SecondSource(const nb::object& given_features, const nb::object& given_tree, const nb::object& given_places) {
        if (given_features.is_none()) return;
        features = nb::cast<Array<const T>>(given_features, false);
        tree = nb::cast<Array<const T>>(given_tree, false);
        places = nb::cast<Table>(given_places, false);
    }
    ConvSource<T> source(StageSize stage) const {
        const StageSize size{rows_of(features), rows_of(tree) - 1};
        const int64_t channels = columns_of(features);
        same_size(tree.size(), (size.tree_rows + 1) * channels, "the second tree does not fit its features");
        same_size(places.size(), stage.rows + stage.tree_rows + 1, "the places are not those of the stage");
        const int32_t* at = places.data();
        for (size_t i = 0; i < places.size(); ++i)
            if (at[i] < 0 || at[i] > size.rows + size.tree_rows) throw std::invalid_argument("a place is none of the second source");
        return {features.data(), tree.data(), size, channels, at};
    }
};

// Features are float or bfloat16; so is what is made of them, bfloat16 of float, too. Weights and bias are float.
template <class T, class O>
void bind_patches(nb::module_& m) {
    m.def("conv_patches", [](const Array<const T>& features, const Array<const T>& tree, const Floats& weight, nb::object bias, const Table& children,
                             const Table& blocks, const Longs& ranges, const Table& around, const Table& cubes,
                             const Table& singles, const Longs& segments, const Longs& cuts, const Array<O>& out, int threads, nb::object second, nb::object second_tree, nb::object places) {
        if (weight.ndim() != 6 || weight.shape(3) != 3 || weight.shape(4) != 3 || weight.shape(5) != 3)
            throw std::invalid_argument("expected a weight [depths, out, in, 3, 3, 3]");
        const auto extent = [&](size_t axis) { return static_cast<int64_t>(weight.shape(axis)); };
        const KernelShape kernel{extent(2), extent(1), 27, extent(0)};
        const StageSize size{rows_of(features), rows_of(tree) - 1};
        const SecondSource<T> held(second, second_tree, places);
        std::vector<ConvSource<T>> sources{{features.data(), tree.data(), size, columns_of(features), nullptr}};
        if (held.features.is_valid()) sources.push_back(held.source(size));
        int64_t channels = 0;
        for (const ConvSource<T>& source : sources) channels += source.channels;
        same_size(channels, kernel.in, "features do not fit the weight");
        same_size(tree.size(), (size.tree_rows + 1) * sources[0].channels, "the tree does not fit the features");
        same_size(out.size(), size.rows * kernel.out, "out does not fit the features");
        if (columns_of(around) != 27 || columns_of(children) != 8 || columns_of(cubes) != 8)
            throw std::invalid_argument("expected around [n, 27], children [n, 8], cubes [n, 8]");
        same_size(rows_of(children), size.tree_rows, "the children do not fit the tree");
        same_size(rows_of(around), rows_of(blocks), "what lies around is not that of the blocks");
        same_size(ranges.size(), 7 * rows_of(segments), "the ranges are not those of the segments");
        const PatchTable table{blocks.data(), around.data(), rows_of(blocks), cubes.data(), singles.data(), rows_of(cubes), rows_of(singles),
                               children.data(), ranges.data(), cuts.data(), static_cast<int64_t>(cuts.size())};
        Floats given;
        const float* added = optional_bias(bias, given, kernel.out);
        const nb::gil_scoped_release released;
        conv_patches(sources.data(), static_cast<int>(sources.size()), size, weight.data(), kernel, added, table,
                     segments_of(segments), out.data(), threads);
    }, "features"_a.noconvert(), "tree"_a.noconvert(), "weight"_a.noconvert(), "bias"_a.none(), "children"_a.noconvert(),
          "blocks"_a.noconvert(), "ranges"_a.noconvert(), "around"_a.noconvert(), "cubes"_a.noconvert(), "singles"_a.noconvert(),
          "segments"_a.noconvert(), "cuts"_a.noconvert(), "out"_a.noconvert(), "threads"_a, "second"_a.none() = nb::none(),
          "second_tree"_a.none() = nb::none(), "places"_a.none() = nb::none());
}

void bind_conv(nb::module_& m) {
    m.def("conv_instruction_set", [] { return std::string(conv_table().name); });

    bind_forward<float>(m, "conv_forward", conv_forward);
    bind_patches<float, float>(m);
    bind_patches<float, uint16_t>(m);
    bind_patches<uint16_t, uint16_t>(m);

    m.def("has_bf16_products", [] { return has_bf16_products(); });

    bind_forward<uint16_t>(m, "conv_forward_bf16", [](const uint16_t* features, const uint16_t* tree, StageSize size,
                                                      const uint16_t* weight, KernelShape kernel, const float* bias,
                                                      const int32_t* table, Segments segments, uint16_t* out, int threads) {
        conv_forward_bf16(features, tree, size, weight, kernel, bias, table, segments, out, threads);
    });

    m.def("conv_input", [](const Floats& grad, const Floats& weight, const Table& table, const Longs& slabs,
                           const Array<float>& grad_features, const Array<float>& grad_tree, int threads) {
        const KernelShape kernel = kernel_shape(weight, table);
        const StageSize size{rows_of(grad), rows_of(grad_tree) - 1};
        same_size(grad.size(), size.rows * kernel.out, "the gradient does not fit the weight");
        same_size(table.size(), size.rows * kernel.taps, "the table does not fit the gradient");
        same_size(grad_features.size(), size.rows * kernel.in, "out does not fit the gradient");
        same_size(grad_tree.size(), (size.tree_rows + 1) * kernel.in, "the tree does not fit the weight");
        if (columns_of(slabs) != 5) throw std::invalid_argument("expected slabs [n, 5]");
        const nb::gil_scoped_release released;
        conv_input(grad.data(), size, weight.data(), kernel, table.data(), slabs.data(), rows_of(slabs),
                   grad_features.data(), grad_tree.data(), threads);
    }, "grad"_a.noconvert(), "weight"_a.noconvert(), "table"_a.noconvert(), "slabs"_a.noconvert(),
          "grad_features"_a.noconvert(), "grad_tree"_a.noconvert(), "threads"_a);

    m.def("conv_weight", [](const Floats& features, const Floats& tree, const Floats& grad, const Table& table,
                            const Longs& segments, const Array<float>& grad_weight, int threads) {
        const KernelShape kernel = kernel_shape(Floats(grad_weight), table);
        const StageSize size{rows_of(features), rows_of(tree) - 1};
        same_size(features.size(), size.rows * kernel.in, "features do not fit the weight");
        same_size(tree.size(), (size.tree_rows + 1) * kernel.in, "the tree does not fit the weight");
        same_size(grad.size(), size.rows * kernel.out, "the gradient does not fit the weight");
        same_size(table.size(), size.rows * kernel.taps, "the table does not fit the features");
        const nb::gil_scoped_release released;
        conv_weight(features.data(), tree.data(), size, grad.data(), kernel, table.data(), segments_of(segments),
                    grad_weight.data(), threads);
    }, "features"_a.noconvert(), "tree"_a.noconvert(), "grad"_a.noconvert(), "table"_a.noconvert(),
          "segments"_a.noconvert(), "grad_weight"_a.noconvert(), "threads"_a);

    m.def("restrict_kernels", [](const Floats& kernels, int64_t steps, bool transposed, const Array<float>& out, int threads) {
        if (kernels.ndim() != 5) throw std::invalid_argument("expected kernels of 5 axes");
        same_size(out.size(), static_cast<int64_t>(kernels.size()), "out does not fit the kernels");
        int64_t size[3];
        for (int axis = 0; axis < 3; ++axis) size[axis] = static_cast<int64_t>(kernels.shape(axis + 2));
        const int64_t count = static_cast<int64_t>(kernels.shape(0) * kernels.shape(1));
        const nb::gil_scoped_release released;
        restrict_kernels(kernels.data(), count, size, steps, transposed, out.data(), threads);
    }, "kernels"_a.noconvert(), "steps"_a, "transposed"_a, "out"_a.noconvert(), "threads"_a);

    m.def("column_sums", [](const Floats& values, const Array<float>& out, int threads) {
        same_size(out.size(), columns_of(values), "out does not fit the values");
        const nb::gil_scoped_release released;
        column_sums(values.data(), rows_of(values), columns_of(values), out.data(), threads);
    }, "values"_a.noconvert(), "out"_a.noconvert(), "threads"_a);
}

// Features are float, or bfloat16.
template <class T>
void bind_between(nb::module_& m) {
    m.def("fill_tree", [](const Array<const T>& features, const Table& children, const Longs& ranges, const Array<T>& tree,
                          int threads) {
        const StageSize size{rows_of(features), rows_of(children)};
        const int64_t channels = columns_of(features);
        same_size(tree.size(), (size.tree_rows + 1) * channels, "the tree does not fit the children");
        const nb::gil_scoped_release released;
        fill_tree(features.data(), size, channels, children.data(), ranges.data(), rows_of(ranges), tree.data(), threads);
    }, "features"_a.noconvert(), "children"_a.noconvert(), "ranges"_a.noconvert(), "tree"_a.noconvert(), "threads"_a);

    m.def("pool", [](const Array<const T>& features, const Table& children, const Longs& ranges, const Array<T>& out,
                     const Array<uint8_t>& slot, int threads) {
        const PoolTable table = pool_table(children, ranges, rows_of(features));
        const int64_t channels = columns_of(features);
        same_size(slot.size(), table.nodes * channels, "slot does not fit the children");
        same_size(out.size(), rows_of(out) * channels, "out does not fit the features");
        const nb::gil_scoped_release released;
        pool(features.data(), channels, table, out.data(), slot.data(), threads);
    }, "features"_a.noconvert(), "children"_a.noconvert(), "ranges"_a.noconvert(), "out"_a.noconvert(),
          "slot"_a.noconvert(), "threads"_a);
}

void bind_pooling(nb::module_& m) {
    bind_between<float>(m);
    bind_between<uint16_t>(m);

    m.def("fill_tree_back", [](const Array<float>& grad_tree, const Table& children, const Longs& ranges,
                               const Array<float>& grad_features, bool add, int threads) {
        const StageSize size{rows_of(grad_features), rows_of(children)};
        const int64_t channels = columns_of(grad_tree);
        same_size(grad_tree.size(), (size.tree_rows + 1) * channels, "the tree does not fit the children");
        same_size(grad_features.size(), size.rows * channels, "out does not fit the gradient");
        const nb::gil_scoped_release released;
        fill_tree_back(grad_tree.data(), size, channels, children.data(), ranges.data(), rows_of(ranges),
                       grad_features.data(), add, threads);
    }, "grad_tree"_a.noconvert(), "children"_a.noconvert(), "ranges"_a.noconvert(), "grad_features"_a.noconvert(),
          "add"_a, "threads"_a);

    m.def("pool_back", [](const Floats& grad, const Array<const uint8_t>& slot, const Table& children, const Longs& ranges,
                          const Array<float>& grad_features, int threads) {
        const PoolTable table = pool_table(children, ranges, rows_of(grad_features));
        const int64_t channels = columns_of(grad);
        same_size(slot.size(), table.nodes * channels, "slot does not fit the children");
        const nb::gil_scoped_release released;
        pool_back(grad.data(), slot.data(), channels, table, grad_features.data(), threads);
    }, "grad"_a.noconvert(), "slot"_a.noconvert(), "children"_a.noconvert(), "ranges"_a.noconvert(),
          "grad_features"_a.noconvert(), "threads"_a);

    m.def("upsample", [](const Floats& features, const Table& children, const Longs& ranges, const Array<float>& out,
                         int threads) {
        const PoolTable table = pool_table(children, ranges, rows_of(out));
        const int64_t channels = columns_of(features);
        const nb::gil_scoped_release released;
        upsample(features.data(), channels, table, out.data(), threads);
    }, "features"_a.noconvert(), "children"_a.noconvert(), "ranges"_a.noconvert(), "out"_a.noconvert(), "threads"_a);

    m.def("upsample_back", [](const Floats& grad, const Table& children, const Longs& ranges,
                              const Array<float>& grad_features, int threads) {
        const PoolTable table = pool_table(children, ranges, rows_of(grad));
        const int64_t channels = columns_of(grad);
        const nb::gil_scoped_release released;
        upsample_back(grad.data(), channels, table, grad_features.data(), threads);
    }, "grad"_a.noconvert(), "children"_a.noconvert(), "ranges"_a.noconvert(), "grad_features"_a.noconvert(), "threads"_a);
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
    bind_conv(m);
    bind_pooling(m);
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
