// What every binding file needs: array types and the way from a Python callable to a poll.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>

#include "parallel.hpp"

namespace aprcnn {

namespace nb = nanobind;

template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

inline void same_size(size_t got, int64_t expected, const char* what) {
    if (got != static_cast<size_t>(expected)) throw std::invalid_argument(what);
}

// A Python callable (share done) -> stop?, or None.
inline Poll poll_of(nb::object callable) {
    if (callable.is_none()) return nullptr;
    // Called with the interpreter lock released; the reference is held by the binding's caller.
    PyObject* raw = callable.ptr();
    return [raw](double done) {
        const nb::gil_scoped_acquire lock;
        if (PyErr_CheckSignals() != 0) throw nb::python_error();
        return nb::cast<bool>(nb::handle(raw)(done));
    };
}

// One function for each subject, so that module.cpp stays a list.
void bind_convert(nb::module_& m);    // image -> level grid, particle values
void bind_tree(nb::module_& m);       // level grid -> rows of particles and nodes, index tables
void bind_particles(nb::module_& m);  // convolution, pooling, ... over the tables
void bind_norms(nb::module_& m);      // normalisation of feature rows
void bind_stars(nb::module_& m);       // distances along rays to the border of labels
void bind_planes(nb::module_& m);      // networks of separable convolutions on planes

}  // namespace aprcnn
