"""Images, rows and checks that the tests of the conversion share."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

KINDS = ("balls", "noise", "ramp", "constant", "zeros", "spikes")


def image_of(kind, shape, dtype, seed=0):
    """A small image of some kind; float images have negative voxels."""
    random = np.random.default_rng(seed)
    if kind == "balls":
        raw = ndimage.gaussian_filter((random.random(shape) > 0.97).astype(float), 2) * 4000 + random.normal(size=shape)
    elif kind == "noise":
        raw = random.normal(size=shape) * 30
    elif kind == "ramp":
        raw = np.sum(np.meshgrid(*[np.arange(n) * (i + 1.0) for i, n in enumerate(shape)], indexing="ij"), axis=0)
    elif kind == "spikes":
        raw = 200.0 * (random.random(shape) > 0.99)
    else:
        raw = np.zeros(shape)
    if kind != "zeros" and np.dtype(dtype).kind == "u":
        raw = raw + 50
    if np.dtype(dtype).kind == "u":
        raw = np.clip(raw, 0, np.iinfo(dtype).max)
    return raw.astype(dtype)


def levels_of_voxels(levels, shape):
    """Level of the particle that covers each voxel."""
    for axis in range(3):
        levels = levels.repeat(2, axis)
    return levels[tuple(slice(n) for n in shape)]


def rows_of(levels, shape, level_max):
    """Rows of the particles of a level grid: level_rows, offsets, x."""
    voxels = levels_of_voxels(levels, shape)
    starts, offsets, xs = [0], [0], []
    for level in range(level_max + 1):
        here = voxels[(slice(None, None, 1 << (level_max - level)),) * 3] == level
        rows = here.reshape(-1, here.shape[2])
        xs.append((np.flatnonzero(rows) % here.shape[2]).astype(np.uint16))
        offsets.extend((offsets[-1] + np.cumsum(rows.sum(1))).tolist())
        starts.append(starts[-1] + len(rows))
    return np.array(starts, np.int64), np.array(offsets, np.int64), np.concatenate(xs)


def cell_means(values, voxels, level_max):
    """Piecewise constant means over the particles' cells, in float64."""
    values = np.asarray(values, np.float64)
    out = values.copy()
    for level in range(level_max):
        edge, total, count = 1 << (level_max - level), values, np.ones(values.shape)
        for axis, n in enumerate(values.shape):
            total = np.add.reduceat(total, np.arange(0, n, edge), axis)
            count = np.add.reduceat(count, np.arange(0, n, edge), axis)
        mean = total / count
        for axis, n in enumerate(values.shape):
            mean = mean.take(np.arange(n) // edge, axis)
        here = voxels == level
        out[here] = mean[here]
    return out


def require_a_particle_structure(levels, shape, level_max):
    """Cells are aligned, whole and disjoint; particles that touch are within one level."""
    voxels = levels_of_voxels(levels, shape)
    assert voxels.min() >= min(2, level_max)
    assert voxels.max() <= level_max
    for level in range(1, level_max):
        edge = 1 << (level_max - level)
        low, high = voxels, voxels
        for axis, n in enumerate(shape):
            low = np.minimum.reduceat(low, np.arange(0, n, edge), axis)
            high = np.maximum.reduceat(high, np.arange(0, n, edge), axis)
        touched = voxels == level
        for axis, n in enumerate(shape):
            touched = np.maximum.reduceat(touched, np.arange(0, n, edge), axis)
        # A cell with a voxel of its level is one particle throughout.
        assert (low[touched] == level).all()
        assert (high[touched] == level).all()
    around = [ndimage.maximum_filter(voxels, 3, mode="nearest"), ndimage.minimum_filter(voxels, 3, mode="nearest")]
    assert int((around[0].astype(int) - around[1]).max()) <= 2  # to either side of the middle one
    assert int((around[0].astype(int) - voxels).max()) <= 1
    assert int((voxels.astype(int) - around[1]).max()) <= 1
