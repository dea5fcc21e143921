#include <nanobind/stl/pair.h>

#include <algorithm>
#include <utility>

#include "binding.hpp"
#include "conv_packed.hpp"
#include "plane_filters.hpp"
#include "planes.hpp"
#include "planes_bf16.hpp"
#include "planes_int8.hpp"

namespace aprcnn {

namespace {

using namespace nb::literals;
using Floats = Array<const float>;

// Sizes are checked here, as the kernels read where they are told to.
const float* floats(const nb::handle& given, int64_t size, const char* what) {
    const Floats array = nb::cast<Floats>(given, false);  // no copy: the caller holds the memory
    same_size(array.size(), size, what);
    return array.data();
}

// (weights, bias, channels, weights in bfloat16 or None, more); None for none. more: None; where x's range is to be written;
// or (weights of 8 bits, scale, shift, inverse, zero), as Bytes. half: whether fewer bits are wanted.
Pointwise pointwise_of(const nb::object& given, bool half = false) {
    Pointwise out;
    if (given.is_none()) return out;
    const nb::tuple parts = nb::cast<nb::tuple>(given);
    const Floats bias = nb::cast<Floats>(parts[1], false);
    out.channels = nb::cast<int64_t>(parts[2]);
    out.columns = static_cast<int64_t>(bias.size());
    if (out.channels < 1 || out.columns % planes_table().lanes != 0)
        throw std::invalid_argument("the columns of a pointwise convolution are no whole registers");
    out.weights = floats(parts[0], out.channels * out.columns, "weights do not fit the channels");
    out.bias = bias.data();
    if (half && nb::isinstance<nb::tuple>(parts[4])) {
        const nb::tuple bytes = nb::cast<nb::tuple>(parts[4]);
        const Array<const int8_t> weights = nb::cast<Array<const int8_t>>(bytes[0], false);
        same_size(weights.size(), out.channels * out.columns, "weights of 8 bits do not fit the channels");
        if (!has_int8_planes() || planes_table().lanes != 16 || out.channels % 16 != 0)
            throw std::invalid_argument("this processor does not multiply 8 bits, or not of these shapes");
        out.bytes = {weights.data(), floats(bytes[1], out.columns, "scales do not fit the columns"),
                     floats(bytes[2], out.columns, "shifts do not fit the columns"), nb::cast<float>(bytes[3]), nb::cast<float>(bytes[4])};
        return out;
    }
    if (!parts[4].is_none() && !nb::isinstance<nb::tuple>(parts[4])) {
        const Array<float> seen = nb::cast<Array<float>>(parts[4], false);
        same_size(seen.size(), 2, "expected room for the smallest and the largest value");
        out.seen = seen.data();
    }
    if (half && !parts[3].is_none()) {
        const Array<const uint16_t> halves = nb::cast<Array<const uint16_t>>(parts[3], false);
        same_size(halves.size(), out.channels * out.columns, "rounded weights do not fit the channels");
        if (!has_bf16_planes() || planes_table().lanes != 16 || out.channels % 16 != 0)
            throw std::invalid_argument("this processor does not multiply bfloat16, or not of these shapes");
        out.halves = halves.data();
    }
    return out;
}

// (taps, dilation, pointwise), the taps of that many channels.
Separable separable_of(const nb::tuple& given, int64_t channels, bool half) {
    Separable out;
    out.taps = floats(given[0], 9 * channels, "taps do not fit the channels");
    out.dilation = nb::cast<int64_t>(given[1]);
    if (out.dilation != 1 && out.dilation != 2) throw std::invalid_argument("dilation: expected 1 or 2");
    out.mix = pointwise_of(nb::cast<nb::object>(given[2]), half);
    if (out.mix.weights == nullptr || out.mix.channels > channels)
        throw std::invalid_argument("a pointwise convolution does not fit the depthwise one");
    return out;
}

void check_rows(int64_t first, int64_t last, int64_t height) {
    if (first < 0 || first > last || last > height) throw std::invalid_argument("rows lie outside the image");
}

}  // namespace

void bind_planes(nb::module_& m) {
    m.def("planes_lanes", [] { return planes_table().lanes; });
    m.def("plane_weights_size", [](int64_t in, int64_t out) {
        Blocks blocks;
        cut_columns(conv_table(), out, blocks);
        return std::make_pair(36 * in * blocks.padded(), blocks.padded());
    });
    m.def("plane_weights", [](const Floats& weight, const Array<float>& out) {
        if (weight.ndim() != 4 || weight.shape(2) != 3 || weight.shape(3) != 3) throw std::invalid_argument("expected weights [out, in, 3, 3]");
        const auto columns = static_cast<int64_t>(weight.shape(0)), channels = static_cast<int64_t>(weight.shape(1));
        Blocks blocks;
        cut_columns(conv_table(), columns, blocks);
        same_size(out.size(), 36 * channels * blocks.padded(), "out does not fit the weights");
        const nb::gil_scoped_release released;
        const AlignedFloats made = plane_weights(weight.data(), channels, columns, blocks);
        std::copy_n(made.data(), out.size(), out.data());
    }, "weight"_a.noconvert(), "out"_a.noconvert());
    m.def("filter_plane", [](const Floats& x, const Floats& weights, const Floats& bias, nb::object norm, nb::object add, nb::object add_scale,
                             bool relu, int64_t first, int64_t last, const Array<float>& out) {
        if (x.ndim() != 3 || out.ndim() != 3) throw std::invalid_argument("expected [y][x][channel]");
        PlaneFilter work{};
        work.height = static_cast<int64_t>(x.shape(0)), work.width = static_cast<int64_t>(x.shape(1));
        work.channels = static_cast<int64_t>(x.shape(2)), work.columns = static_cast<int64_t>(out.shape(2));
        Blocks blocks;
        cut_columns(conv_table(), work.columns, blocks);
        check_rows(first, last, work.height);
        work.first = first, work.last = last;
        const int64_t padded = blocks.padded(), pixels = (last - first) * work.width;
        if (work.channels % 8 != 0) throw std::invalid_argument("channels are no multiple of 8");
        same_size(weights.size(), 36 * work.channels * padded, "the weights do not fit the channels");
        same_size(bias.size(), padded, "the bias does not fit the columns");
        same_size(out.size(), pixels * work.columns, "out does not fit the plane");
        work.x = x.data(), work.weights = weights.data(), work.bias = bias.data(), work.relu = relu, work.out = out.data();
        if (!norm.is_none()) {
            const nb::tuple parts = nb::cast<nb::tuple>(norm);
            work.scale = floats(parts[0], work.channels, "the norm does not fit the channels");
            work.shift = floats(parts[1], work.channels, "the norm does not fit the channels");
        }
        if (!add.is_none()) work.add = floats(add, pixels * work.columns, "add does not fit the plane");
        if (!add_scale.is_none()) work.add_scale = floats(add_scale, padded, "add_scale does not fit the columns");
        const nb::gil_scoped_release released;
        filter_plane(work, blocks);
    }, "x"_a.noconvert(), "weights"_a.noconvert(), "bias"_a.noconvert(), "norm"_a.none(), "add"_a.none(), "add_scale"_a.none(), "relu"_a,
          "first"_a, "last"_a, "out"_a.noconvert());
    m.def("planes_int8", [] { return has_int8_planes() && planes_table().lanes == 16; });
    m.def("planes_half", [] { return has_bf16_planes() && planes_table().lanes == 16; });

    m.def("planes_pair", [](const Floats& x, int source, const Floats& scale, const Floats& shift, const nb::tuple& first,
                            const nb::tuple& second, nb::object add, nb::object add_scale, bool identity, nb::object projection,
                            nb::object head, nb::object pooled, const Array<float>& out, int64_t from, int64_t to, bool half, int threads) {
        PairBlock block;
        if (x.ndim() != 3 || out.ndim() != 3 || source < 0 || source > 2) throw std::invalid_argument("expected [y][x][channel]");
        block.x = x.data();
        block.source = static_cast<Source>(source);
        const bool planes = block.source == Source::planes;
        block.channels = static_cast<int64_t>(x.shape(planes ? 0 : 2));
        block.height = static_cast<int64_t>(x.shape(planes ? 1 : 0));
        block.width = static_cast<int64_t>(x.shape(planes ? 2 : 1));
        if (block.source == Source::doubled) block.height *= 2, block.width *= 2;
        if (!planes && block.channels % planes_table().lanes != 0) throw std::invalid_argument("channels are no whole registers");
        same_size(scale.size(), block.channels, "scale does not fit the channels");
        same_size(shift.size(), block.channels, "shift does not fit the channels");
        block.scale = scale.data();
        block.shift = shift.data();
        block.first = separable_of(first, block.channels, half && !planes);
        block.second = separable_of(second, block.first.mix.columns, half);
        const int64_t middle = block.first.mix.columns, columns = block.second.mix.columns;
        if (!add.is_none()) {
            block.add = floats(add, block.height * block.width * middle, "add does not fit the image");
            block.add_scale = floats(add_scale, middle, "add_scale does not fit the channels");
        }
        block.identity = identity;
        block.projection = pointwise_of(projection, half && !planes);
        const bool same = block.source == Source::direct && block.channels == columns;
        if ((identity && !same) || (block.projection.weights != nullptr && (block.projection.columns != columns ||
                                                                            block.projection.channels != block.channels)))
            throw std::invalid_argument("the residual does not fit");
        int64_t size = block.height * block.width * columns;
        if (!head.is_none()) {
            const nb::tuple parts = nb::cast<nb::tuple>(head);
            block.head = pointwise_of(nb::cast<nb::object>(parts[0]));
            block.head_scale = floats(parts[1], columns, "the head does not fit the channels");
            block.head_shift = floats(parts[2], columns, "the head does not fit the channels");
            block.heads = static_cast<int64_t>(out.shape(0));
            if (block.head.channels != columns || block.heads > block.head.columns ||
                block.head.columns != planes_table().lanes)
                throw std::invalid_argument("the head does not fit the channels");
            size = block.heads * block.height * block.width;
        }
        same_size(out.size(), size, "out does not fit the image");
        check_rows(from, to, block.height);
        if (!pooled.is_none()) {
            const Array<float> array = nb::cast<Array<float>>(pooled, false);
            if (block.height % 2 != 0 || block.width % 2 != 0 || from % 2 != 0 || block.heads != 0)
                throw std::invalid_argument("what is pooled comes in pairs of rows and columns");
            same_size(array.size(), block.height / 2 * (block.width / 2) * columns, "pooled does not fit the image");
            block.pooled = array.data();
        }
        block.out = out.data();
        const nb::gil_scoped_release released;
        run_pair(block, from, to, threads);
    }, "x"_a.noconvert(), "source"_a, "scale"_a.noconvert(), "shift"_a.noconvert(), "first"_a, "second"_a, "add"_a.none(),
          "add_scale"_a.none(), "identity"_a, "projection"_a.none(), "head"_a.none(), "pooled"_a.none(),
          "out"_a.noconvert(), "from"_a, "to"_a, "half"_a, "threads"_a);

    // scales: (skip, add_scale, shift or None, taps, upper or None, lower or None), the finest first.
    m.def("planes_plain_decoder", [](const nb::tuple& scales, nb::object last, nb::object head, const Array<float>& out,
                                     int64_t from, int64_t to, bool doubled, bool half, int threads) {
        PlainDecoder net;
        net.doubled = doubled;
        if (nb::len(scales) != 4 || out.ndim() != 3) throw std::invalid_argument("expected four scales and planes");
        net.heads = static_cast<int64_t>(out.shape(0));
        net.height = static_cast<int64_t>(out.shape(1));
        net.width = static_cast<int64_t>(out.shape(2));
        if (net.height % 8 != 0 || net.width % 8 != 0) throw std::invalid_argument("expected multiples of 8 pixels");
        for (int s = 0; s < 4; ++s) {
            const nb::tuple parts = nb::cast<nb::tuple>(scales[s]);
            PlainScale& one = net.scale[s];
            one.channels = static_cast<int64_t>(nb::cast<Floats>(parts[3], false).size()) / 9;
            if (one.channels < 1 || one.channels % planes_table().lanes != 0)
                throw std::invalid_argument("channels are no whole registers");
            one.taps = floats(parts[3], 9 * one.channels, "taps do not fit the channels");
            one.skip = floats(parts[0], (net.height >> s) * (net.width >> s) * one.channels, "a skip does not fit the image");
            one.add_scale = floats(parts[1], (s == 3 ? 1 : 2) * one.channels, "add_scale does not fit the channels");
            if (s == 3) one.shift = floats(parts[2], one.channels, "shift does not fit the channels");
            if (s == 0) continue;
            for (int i = 0; i < (doubled ? 1 : 2); ++i) {
                one.up[i] = pointwise_of(nb::cast<nb::object>(parts[4 + i]), half);
                if (one.up[i].channels != one.channels || one.up[i].columns != (doubled ? 1 : 2) * net.scale[s - 1].channels)
                    throw std::invalid_argument("an upsampling does not fit the channels");
            }
        }
        net.last = pointwise_of(last, half);
        net.head = pointwise_of(head);
        if (net.last.channels != net.scale[0].channels || net.head.channels != net.last.columns || net.heads > net.head.columns ||
            net.head.columns != planes_table().lanes)
            throw std::invalid_argument("the head does not fit the channels");
        check_rows(from, to, net.height);
        net.out = out.data();
        const nb::gil_scoped_release released;
        run_plain_decoder(net, from, to, threads);
    }, "scales"_a, "last"_a, "head"_a, "out"_a.noconvert(), "from"_a, "to"_a, "doubled"_a, "half"_a, "threads"_a);

    m.def("planes_pool", [](const Floats& x, const Array<float>& out) {
        if (x.ndim() != 3 || x.shape(0) % 2 != 0 || x.shape(1) % 2 != 0) throw std::invalid_argument("expected pairs of rows and columns");
        const auto height = static_cast<int64_t>(x.shape(0)), width = static_cast<int64_t>(x.shape(1)), channels = static_cast<int64_t>(x.shape(2));
        if (channels % planes_table().lanes != 0) throw std::invalid_argument("channels are no whole registers");
        same_size(out.size(), height / 2 * (width / 2) * channels, "out does not fit the plane");
        const nb::gil_scoped_release released;
        const int64_t row = width * channels;
        for (int64_t y = 0; y < height; y += 2)
            planes_table().pool(x.data() + y * row, x.data() + (y + 1) * row, width / 2, channels, out.data() + y / 2 * (row / 2));
    }, "x"_a.noconvert(), "out"_a.noconvert());

    m.def("planes_heads", [](const Floats& x, nb::object head, const Array<float>& out, int64_t first) {
        const Pointwise of = pointwise_of(head);
        if (x.ndim() != 3 || out.ndim() != 3 || of.weights == nullptr || of.channels != static_cast<int64_t>(x.shape(2)) ||
            x.shape(1) != out.shape(2) || of.columns != planes_table().lanes || static_cast<int64_t>(out.shape(0)) > of.columns)
            throw std::invalid_argument("the head does not fit the channels");
        const auto rows = static_cast<int64_t>(x.shape(0)), height = static_cast<int64_t>(out.shape(1)), width = static_cast<int64_t>(out.shape(2));
        if (of.channels % planes_table().lanes != 0) throw std::invalid_argument("channels are no whole registers");
        check_rows(first, first + rows, height);
        const nb::gil_scoped_release released;
        planes_table().heads(x.data(), rows * width, of.channels, of.weights, of.bias, static_cast<int64_t>(out.shape(0)), height * width,
                             out.data() + first * width);
    }, "x"_a.noconvert(), "head"_a, "out"_a.noconvert(), "first"_a);

    m.def("planes_up", [](const Floats& x, nb::object upper, nb::object lower, nb::object add, nb::object add_scale, bool relu,
                          const Array<float>& out, bool half, int threads) {
        Up work;
        work.rows[0] = pointwise_of(upper, half), work.rows[1] = pointwise_of(lower, half);
        const int64_t columns = work.rows[0].columns;
        if (x.ndim() != 3 || work.rows[0].channels != static_cast<int64_t>(x.shape(2)) || work.rows[0].weights == nullptr ||
            work.rows[1].channels != work.rows[0].channels || work.rows[1].columns != columns)
            throw std::invalid_argument("an upsampling does not fit the channels");
        work.x = x.data(), work.height = static_cast<int64_t>(x.shape(0)), work.width = static_cast<int64_t>(x.shape(1));
        const int64_t size = 2 * work.height * work.width * columns;
        same_size(out.size(), size, "out does not fit the image");
        if (!add.is_none()) {
            work.add = floats(add, size, "add does not fit the image");
            work.add_scale = floats(add_scale, columns, "add_scale does not fit two pixels");
        }
        work.relu = relu, work.out = out.data();
        const nb::gil_scoped_release released;
        run_up(work, threads);
    }, "x"_a.noconvert(), "upper"_a, "lower"_a, "add"_a.none(), "add_scale"_a.none(), "relu"_a, "out"_a.noconvert(), "half"_a,
          "threads"_a);
}

}  // namespace aprcnn
