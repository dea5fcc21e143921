#include "binding.hpp"
#include "norms.hpp"

namespace aprcnn {

namespace {

using namespace nb::literals;
using Floats = Array<const float>;
using Longs = Array<const int64_t>;
using Doubles = Array<double>;

// An array of `size` floats, or None.
const float* optional_floats(const nb::object& given, int64_t size) {
    if (given.is_none()) return nullptr;
    const Floats array = nb::cast<Floats>(given, false);  // no copy: the caller holds the memory
    same_size(array.size(), size, "a parameter does not fit the channels");
    return array.data();
}

template <class A>
Items items_of(const A& x, const Longs& starts, int64_t groups) {
    if (x.ndim() != 2) throw std::invalid_argument("expected features [rows, channels]");
    const Items items{starts.data(), static_cast<int64_t>(starts.size()) - 1, static_cast<int64_t>(x.shape(1)), groups};
    if (items.count < 0 || items.starts[0] != 0 || items.starts[items.count] != static_cast<int64_t>(x.shape(0)))
        throw std::invalid_argument("the rows of the items are not those of the features");
    if (groups < 1 || items.channels % groups != 0) throw std::invalid_argument("channels are not a multiple of the groups");
    return items;
}

template <class A>
Affine affine_of(const A& x, const Floats& centre, const Floats& scale, const Floats& shift) {
    if (x.ndim() != 2) throw std::invalid_argument("expected features [rows, channels]");
    for (const Floats* one : {&centre, &scale, &shift})
        same_size(one->size(), static_cast<int64_t>(x.shape(1)), "a parameter does not fit the channels");
    return {centre.data(), scale.data(), shift.data()};
}

template <class T>
void bind_of(nb::module_& m) {
    using Values = Array<const T>;
    m.def("group_norm", [](const Values& x, const Longs& starts, int64_t groups, nb::object weight, nb::object bias, double eps,
                           bool relu, const Array<T>& out, const Doubles& mean, const Doubles& rstd, int threads) {
        const Items items = items_of(x, starts, groups);
        same_size(out.size(), static_cast<int64_t>(x.size()), "out does not fit the features");
        same_size(mean.size(), items.count * groups, "mean does not fit the items");
        same_size(rstd.size(), items.count * groups, "rstd does not fit the items");
        const float* scale = optional_floats(weight, items.channels);
        const float* shift = optional_floats(bias, items.channels);
        const nb::gil_scoped_release released;
        group_norm(x.data(), items, scale, shift, eps, relu, out.data(), mean.data(), rstd.data(), threads);
    }, "x"_a.noconvert(), "starts"_a.noconvert(), "groups"_a, "weight"_a.none(), "bias"_a.none(), "eps"_a, "relu"_a,
          "out"_a.noconvert(), "mean"_a.noconvert(), "rstd"_a.noconvert(), "threads"_a);

    m.def("group_norm_back", [](const Values& grad, const Values& x, const Longs& starts, const Array<const double>& mean,
                                const Array<const double>& rstd, int64_t groups, nb::object weight, nb::object bias, bool relu,
                                const Array<T>& grad_x, const Doubles& grad_weight, const Doubles& grad_bias, int threads) {
        const Items items = items_of(x, starts, groups);
        same_size(grad.size(), static_cast<int64_t>(x.size()), "the gradient does not fit the features");
        same_size(grad_x.size(), static_cast<int64_t>(x.size()), "out does not fit the features");
        same_size(mean.size(), items.count * groups, "mean does not fit the items");
        same_size(rstd.size(), items.count * groups, "rstd does not fit the items");
        same_size(grad_weight.size(), items.channels, "grad_weight does not fit the channels");
        same_size(grad_bias.size(), items.channels, "grad_bias does not fit the channels");
        const float* scale = optional_floats(weight, items.channels);
        const float* shift = optional_floats(bias, items.channels);
        const nb::gil_scoped_release released;
        group_norm_back(grad.data(), x.data(), items, mean.data(), rstd.data(), scale, shift, relu, grad_x.data(),
                        grad_weight.data(), grad_bias.data(), threads);
    }, "grad"_a.noconvert(), "x"_a.noconvert(), "starts"_a.noconvert(), "mean"_a.noconvert(), "rstd"_a.noconvert(), "groups"_a,
          "weight"_a.none(), "bias"_a.none(), "relu"_a, "grad_x"_a.noconvert(), "grad_weight"_a.noconvert(),
          "grad_bias"_a.noconvert(), "threads"_a);

    m.def("scale_shift", [](const Values& x, const Floats& centre, const Floats& scale, const Floats& shift, bool relu,
                            const Array<T>& out, int threads) {
        const Affine affine = affine_of(x, centre, scale, shift);
        same_size(out.size(), static_cast<int64_t>(x.size()), "out does not fit the features");
        const nb::gil_scoped_release released;
        scale_shift(x.data(), static_cast<int64_t>(x.shape(0)), static_cast<int64_t>(x.shape(1)), affine, relu, out.data(),
                    threads);
    }, "x"_a.noconvert(), "centre"_a.noconvert(), "scale"_a.noconvert(), "shift"_a.noconvert(), "relu"_a, "out"_a.noconvert(),
          "threads"_a);

    m.def("scale_shift_back", [](const Values& grad, const Values& x, const Floats& centre, const Floats& scale,
                                 const Floats& shift, bool relu, const Array<T>& grad_x, const Doubles& grad_scale,
                                 const Doubles& grad_shift, int threads) {
        const Affine affine = affine_of(x, centre, scale, shift);
        same_size(grad.size(), static_cast<int64_t>(x.size()), "the gradient does not fit the features");
        same_size(grad_x.size(), static_cast<int64_t>(x.size()), "out does not fit the features");
        same_size(grad_scale.size(), static_cast<int64_t>(x.shape(1)), "grad_scale does not fit the channels");
        same_size(grad_shift.size(), static_cast<int64_t>(x.shape(1)), "grad_shift does not fit the channels");
        const nb::gil_scoped_release released;
        scale_shift_back(grad.data(), x.data(), static_cast<int64_t>(x.shape(0)), static_cast<int64_t>(x.shape(1)), affine,
                         relu, grad_x.data(), grad_scale.data(), grad_shift.data(), threads);
    }, "grad"_a.noconvert(), "x"_a.noconvert(), "centre"_a.noconvert(), "scale"_a.noconvert(), "shift"_a.noconvert(), "relu"_a,
          "grad_x"_a.noconvert(), "grad_scale"_a.noconvert(), "grad_shift"_a.noconvert(), "threads"_a);
}

}  // namespace

void bind_norms(nb::module_& m) {
    bind_of<float>(m);
    bind_of<uint16_t>(m);
}

}  // namespace aprcnn
