// Python's side of the conversion: one object for the image, whose methods fill arrays that the caller allocated.
#include <cstring>
#include <string>

#include <nanobind/stl/vector.h>

#include "binding.hpp"
#include "convert_values.hpp"

namespace aprcnn {

using namespace nanobind::literals;

namespace {

// A view of any array, read-only and strided ones too; released with the object.
class View {
  public:
    explicit View(nb::handle array) {
        if (PyObject_GetBuffer(array.ptr(), &view_, PyBUF_FULL_RO) != 0) throw nb::python_error();
    }
    ~View() { PyBuffer_Release(&view_); }
    View(const View&) = delete;
    View& operator=(const View&) = delete;

    Source source() const {
        if (view_.ndim != 3) throw std::invalid_argument("expected an array with 3 axes");
        Source out;
        out.data = static_cast<const char*>(view_.buf);
        out.shape = {view_.shape[0], view_.shape[1], view_.shape[2]};
        if (out.shape.size() == 0) throw std::invalid_argument("expected an array with voxels");
        for (int i = 0; i < 3; ++i) out.stride[i] = view_.strides[i];
        const char* format = view_.format;
        const uint16_t one = 1;
        const bool little = *reinterpret_cast<const uint8_t*>(&one) == 1;
        if (*format == '<' || *format == '>' || *format == '=' || *format == '@') {
            out.swapped = (*format == '>' && little) || (*format == '<' && !little);
            ++format;
        }
        out.kind = kind_of(*format, view_.itemsize);
        return out;
    }

  private:
    static Kind kind_of(char code, Py_ssize_t bytes) {
        const bool is_signed = std::strchr("bhilq", code) != nullptr, is_unsigned = std::strchr("BHILQ?", code) != nullptr;
        const bool real = std::strchr("efd", code) != nullptr;
        if (bytes == 1 && (is_signed || is_unsigned)) return is_signed ? Kind::i8 : Kind::u8;
        if (bytes == 2 && (is_signed || is_unsigned)) return is_signed ? Kind::i16 : Kind::u16;
        if (bytes == 4 && (is_signed || is_unsigned)) return is_signed ? Kind::i32 : Kind::u32;
        if (bytes == 8 && (is_signed || is_unsigned)) return is_signed ? Kind::i64 : Kind::u64;
        if (real && bytes == 2) return Kind::f16;
        if (real && bytes == 4) return Kind::f32;
        if (real && bytes == 8) return Kind::f64;
        throw std::invalid_argument("expected real numbers");
    }
    Py_buffer view_;
};

Spline spline_of(const std::vector<float>& constants, const std::vector<std::vector<float>>& weights) {
    Spline s;
    if (constants.empty()) return s;
    if (constants.size() != 3 || weights.size() != 4) throw std::invalid_argument("expected 3 constants and 4 rows of weights");
    for (const std::vector<float>& row : weights)
        if (row.empty() || row.size() != weights[0].size()) throw std::invalid_argument("expected rows of one length");
    s.on = true;
    s.b1 = constants[0];
    s.b2 = constants[1];
    s.gain = constants[2];
    s.first = weights[0];
    s.second = weights[1];
    s.last = weights[2];
    s.before_last = weights[3];
    return s;
}

class Image {
  public:
    Image(nb::handle array, const std::vector<float>& constants, const std::vector<std::vector<float>>& weights,
          int64_t block_planes, int threads)
        : view_(array), coefficients_(view_.source(), spline_of(constants, weights), block_planes), threads_(threads) {}

    Coefficients& coefficients() { return coefficients_; }
    Shape grid() const { return coarser(coefficients_.shape(), 1); }
    void same_grid(size_t got) const { same_size(got, grid().size(), "expected one value for each cell of 2x2x2 voxels"); }
    int threads() const { return threads_; }

  private:
    View view_;
    Coefficients coefficients_;
    int threads_;
};

Shape shape_of(const std::vector<int64_t>& shape) {
    if (shape.size() != 3 || shape[0] < 1 || shape[1] < 1 || shape[2] < 1)
        throw std::invalid_argument("expected a shape of 3 positive numbers");
    return {shape[0], shape[1], shape[2]};
}

Rows rows_of(const Array<const int64_t>& level_rows, const Array<const int64_t>& offsets, const Array<const uint16_t>& x,
             const Shape& shape, int64_t level_max) {
    Rows rows;
    rows.levels = static_cast<int64_t>(level_rows.size()) - 1;
    if (rows.levels != level_max + 1) throw std::invalid_argument("expected rows of the levels 0..level_max");
    rows.level_rows = level_rows.data();
    rows.offsets = offsets.data();
    rows.x = x.data();
    int64_t expected = 0;
    for (int64_t level = 0; level <= level_max; ++level) {
        if (rows.level_rows[level] != expected) throw std::invalid_argument("level_rows do not fit the shape");
        const Shape grid = coarser(shape, level_max - level);
        expected += grid.z * grid.y;
    }
    if (rows.level_rows[rows.levels] != expected) throw std::invalid_argument("level_rows do not fit the shape");
    same_size(offsets.size(), expected + 1, "offsets do not fit level_rows");
    if (rows.offsets[0] != 0) throw std::invalid_argument("offsets must start at 0");
    for (int64_t r = 0; r < expected; ++r)
        if (rows.offsets[r + 1] < rows.offsets[r]) throw std::invalid_argument("offsets must not fall");
    same_size(x.size(), rows.count(), "x does not fit offsets");
    return rows;
}

void bind_image(nb::module_& m) {
    nb::class_<Image>(m, "ConversionImage")
        .def(nb::init<nb::handle, const std::vector<float>&, const std::vector<std::vector<float>>&, int64_t, int>(),
             "array"_a, "constants"_a, "weights"_a, "block_planes"_a, "threads"_a)
        .def("prepare", [](Image& image, nb::object poll) {
            Job job(image.threads(), poll_of(poll));
            const nb::gil_scoped_release released;
            return image.coefficients().prepare(job);
        }, "poll"_a.none())
        .def("statistics", [](Image& image) {
            const Statistics s = image.coefficients().statistics();
            return nb::make_tuple(s.bad, s.first_bad, s.smallest, s.largest);
        })
        .def("estimate", [](Image& image, const std::vector<float>& spacing, const Array<float>& gradient,
                            const Array<float>& intensity, int64_t step, const Array<float>& residuals, nb::object poll) {
            same_size(spacing.size(), 3, "expected a spacing for 3 axes");
            image.same_grid(gradient.size());
            image.same_grid(intensity.size());
            const int64_t samples = static_cast<int64_t>(residuals.size());
            if (step < 1 || (samples - 1) * step >= image.coefficients().shape().size())
                throw std::invalid_argument("expected samples inside the image");
            Job job(image.threads(), poll_of(poll));
            const nb::gil_scoped_release released;
            return estimate(image.coefficients(), spacing.data(), gradient.data(), intensity.data(), step, samples,
                            residuals.data(), job);
        }, "spacing"_a, "gradient"_a.noconvert(), "intensity"_a.noconvert(), "step"_a, "residuals"_a.noconvert(),
             "poll"_a.none())
        .def("check_cells", [](Image& image, const Array<const float>& scale, int top, double relative, double slack,
                               double least, bool original, const Array<uint8_t>& fails, nb::object poll) {
            image.same_grid(scale.size());
            same_size(fails.size(), pyramid_size(image.grid(), top), "expected one flag for each cell of all levels");
            Job job(image.threads(), poll_of(poll));
            const nb::gil_scoped_release released;
            return check_cells(image.coefficients(), scale.data(), top, {relative, slack, least, original}, fails.data(),
                               job);
        }, "scale"_a.noconvert(), "top"_a, "relative"_a, "slack"_a, "least"_a, "original"_a, "fails"_a.noconvert(),
             "poll"_a.none())
        .def("measure_errors", [](Image& image, const Array<const float>& scale, const Array<const uint8_t>& levels,
                                  int top, double relative, bool rounded, const Array<int64_t>& counts, nb::object poll) {
            image.same_grid(scale.size());
            image.same_grid(levels.size());
            same_size(counts.size(), 3 * error_bins, "expected three histograms");
            for (size_t i = 0; i < levels.size(); ++i)
                if (levels.data()[i] < 1 || levels.data()[i] > top + 1) throw std::invalid_argument("a level is out of range");
            Errors errors;
            errors.counts = counts.data();
            Job job(image.threads(), poll_of(poll));
            bool finished = false;
            {
                const nb::gil_scoped_release released;
                finished = measure_errors(image.coefficients(), scale.data(), levels.data(), top, relative, rounded, errors,
                                          job);
            }
            return nb::make_tuple(finished, errors.largest[0], errors.largest[1], errors.largest[2], errors.over);
        }, "scale"_a.noconvert(), "levels"_a.noconvert(), "top"_a, "relative"_a, "rounded"_a, "counts"_a.noconvert(),
             "poll"_a.none());
    m.attr("error_bins") = error_bins;
}

void bind_grid(nb::module_& m) {
    m.def("local_scale", [](const Array<float>& intensity, const Array<float>& gradient, const std::vector<int64_t>& shape,
                            bool filter_z, float threshold, int64_t inner, int64_t outer, float rescale,
                            const std::vector<bool>& active, int threads, nb::object poll) {
        const Shape grid = shape_of(shape);
        same_size(intensity.size(), grid.size(), "intensity does not fit the shape");
        same_size(gradient.size(), grid.size(), "gradient does not fit the shape");
        same_size(active.size(), 3, "expected 3 axes");
        ScaleRule rule;
        rule.inner = inner;
        rule.outer = outer;
        rule.rescale = rescale;
        const int64_t edges[3] = {grid.z, grid.y, grid.x};
        for (size_t i = 0; i < 3; ++i) {
            rule.active[i] = active[i];
            if (active[i] && edges[i] <= outer) throw std::invalid_argument("an active axis is shorter than the window");
        }
        if (filter_z && grid.z < 2) throw std::invalid_argument("one plane cannot be filtered along z");
        Job job(threads, poll_of(poll));
        const nb::gil_scoped_release released;
        return local_scale(intensity.data(), gradient.data(), grid, filter_z, threshold, rule, job);
    }, "intensity"_a.noconvert(), "gradient"_a.noconvert(), "shape"_a, "filter_z"_a, "threshold"_a, "inner"_a, "outer"_a,
          "rescale"_a, "active"_a, "threads"_a, "poll"_a.none());

    m.def("li_thresholds", [](const Array<const float>& gradient, const Array<const float>& scale, int threads,
                              nb::object poll) {
        same_size(scale.size(), static_cast<int64_t>(gradient.size()), "gradient and scale differ in size");
        double out[2] = {0.0, 0.0};
        bool finished = false;
        Job job(threads, poll_of(poll));
        {
            const nb::gil_scoped_release released;
            finished = li_thresholds(gradient.data(), scale.data(), static_cast<int64_t>(gradient.size()), out, job);
        }
        return nb::make_tuple(finished, out[0], out[1]);
    }, "gradient"_a.noconvert(), "scale"_a.noconvert(), "threads"_a, "poll"_a.none());

    m.def("estimate_levels", [](const Array<const float>& gradient, const Array<float>& scale, float scale_threshold,
                                float scale_threshold_max, float gradient_threshold, float factor, int top,
                                const Array<uint8_t>& levels, int threads, nb::object poll) {
        same_size(scale.size(), static_cast<int64_t>(gradient.size()), "gradient and scale differ in size");
        same_size(levels.size(), static_cast<int64_t>(gradient.size()), "gradient and levels differ in size");
        Job job(threads, poll_of(poll));
        const nb::gil_scoped_release released;
        return estimate_levels(gradient.data(), scale.data(), static_cast<int64_t>(levels.size()),
                               {scale_threshold, scale_threshold_max, gradient_threshold, factor, top}, levels.data(), job);
    }, "gradient"_a.noconvert(), "scale"_a.noconvert(), "scale_threshold"_a, "scale_threshold_max"_a,
          "gradient_threshold"_a, "factor"_a, "top"_a, "levels"_a.noconvert(), "threads"_a, "poll"_a.none());

    m.def("pull", [](const Array<const uint8_t>& wanted, const std::vector<int64_t>& shape, int top, bool optimise,
                     const Array<uint8_t>& out, int threads, nb::object poll) {
        const Shape grid = shape_of(shape);
        same_size(wanted.size(), grid.size(), "wanted does not fit the shape");
        same_size(out.size(), grid.size(), "out does not fit the shape");
        Job job(threads, poll_of(poll));
        const nb::gil_scoped_release released;
        return pull(wanted.data(), grid, top, optimise, out.data(), job);
    }, "wanted"_a.noconvert(), "shape"_a, "top"_a, "optimise"_a, "out"_a.noconvert(), "threads"_a, "poll"_a.none());

    m.def("refine", [](const Array<uint8_t>& levels, const std::vector<int64_t>& shape, int top,
                       const Array<const uint8_t>& fails, int threads, nb::object poll) {
        const Shape grid = shape_of(shape);
        same_size(levels.size(), grid.size(), "levels does not fit the shape");
        same_size(fails.size(), pyramid_size(grid, top), "fails does not fit the shape");
        Job job(threads, poll_of(poll));
        const nb::gil_scoped_release released;
        return refine(levels.data(), grid, top, fails.data(), job);
    }, "levels"_a.noconvert(), "shape"_a, "top"_a, "fails"_a.noconvert(), "threads"_a, "poll"_a.none());

    m.def("sample_values", [](nb::handle array, const Array<const int64_t>& level_rows, const Array<const int64_t>& offsets,
                              const Array<const uint16_t>& x, int level_max, bool repeated, nb::ndarray<nb::c_contig,
                              nb::device::cpu> out, int threads, nb::object poll) {
        const View view(array);
        const Source source = view.source();
        const Rows rows = rows_of(level_rows, offsets, x, source.shape, level_max);
        same_size(out.size(), rows.count(), "expected one value for each particle");
        const nb::dlpack::dtype expected = source.kind == Kind::u8    ? nb::dtype<uint8_t>()
                                           : source.kind == Kind::u16 ? nb::dtype<uint16_t>()
                                                                      : nb::dtype<float>();
        if (out.dtype() != expected) throw std::invalid_argument("values of another type than the image needs");
        Job job(threads, poll_of(poll));
        const nb::gil_scoped_release released;
        return sample_values(source, rows, level_max, repeated, out.data(), job);
    }, "array"_a, "level_rows"_a.noconvert(), "offsets"_a.noconvert(), "x"_a.noconvert(), "level_max"_a, "repeated"_a,
          "out"_a.noconvert(), "threads"_a, "poll"_a.none());
}

}  // namespace

void bind_convert(nb::module_& m) {
    bind_image(m);
    bind_grid(m);
}

}  // namespace aprcnn
