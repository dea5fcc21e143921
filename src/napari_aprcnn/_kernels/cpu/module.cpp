// The compiled kernels' Python module: arrays in, arrays filled. The Python side allocates and checks.
#include <memory>
#include <string>

#include "binding.hpp"
#include "compact.hpp"
#include "hot.hpp"
#include "masks.hpp"
#include "objects.hpp"
#include "pages.hpp"
#include "zeros.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace aprcnn;

namespace {

template <class A>
Grid grid_of(const A& array, size_t skip = 0) {
    const size_t axes = array.ndim() - skip;
    if (array.ndim() < skip || (axes != 2 && axes != 3)) throw std::invalid_argument("expected 2 or 3 axes");
    const bool flat = axes == 2;
    return {flat ? 1 : static_cast<int64_t>(array.shape(skip)), static_cast<int64_t>(array.shape(skip + axes - 2)),
            static_cast<int64_t>(array.shape(skip + axes - 1)), flat};
}

template <class T>
void bind_compact(nb::module_& m) {
    m.def("compact_labels", [](const Array<const T>& labels, const Array<uint32_t>& out) {
        same_size(out.size(), static_cast<int64_t>(labels.size()), "labels and out differ in size");
        const nb::gil_scoped_release released;
        return compact_labels(labels.data(), static_cast<int64_t>(labels.size()), out.data());
    }, "labels"_a.noconvert(), "out"_a.noconvert());
}

template <class T, class Bits>
void bind_zeros(nb::module_& m) {
    const auto check = [](const Array<T>& values, size_t marks) {
        if (values.size() % marked != 0 || reinterpret_cast<uintptr_t>(values.data()) % 64 != 0)
            throw std::invalid_argument("expected values that begin on a cache line, a multiple of 16 of them");
        same_size(marks, static_cast<int64_t>(values.size()) / marked, "expected a mark for each 16 values");
    };
    m.def("leave_out_zeros", [check](const Array<T>& values, const Array<uint16_t>& marks, int threads) {
        check(values, marks.size());
        const nb::gil_scoped_release released;
        return leave_out_zeros(reinterpret_cast<Bits*>(values.data()), static_cast<int64_t>(values.size()), marks.data(), threads);
    }, "values"_a.noconvert(), "marks"_a.noconvert(), "threads"_a);
    m.def("put_back_zeros", [check](const Array<T>& values, const Array<const uint16_t>& marks, int threads) {
        check(values, marks.size());
        const nb::gil_scoped_release released;
        put_back_zeros(reinterpret_cast<Bits*>(values.data()), static_cast<int64_t>(values.size()), marks.data(), threads);
    }, "values"_a.noconvert(), "marks"_a.noconvert(), "threads"_a);
}

}  // namespace

NB_MODULE(_cpu, m) {
    m.doc() = "Compiled kernels of napari_aprcnn.";
    nb::set_leak_warnings(false);  // what a window still holds when Python ends is no leak

    m.def("instruction_set", [] { return std::string(hot().name); });
    m.def("has_instruction_set", [](const std::string& name) { return has_instruction_set(name.c_str()); }, "name"_a);
    m.def("choose_instruction_set", [](const std::string& name) { return choose_instruction_set(name.c_str()); },
          "name"_a);

    m.def("new_pages", [](size_t bytes) {
        auto held = std::make_unique<Pages>();
        held->resize(bytes);
        void* data = held->data();
        const nb::capsule owner(held.release(), [](void* pages) noexcept { delete static_cast<Pages*>(pages); });
        return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(data, {bytes}, owner);
    }, "bytes"_a);

    m.def("gives_pages", [] { return can_map() && !keeps_memory(); });
    m.def("maps_outputs", [] { return Reuse::active() && !keeps_memory(); });
    m.def("ask_for_huge_pages", [](uintptr_t address, size_t bytes) {
        return ask_for_huge_pages(reinterpret_cast<void*>(address), bytes);
    }, "address"_a, "bytes"_a);
    m.def("give_back_free", [] {
        const nb::gil_scoped_release released;
        give_back_free();
    });
    bind_zeros<float, uint32_t>(m);
    bind_zeros<uint16_t, uint16_t>(m);
    m.def("begin_reuse", [] { Reuse::begin(); });
    m.def("end_reuse", [] { Reuse::end(); });
    m.def("spare_bytes", [] { return Reuse::spare_bytes(); });

    bind_convert(m);
    bind_tree(m);
    bind_particles(m);
    bind_norms(m);
    bind_stars(m);
    bind_planes(m);

    bind_compact<uint8_t>(m);
    bind_compact<uint16_t>(m);
    bind_compact<uint32_t>(m);
    bind_compact<uint64_t>(m);
    bind_compact<int8_t>(m);
    bind_compact<int16_t>(m);
    bind_compact<int32_t>(m);
    bind_compact<int64_t>(m);

    m.def("flows_from_labels", [](const Array<const uint32_t>& labels, uint32_t n, const Array<float>& flows,
                                  int threads, nb::object poll) {
        const Grid grid = grid_of(labels);
        same_size(flows.size(), grid.size() * (grid.flat ? 2 : 3), "flows and labels differ in size");
        const Poll ask = poll_of(poll);
        const nb::gil_scoped_release released;
        return flows_from_labels(labels.data(), grid, n, flows.data(), threads, ask);
    }, "labels"_a.noconvert(), "n"_a, "flows"_a.noconvert(), "threads"_a, "poll"_a.none());

    m.def("flow_errors", [](const Array<const uint32_t>& labels, uint32_t n, const Array<const float>& flows,
                            const Array<double>& errors, int threads, nb::object poll) {
        const Grid grid = grid_of(labels);
        same_size(flows.size(), grid.size() * (grid.flat ? 2 : 3), "flows and labels differ in size");
        same_size(errors.size(), n, "errors and n differ");
        const Poll ask = poll_of(poll);
        const nb::gil_scoped_release released;
        return flow_errors(labels.data(), grid, n, flows.data(), errors.data(), threads, ask);
    }, "labels"_a.noconvert(), "n"_a, "flows"_a.noconvert(), "errors"_a.noconvert(), "threads"_a, "poll"_a.none());

    m.def("follow_flows", [](const Array<const float>& flows, const Array<const uint8_t>& inside, int64_t n_steps,
                             const Array<uint32_t>& ends, const Array<uint32_t>& counts, int threads,
                             nb::object poll) {
        const Grid grid = grid_of(inside);
        same_size(flows.size(), grid.size() * (grid.flat ? 2 : 3), "flows and inside differ in size");
        same_size(ends.size(), grid.size(), "ends and inside differ in size");
        same_size(counts.size(), grid.size(), "counts and inside differ in size");
        const Poll ask = poll_of(poll);
        const nb::gil_scoped_release released;
        const Outcome outcome = follow_flows(flows.data(), inside.data(), grid, n_steps, ends.data(), counts.data(),
                                             threads, ask);
        if (outcome == Outcome::not_finite) throw std::invalid_argument("a flow is not finite");
        return outcome == Outcome::finished;
    }, "flows"_a.noconvert(), "inside"_a.noconvert(), "n_steps"_a, "ends"_a.noconvert(), "counts"_a.noconvert(),
          "threads"_a, "poll"_a.none());

    m.def("group_ends", [](const Array<uint32_t>& ends, const Array<uint32_t>& counts, double max_voxels, int threads,
                           nb::object poll) {
        const Grid grid = grid_of(ends);
        same_size(counts.size(), grid.size(), "counts and ends differ in size");
        const Poll ask = poll_of(poll);
        const nb::gil_scoped_release released;
        return group_ends(ends.data(), counts.data(), grid, max_voxels, threads, ask);
    }, "ends"_a.noconvert(), "counts"_a.noconvert(), "max_voxels"_a, "threads"_a, "poll"_a.none());

    m.def("relabel", [](const Array<uint32_t>& labels, const Array<const uint32_t>& map, int threads) {
        const nb::gil_scoped_release released;
        relabel(labels.data(), static_cast<int64_t>(labels.size()), map.data(), threads);
    }, "labels"_a.noconvert(), "map"_a.noconvert(), "threads"_a);

    m.def("clean_labels", [](const Array<uint32_t>& labels, uint32_t n, int64_t min_size, bool fill_holes, int threads,
                             nb::object poll) {
        const Grid grid = grid_of(labels);
        const Poll ask = poll_of(poll);
        const nb::gil_scoped_release released;
        return clean_labels(labels.data(), grid, n, min_size, fill_holes, threads, ask);
    }, "labels"_a.noconvert(), "n"_a, "min_size"_a, "fill_holes"_a, "threads"_a, "poll"_a.none());
}
