"""What the tests of .apr files share."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from napari_aprcnn.apr import layout

DATA = Path(__file__).parent / "data"


@contextmanager
def edited(folder, source, name="edited.apr"):
    """A copy of a file, opened for changes; yields its path, group /ParticleRepr/t and the file."""
    import h5py
    import hdf5plugin  # noqa: F401

    path = folder / name
    shutil.copy(source, path)
    with h5py.File(path, "r+") as file:
        yield path, file["ParticleRepr/t"], file


def parse_and_build(path):
    """Read a file in this process, by the same steps as `read_apr`."""
    from napari_aprcnn.apr.files import build_tree
    from napari_aprcnn.apr.hdf5_parse import parse

    parsed = parse(path, most_bytes=1 << 28)
    fields = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(parsed)}
    arrays = {key: fields.pop(key) for key in ("x", "offsets", "node_x", "node_offsets", "intensities")}
    present = {key: array for key, array in arrays.items() if array is not None}
    return build_tree(fields, present, memory_bytes=1 << 28, threads=1)


def gap_maps(group):
    """Datasets of the gap layout."""

    def words(name):
        return group[name][:].view(np.uint16)

    return layout.GapMaps(
        level=group["map_level"][:],
        z=words("map_z"),
        y=words("map_x"),
        runs=words("map_number_gaps"),
        index_step=words("map_global_index"),
        first=words("map_y_begin"),
        last=words("map_y_end"),
    )


def make_legacy(folder, source=DATA / "gaps.apr"):
    """A file as LibAPR wrote it first: gaps, values of the finest level by stored row, the old name of the values."""
    with edited(folder, source, "legacy.apr") as (path, group, _):
        values = group["particles"][:]
        shape = tuple(int(group.attrs[key][0]) & 0xFFFFFFFF for key in ("z_num", "x_num", "y_num"))
        order = layout.from_gaps(gap_maps(group), shape, len(values), finest_by_parent=True)[2]
        stored = np.empty_like(values)
        stored[order] = values
        del group["particles"], group.attrs["lzxy_order"]
        group["particle_intensities"] = stored
        assert shape[0] == 1 or not np.array_equal(stored, values)  # one plane has the same order
    return path
