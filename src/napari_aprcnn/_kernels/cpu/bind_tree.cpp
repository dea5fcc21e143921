#include <memory>
#include <utility>

#include "binding.hpp"
#include "tables.hpp"
#include "tree_build.hpp"

namespace aprcnn {

namespace {

using namespace nb::literals;

// Hands a vector over to numpy without a copy.
template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> give(std::vector<T>&& values) {
    auto* kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    const size_t shape[1] = {kept->size()};
    return nb::ndarray<nb::numpy, T, nb::ndim<1>>(kept->data(), 1, shape, owner);
}

using Longs = Array<const int64_t>;
using Shorts = Array<const uint16_t>;

Rows rows_of(const Longs& level_rows, const Longs& offsets, const Shorts& x) {
    Rows rows;
    rows.levels = static_cast<int64_t>(level_rows.size()) - 1;
    rows.level_rows = level_rows.data();
    rows.offsets = offsets.data();
    rows.x = x.data();
    same_size(offsets.size(), rows.level_rows[rows.levels] + 1, "offsets do not fit level_rows");
    same_size(x.size(), rows.count(), "x does not fit offsets");
    return rows;
}

Tree tree_of(const Longs& shape, int64_t level_max, const Longs& level_rows, const Longs& offsets, const Shorts& x,
             const Longs& node_level_rows, const Longs& node_offsets, const Shorts& node_x) {
    same_size(shape.size(), 3, "expected a shape of 3");
    Tree tree;
    for (int axis = 0; axis < 3; ++axis) tree.shape[axis] = shape.data()[axis];
    tree.level_max = level_max;
    tree.particles = rows_of(level_rows, offsets, x);
    tree.nodes = rows_of(node_level_rows, node_offsets, node_x);
    if (tree.particles.levels != level_max + 1 || tree.nodes.levels != level_max)
        throw std::invalid_argument("rows and level_max do not fit");
    return tree;
}

// Keeps the arrays of a tree alive and hands out its view: made once a tree, used for all its tables.
struct TreeHandle {
    Longs shape, level_rows, offsets, node_level_rows, node_offsets;
    Shorts x, node_x;
    Tree tree;
};

Stage stage_of(const TreeHandle& handle, int64_t finest, int64_t feature_base, int64_t tree_base, int64_t outside) {
    if (finest < 1 || finest > handle.tree.level_max) throw std::invalid_argument("no such stage");
    Stage stage;
    stage.tree = &handle.tree;
    stage.finest = finest;
    stage.places = {feature_base, tree_base, outside};
    return stage;
}

}  // namespace

void bind_tree(nb::module_& m) {
    m.def("build_tree", [](const Array<const uint8_t>& levels, const Longs& shape, int64_t level_max, bool check, int threads) {
        same_size(shape.size(), 3, "expected a shape of 3");
        int64_t jump[4] = {-1, 0, 0, 0};
        std::unique_ptr<OwnedRows> particles, nodes;
        {
            int64_t cells = 1;
            for (int axis = 0; axis < 3; ++axis) cells *= cells_at(shape.data()[axis], level_max, level_max - 1);
            same_size(levels.size(), cells, "levels do not fit the shape");
            const nb::gil_scoped_release released;
            const LevelPyramid pyramid(levels.data(), shape.data(), level_max, threads);
            if (check) find_jump(pyramid, jump, threads);
            particles = std::make_unique<OwnedRows>(build_rows(pyramid, false, threads));
            nodes = std::make_unique<OwnedRows>(build_rows(pyramid, true, threads));
        }
        return nb::make_tuple(give(std::move(particles->level_rows)), give(std::move(particles->offsets)),
                              give(std::move(particles->x)), give(std::move(nodes->level_rows)),
                              give(std::move(nodes->offsets)), give(std::move(nodes->x)),
                              nb::make_tuple(jump[0], jump[1], jump[2], jump[3]));
    }, "levels"_a.noconvert(), "shape"_a.noconvert(), "level_max"_a, "check"_a, "threads"_a);

    m.def("paint_levels", [](const Longs& shape, int64_t level_max, const Longs& level_rows, const Longs& offsets,
                             const Shorts& x, const Array<uint8_t>& levels) {
        Tree tree;
        for (int axis = 0; axis < 3; ++axis) tree.shape[axis] = shape.data()[axis];
        tree.level_max = level_max;
        tree.particles = rows_of(level_rows, offsets, x);
        int64_t cells = 1;
        for (int axis = 0; axis < 3; ++axis) cells *= tree.dim(axis, level_max - 1);
        same_size(levels.size(), cells, "levels do not fit the shape");
        const nb::gil_scoped_release released;
        return paint_levels(tree, levels.data());
    }, "shape"_a.noconvert(), "level_max"_a, "level_rows"_a.noconvert(), "offsets"_a.noconvert(), "x"_a.noconvert(),
          "levels"_a.noconvert());

    nb::class_<TreeHandle>(m, "TreeHandle")
        .def("__init__", [](TreeHandle* self, const Longs& shape, int64_t level_max, const Longs& level_rows,
                            const Longs& offsets, const Shorts& x, const Longs& node_level_rows,
                            const Longs& node_offsets, const Shorts& node_x) {
            const Tree tree = tree_of(shape, level_max, level_rows, offsets, x, node_level_rows, node_offsets, node_x);
            new (self) TreeHandle{shape, level_rows, offsets, node_level_rows, node_offsets, x, node_x, tree};
        }, "shape"_a.noconvert(), "level_max"_a, "level_rows"_a.noconvert(), "offsets"_a.noconvert(),
             "x"_a.noconvert(), "node_level_rows"_a.noconvert(), "node_offsets"_a.noconvert(), "node_x"_a.noconvert())
        .def("neighbours", [](const TreeHandle& self, int64_t finest, const Longs& kernel, int64_t feature_base,
                              int64_t tree_base, int64_t outside, const Array<int32_t>& out, int threads) {
            const Stage stage = stage_of(self, finest, feature_base, tree_base, outside);
            same_size(kernel.size(), 3, "expected a kernel of 3");
            const int64_t* k = kernel.data();
            same_size(out.size(), stage.rows() * k[0] * k[1] * k[2], "out does not fit the stage");
            const nb::gil_scoped_release released;
            neighbour_table(stage, k, out.data(), threads);
        }, "finest"_a, "kernel"_a.noconvert(), "feature_base"_a, "tree_base"_a, "outside"_a, "out"_a.noconvert(),
             "threads"_a)
        .def("children", [](const TreeHandle& self, int64_t finest, int64_t feature_base, int64_t tree_base,
                            int64_t outside, const Array<int32_t>& out, int threads) {
            const Stage stage = stage_of(self, finest, feature_base, tree_base, outside);
            same_size(out.size(), stage.tree_rows() * 8, "out does not fit the stage");
            const nb::gil_scoped_release released;
            children_table(stage, out.data(), threads);
        }, "finest"_a, "feature_base"_a, "tree_base"_a, "outside"_a, "out"_a.noconvert(), "threads"_a)
        .def("around", [](const TreeHandle& self, int64_t finest, int64_t feature_base, int64_t tree_base, int64_t outside,
                          const Array<const int32_t>& blocks, const Array<int32_t>& out, int threads) {
            const Stage stage = stage_of(self, finest, feature_base, tree_base, outside);
            same_size(out.size(), 27 * static_cast<int64_t>(blocks.size()), "out does not fit the blocks");
            for (size_t i = 0; i < blocks.size(); ++i)
                if (blocks.data()[i] < (i == 0 ? 0 : blocks.data()[i - 1] + 1) || blocks.data()[i] >= stage.tree_rows())
                    throw std::invalid_argument("expected blocks as ascending tree rows");
            const nb::gil_scoped_release released;
            around_table(stage, blocks.data(), static_cast<int64_t>(blocks.size()), out.data(), threads);
        }, "finest"_a, "feature_base"_a, "tree_base"_a, "outside"_a, "blocks"_a.noconvert(), "out"_a.noconvert(),
             "threads"_a)
        .def("cells", [](const TreeHandle& self, int64_t finest, const Array<int32_t>& out, int threads) {
            const Stage stage = stage_of(self, finest, 0, 0, 0);
            same_size(out.size(), stage.rows() * 4, "out does not fit the stage");
            const nb::gil_scoped_release released;
            cells_table(stage, out.data(), threads);
        }, "finest"_a, "out"_a.noconvert(), "threads"_a);
}

}  // namespace aprcnn
