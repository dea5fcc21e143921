"""Reading and writing .apr files: what pyapr made, round trips, checksums, wrong uses."""

import json

import numpy as np
import pytest
from apr_helpers import DATA, edited, make_legacy

from napari_aprcnn.apr import files
from napari_aprcnn.apr.files import AprLimits, list_apr, read_apr, write_apr
from napari_aprcnn.apr.tree import ParticleTree
from napari_aprcnn.errors import CancelledError, FileFormatError, MissingDependencyError, OutputError, ParticleTreeError


def _tree(shape, dtype=np.uint16, seed=0):
    """A valid tree of a shape: fine around one corner, coarse elsewhere."""
    full = (1,) * (3 - len(shape)) + tuple(shape)
    level_max = max(1, int(np.ceil(np.log2(max(full)))))
    at = np.stack(np.meshgrid(*[np.arange(-(-n // 2)) for n in full], indexing="ij"))
    levels = np.full(at.shape[1:], level_max, np.uint8)
    # A cell of level l needs a distance of twice its size from where finer ones may begin.
    for level in range(level_max - 1, max(0, level_max - 4), -1):
        size = 1 << (level_max - 1 - level)
        levels[(at // size * size).max(axis=0) >= 4 * size] = level
    tree = ParticleTree.from_levels(levels, shape=full)
    values = np.random.default_rng(seed).uniform(0, 250, len(tree)).astype(dtype)
    return tree.with_intensities(values)


# --- what pyapr wrote ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows", "gaps"])
def test_files_of_pyapr_hold_the_particles_that_pyapr_finds(name, expected):
    tree = read_apr(DATA / f"{name}.apr")
    np.testing.assert_array_equal(tree.level_image(), expected["rows_levels"])
    np.testing.assert_array_equal(tree.reconstruct(), expected["rows_values"])
    assert tree.intensities.dtype == np.uint16
    assert tree.conversion["rel_error"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("source", "name", "key"),
    [
        ({"timepoint": 1}, None, "several_t1"),
        ({"channel": "t1"}, "particles", "several_t1"),
        ({"channel": "gfp"}, None, "several_gfp"),
        ({}, None, "rows"),
    ],
)
def test_channels_and_time_points(source, name, key, expected):
    tree = read_apr(DATA / "several.apr", name=name, **source)
    np.testing.assert_array_equal(tree.level_image(), expected[f"{key}_levels"])
    np.testing.assert_array_equal(tree.reconstruct(), expected[f"{key}_values"])


def test_stabilised_values_are_decoded_as_pyapr_does(expected, rows_tree):
    tree = read_apr(DATA / "stabilised.apr")
    np.testing.assert_array_equal(tree.reconstruct(), expected["stabilised_values"])
    assert not np.array_equal(tree.intensities, rows_tree.intensities)


def test_the_first_format_of_libapr(tmp_path, rows_tree):
    assert read_apr(make_legacy(tmp_path)) == rows_tree


def test_old_files_keep_their_sizes_one_group_up(tmp_path, rows_tree):
    with edited(tmp_path, make_legacy(tmp_path)) as (path, group, file):
        for key in list(group.attrs):
            file["ParticleRepr"].attrs[key] = group.attrs[key]
            del group.attrs[key]
    assert read_apr(path) == rows_tree


def test_a_list_of_what_is_in_a_file():
    images = {image.group: image for image in list_apr(DATA / "several.apr")}
    assert set(images) == {"t", "t1", "gfp"}
    assert images["gfp"].fields == {"signal": "float32"}
    assert images["t1"].shape == (11, 18, 23)
    assert images["t"].particles == len(read_apr(DATA / "several.apr"))


@pytest.mark.shared
def test_every_oracle_file_opens(oracle):
    paths = sorted((oracle / "apr").glob("*.apr"))
    assert len(paths) == 11
    for path in paths:
        tree = read_apr(path)
        assert tree.intensities is not None
        struct = oracle / f"struct_{path.stem}.npz"
        if struct.exists():
            with np.load(struct) as arrays:
                np.testing.assert_array_equal(tree.particles.x, arrays["y_vec"])
                np.testing.assert_array_equal(tree.particles.offsets[1:], arrays["xz_end_vec"])
                np.testing.assert_array_equal(tree.nodes.x, arrays["tree_y_vec"])
                np.testing.assert_array_equal(tree.nodes.offsets, arrays["tree_xz_end_vec"])


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(33, 17, 40), (64, 64, 64), (9, 50), (1, 1, 7), (5, 1, 1)])
def test_round_trip(tmp_path, shape, dtype):
    tree = _tree(shape, dtype)
    again = read_apr(write_apr(tmp_path / "a.apr", tree))
    assert again == tree
    for ours, theirs in zip(again.nodes, tree.nodes, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["a.apr"]


def test_more_particles_than_one_chunk(tmp_path):
    tree = ParticleTree.from_levels(np.full((55, 55, 55), 7, np.uint8), shape=(110, 110, 110))
    values = np.random.default_rng(0).integers(0, 60_000, len(tree)).astype(np.uint16)
    assert len(tree) > 1 << 20
    tree = tree.with_intensities(values)
    assert read_apr(write_apr(tmp_path / "a.apr", tree)) == tree


def test_a_tree_without_intensities(tmp_path):
    tree = _tree((20, 20, 20)).with_intensities(None)
    again = read_apr(write_apr(tmp_path / "a.apr", tree))
    assert again == tree
    assert again.intensities is None


def test_several_trees_in_one_file(tmp_path):
    trees = {("t", 0): _tree((20, 20, 20)), ("t", 12): _tree((9, 9, 30)), ("DNA", 0): _tree((30, 8, 8), np.float32)}
    path = write_apr(tmp_path / "a.apr", trees, name="signal")
    assert read_apr(path, timepoint=12) == trees["t", 12]
    assert read_apr(path, channel="DNA") == trees["DNA", 0]
    assert {image.group for image in list_apr(path)} == {"t", "t12", "DNA"}


def test_conversion_metadata_come_back(tmp_path):
    tree = _tree((20, 20, 20))
    conversion = {"relative_error": 0.2, "spacing_um": [2.0, 0.5, 0.25], "notes": {"µ": [1, None, True]}}
    tree = ParticleTree(tree.shape, tree.particles, tree.nodes, intensities=tree.intensities, conversion=conversion)
    path = write_apr(tmp_path / "a.apr", tree)
    assert dict(read_apr(path).conversion) == conversion
    import h5py

    with h5py.File(path) as file:
        attributes = file["ParticleRepr/t"].attrs
        assert attributes["rel_error"][0] == np.float32(0.2)
        assert [attributes[key][0] for key in ("dz", "dx", "dy")] == [2.0, 0.5, 0.25]


@pytest.mark.parametrize("conversion", [{"a": object()}, {"a": float("nan")}, {"a": "x" * 70_000}])
def test_metadata_that_cannot_be_stored(tmp_path, conversion):
    tree = _tree((20, 20, 20))
    tree = ParticleTree(tree.shape, tree.particles, tree.nodes, conversion=conversion)
    with pytest.raises(OutputError, match="metadata"):
        write_apr(tmp_path / "a.apr", tree)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_replaced_unless_asked(tmp_path):
    path = write_apr(tmp_path / "a.apr", _tree((20, 20, 20)))
    with pytest.raises(OutputError, match="exists already"):
        write_apr(path, _tree((9, 9, 9)))
    write_apr(path, _tree((9, 9, 9)), overwrite=True)
    assert read_apr(path).shape == (9, 9, 9)


@pytest.mark.parametrize("name", ["", "a/b", "Tree", "y_vec", "map_x", ".."])
def test_names_that_would_break_the_file(tmp_path, name):
    with pytest.raises(OutputError, match="field name"):
        write_apr(tmp_path / "a.apr", _tree((9, 9, 9)), name=name)
    if name != "Tree" and not name.isidentifier():
        with pytest.raises(OutputError, match="channel"):
            write_apr(tmp_path / "a.apr", {(name, 0): _tree((9, 9, 9))})


def test_values_of_other_types_have_a_remedy(tmp_path):
    with pytest.raises(OutputError, match="astype"):
        write_apr(tmp_path / "a.apr", _tree((9, 9, 9), np.int64))


# --- the checksum, and what stands in for it -------------------------------------------------------------------------


@pytest.fixture
def ours(tmp_path, rows_tree):
    return write_apr(tmp_path / "ours.apr", rows_tree)


def test_a_changed_value_is_found(tmp_path, ours):
    with edited(tmp_path, ours) as (path, group, _):
        group["particles"][5] += 1
    with pytest.raises(FileFormatError, match="checksum"):
        read_apr(path)


def test_changed_metadata_are_found(tmp_path, ours):
    with edited(tmp_path, ours) as (path, group, _):
        text = json.loads(group.attrs["aprcnn_conversion"]) | {"rel_error": 0.9}
        group.attrs["aprcnn_conversion"] = np.bytes_(json.dumps(text).encode())
    with pytest.raises(FileFormatError, match="checksum"):
        read_apr(path)


@pytest.mark.parametrize("lost", ["aprcnn_sha256", "aprcnn_conversion", "other copy"])
def test_losing_a_part_of_the_checksum_does_not_switch_it_off(tmp_path, ours, lost):
    with edited(tmp_path, ours) as (path, group, file):
        if lost == "other copy":
            del file["ParticleRepr"].attrs["aprcnn_sha256_t"]
        else:
            del group.attrs[lost]
    with pytest.raises(FileFormatError, match="checksum"):
        read_apr(path)


@pytest.mark.parametrize("name", ["rows", "gaps"])
def test_without_a_checksum_the_interior_nodes_vouch_for_the_structure(tmp_path, name):
    with edited(tmp_path, DATA / f"{name}.apr") as (path, group, _):
        group["Tree/y_vec"][-1] += 1
    with pytest.raises(FileFormatError, match="interior nodes"):
        read_apr(path)


def test_particles_that_do_not_tile(tmp_path):
    with edited(tmp_path, DATA / "rows.apr") as (path, group, _):
        group["y_vec"][100] += 1
    with pytest.raises(FileFormatError, match="tile"):
        read_apr(path)


def test_a_crooked_tree_is_no_file_format_but_refused_all_the_same(tmp_path):
    """A jump of two levels: every cell is covered once, but no converter makes such a tree."""
    levels = np.full((16, 16, 16), 3, np.uint8)
    levels[:8, :8, :8] = 5
    with pytest.raises(ParticleTreeError, match="one level"):
        ParticleTree.from_levels(levels, shape=(32, 32, 32))
    tree = ParticleTree.from_levels(levels, shape=(32, 32, 32), check=False)
    with pytest.raises(FileFormatError, match="one level"):
        read_apr(write_apr(tmp_path / "a.apr", tree))


# --- wrong uses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "nothing"}, "there is no field 'nothing'; the file has particles"),
        ({"channel": "gfp"}, "there is no group 'gfp'; the file has t"),
        ({"timepoint": 3}, "there is no group 't3'"),
        ({"channel": "../t"}, "expected the name of a channel"),
        ({"name": "y_vec"}, "there is no field"),
    ],
)
def test_asking_for_what_is_not_there(arguments, words):
    with pytest.raises(FileFormatError, match=words):
        read_apr(DATA / "rows.apr", **arguments)


def test_several_fields_without_a_usual_name(tmp_path, rows_tree):
    with edited(tmp_path, DATA / "rows.apr") as (path, group, _):
        group["a"], group["b"] = rows_tree.intensities, rows_tree.intensities[::-1].copy()
        del group["particles"]
    with pytest.raises(FileFormatError, match="a, b; say which"):
        read_apr(path)
    np.testing.assert_array_equal(read_apr(path, name="b").intensities, rows_tree.intensities[::-1])


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "empty"), (b"II*\0" + b"\0" * 60, "HDF5"), (b"\x89HDF\r\n\x1a\n", "HDF5")]
)
def test_files_that_are_something_else(tmp_path, content, words):
    (tmp_path / "a.apr").write_bytes(content)
    with pytest.raises(FileFormatError, match=rf"a\.apr.*{words}"):
        read_apr(tmp_path / "a.apr")


def test_an_hdf5_file_of_another_kind(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.apr", "w") as file:
        file["x"] = np.arange(3)
    with pytest.raises(FileFormatError, match="ParticleRepr"):
        read_apr(tmp_path / "a.apr")
    with pytest.raises(FileFormatError, match="ParticleRepr"):
        list_apr(tmp_path / "a.apr")


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(FileFormatError, match="there is no file"):
        read_apr(tmp_path / "none.apr")
    with pytest.raises(FileFormatError, match="there is no file"):
        read_apr(tmp_path)


def test_relative_paths(tmp_path, rows_tree, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_apr("a.apr", rows_tree)
    assert read_apr("a.apr") == rows_tree


def test_a_module_beside_the_data_is_not_run(tmp_path, rows_tree, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit(7)")
    write_apr(tmp_path / "a.apr", rows_tree)
    monkeypatch.chdir(tmp_path)
    assert read_apr("a.apr") == rows_tree


def test_what_to_install(monkeypatch, tmp_path, rows_tree):
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    for call in (lambda: read_apr(DATA / "rows.apr"), lambda: write_apr(tmp_path / "a.apr", rows_tree)):
        with pytest.raises(MissingDependencyError, match="pip install h5py hdf5plugin"):
            call()


def test_cancel_and_limits():
    with pytest.raises(CancelledError):
        read_apr(DATA / "rows.apr", should_cancel=lambda: True)
    with pytest.raises(FileFormatError, match=r"more than 0\.01 s"):
        read_apr(DATA / "rows.apr", limits=AprLimits(seconds=0.01))
    with pytest.raises(FileFormatError, match="limit"):
        read_apr(DATA / "rows.apr", limits=AprLimits(memory_bytes=1000))
