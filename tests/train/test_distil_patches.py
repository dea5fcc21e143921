"""What patches are made of: images read by their axes, the teacher at its own scale, a cache that is never stale."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_aprcnn.cli.app import app
from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.io.samples import sample_path
from napari_aprcnn.models.network import Network
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.train.data import read_training_data
from napari_aprcnn.train.distil import PatchSampler, distil_on, split, turned
from napari_aprcnn.train.distil_images import read_images
from napari_aprcnn.train.teacher import TeacherPatches, _runner

from .conftest import TEACHER, disks, distil_settings


def copied(folder, to):
    """A copy of images and labels that may be changed."""
    for path in folder.rglob("*.tif"):
        beside = to / path.relative_to(folder)
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(path.read_bytes())
    return to


def archive(path, entries, shape=(96, 112)):
    """An archive of disks with these entries of the index."""
    with zipfile.ZipFile(path, "w") as out:
        for number, entry in enumerate(entries):
            for part, array in zip(("images", "labels"), disks(shape, seed=number), strict=True):
                blob = io.BytesIO()
                tifffile.imwrite(blob, array)
                out.writestr(f"{part}/{entry['name']}.tif", blob.getvalue())
        out.writestr("index.json", json.dumps(entries))
    return path


# --- the cache ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["images", "labels"])
def test_changed_pixels_and_labels_are_seen(labelled_quarters, teacher, tmp_path, part):
    folder, config = copied(labelled_quarters, tmp_path / "data"), distil_settings(views=1)
    before = TeacherPatches(read_images([folder]), teacher, config, folder=tmp_path)
    path = folder / part / "q0.tif"
    tifffile.imwrite(path, tifffile.imread(path)[::-1, ::-1])
    after = TeacherPatches(read_images([folder]), teacher, config, folder=tmp_path)
    assert after.folder != before.folder
    assert not np.array_equal(after.patch(0), before.patch(0))
    assert after.facts["teacher"] == before.facts["teacher"]
    again = TeacherPatches(read_images([labelled_quarters]), teacher, config, folder=tmp_path)
    assert again.folder == before.folder  # the same content elsewhere is the same


def test_another_teacher_of_the_same_name_is_seen(labelled_quarters, teacher, tmp_path):
    other = load_model(TEACHER, device="cpu")
    next(other.module.output.parameters()).data.mul_(1.5)
    images = read_images([labelled_quarters])
    before, after = (TeacherPatches(images, one, distil_settings(views=1), folder=tmp_path) for one in (teacher, other))
    assert before.folder != after.folder


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("json", b"[[0, 0.2"),
        ("json", b'{"image": 0}'),
        ("json", b"[[99, 0.2]]"),
        ("npy", b"no array"),
        ("npy", b"PK\x03\x04 no zip"),
        ("features.npy", b""),
    ],
)
def test_a_damaged_cache_is_made_again(labelled_quarters, teacher, tmp_path, kind, content):
    config, images = distil_settings(views=1, features=0.1), read_images([labelled_quarters])
    before = TeacherPatches(images, teacher, config, folder=tmp_path)
    said = before.patch(0), before.features(0)
    (before.folder / f"00000.{kind}").write_bytes(content)
    after = TeacherPatches(images, teacher, config, folder=tmp_path)
    assert after.folder == before.folder
    assert after.entries == before.entries
    np.testing.assert_array_equal(after.patch(0), said[0])
    np.testing.assert_array_equal(after.features(0), said[1])


@pytest.mark.parametrize("kind", ["npy", "features.npy"])
def test_a_cache_cut_short_or_missing_is_made_again(labelled_quarters, teacher, tmp_path, kind, caplog):
    config, images = distil_settings(views=1, features=0.1), read_images([labelled_quarters])
    path = TeacherPatches(images, teacher, config, folder=tmp_path).folder / f"00000.{kind}"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    TeacherPatches(images, teacher, config, folder=tmp_path)
    assert path.read_bytes() == whole
    assert "made again" in caplog.text
    path.unlink()
    TeacherPatches(images, teacher, config, folder=tmp_path)
    assert path.read_bytes() == whole


def test_a_cache_damaged_while_it_is_used_is_told(labelled_quarters, teacher, tmp_path):
    found = TeacherPatches(read_images([labelled_quarters]), teacher, distil_settings(views=1), folder=tmp_path)
    (found.folder / "00000.npy").write_bytes(b"")
    with pytest.raises(TrainingDataError, match="damaged"):
        found.patch(0)


def test_kept_features_are_those_of_the_teacher_and_turn_with_the_patch(labelled_quarters, teacher, tmp_path):
    config = distil_settings(views=1, features=0.1, consistency=False)
    found = TeacherPatches(read_images([labelled_quarters]), teacher, config, folder=tmp_path)
    run = _runner(teacher, features=True)
    for number in range(len(found)):
        _, fresh = run(found.patch(number)[0])
        assert fresh.shape == (128, 4, 4)
        # The patch is kept in half precision, too.
        np.testing.assert_allclose(found.features(number), fresh, rtol=0.02, atol=0.02 * fresh.std())
    patch, features, seen = found.patch(1), found.features(1), set()
    for step in range(24):
        image, (_, kept) = PatchSampler(found, [1], config).batch(step, 1)
        way = next(
            (turns, mirrored)
            for turns in range(4)
            for mirrored in (False, True)
            if np.array_equal(turned(patch, turns, mirrored=mirrored)[0], image[0])
        )
        expected = np.rot90(features, way[0], axes=(1, 2))
        np.testing.assert_array_equal(kept[0], expected[..., ::-1] if way[1] else expected)
        seen.add(way)
    assert len(seen) > 4


# --- the teacher's scale ------------------------------------------------------------------------------------------


def scaled(teacher, diameter_px):
    return Network(teacher.module, teacher.card.replace(diameter_px=diameter_px), device=_cpu())


def _cpu():
    from napari_aprcnn.models.devices import resolve_device

    return resolve_device("cpu")


@pytest.mark.parametrize(("diameter_px", "edge"), [(25.0, 64), (50.0, 128), (17.0, 48), (30.0, 80)])
def test_the_teacher_sees_the_same_piece_at_its_own_diameter(
    labelled_quarters, teacher, tmp_path, monkeypatch, diameter_px, edge
):
    """A teacher that says what it sees: that lies where the student sees it."""
    shapes = []

    def predict(_self, planes):
        shapes.append(planes.shape)
        return np.stack([planes, -planes, 4 * planes - 1], 1)

    monkeypatch.setattr(Network, "predict", predict)
    config = distil_settings(views=2, foreground=0.0)
    found = TeacherPatches(read_images([labelled_quarters]), scaled(teacher, diameter_px), config, folder=tmp_path)
    assert set(shapes) == {(1, edge, edge)}
    for number in range(len(found)):
        patch = found.patch(number)
        inner = patch[:, 4:-4, 4:-4]
        for said in (5 * inner[1], -5 * inner[2], (inner[3] + 1) / 4):
            assert np.corrcoef(said.ravel(), inner[0].ravel())[0, 1] > 0.97
            assert abs(said - inner[0]).mean() < 0.2 * inner[0].std()


def test_at_its_own_diameter_the_teacher_is_right(labelled_quarters, teacher, tmp_path):
    """A student of nuclei of 8 px learns what the teacher sees at 25 px, which fits the labels better."""
    config = distil_settings(views=2, foreground=0.0, scale_jitter=0.0, training={"diameter_px": 8.0})
    found = TeacherPatches(read_images([labelled_quarters]), teacher, config, folder=tmp_path)
    patches = np.stack([found.patch(number) for number in range(len(found))])

    def iou(inside):
        labels, there = patches[:, 7] > 0, patches[:, 4] > 0
        return (inside & labels & there).sum() / ((inside | labels) & there).sum()

    kept, as_it_was = iou(patches[:, 3] > 0), iou(teacher.predict(patches[:, 0])[:, 2] > 0)
    assert kept > 0.8
    assert kept > as_it_was + 0.03
    inside = (patches[:, 3] > 0) & (patches[:, 7] > 0)
    along = (patches[:, 1:3] * patches[:, 5:7]).sum(1)[inside]
    assert np.median(along) > 0.8  # unit vectors, in the labels' directions


def test_features_of_another_scale_have_the_student_s_size(labelled_quarters, teacher, tmp_path):
    config = distil_settings(views=1, features=0.1, n_steps=1)
    found = TeacherPatches(read_images([labelled_quarters]), scaled(teacher, 30.0), config, folder=tmp_path)
    assert found.features(0).shape == (128, 4, 4)
    train, looked_at = split(found, parts=2, part=0, seed=0)
    distil_on(found, train, looked_at, config=config, teacher_width=128, run_dir=tmp_path / "run")


def test_blank_images_are_told(teacher, tmp_path):
    (tmp_path / "blank").mkdir()
    for number in range(2):
        tifffile.imwrite(tmp_path / "blank" / f"{number}.tif", np.full((80, 90), 7, np.uint16))
    images = read_images([tmp_path / "blank"])
    with pytest.raises(TrainingDataError, match="finds nuclei in none of 2 images"):
        TeacherPatches(images, teacher, distil_settings(), folder=tmp_path)


# --- images and their axes ----------------------------------------------------------------------------------------


def test_a_colour_image_wants_a_channel(tmp_path, teacher):
    colours = np.random.default_rng(0).integers(0, 255, (64, 48, 3)).astype(np.uint8)
    folder = tmp_path / "colour"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", colours, photometric="rgb")
    with pytest.raises(TrainingDataError, match=r"3 channels \(axes YXC.*--channel"):
        read_images([folder])
    (item,) = read_images([folder], channel=1)
    assert item.image.shape == (64, 48)
    assert np.corrcoef(item.image.ravel(), colours[..., 1].ravel())[0, 1] > 0.999
    with pytest.raises(TrainingDataError, match="channel 3 was asked for"):
        read_images([folder], channel=3)
    done = CliRunner().invoke(app, ["distil", TEACHER, "faster_v3", str(folder), "--name", "x", "-o", str(tmp_path)])
    assert done.exit_code == 3
    assert "--channel" in done.output


def test_axes_of_the_file_decide(tmp_path):
    stack = np.random.default_rng(0).integers(0, 255, (5, 2, 64, 48)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    tifffile.imwrite(tmp_path / "b.tif", stack[:, 1], imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "c.tif", stack[0, 0])
    items = read_images([tmp_path], channel=1)
    assert [(item.name, item.image.shape) for item in items] == [(n, (64, 48)) for n in "aaaaabbbbbc"]
    np.testing.assert_array_equal(items[3].image, items[8].image)
    assert len({item.origin for item in items}) == 3


def test_a_colour_image_with_labels_is_told(tmp_path):
    image, labels = disks()
    tifffile.imwrite(tmp_path / "a.tif", np.stack([image] * 3, -1).astype(np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "a_masks.tif", np.stack([labels] * 3, -1).astype(np.uint8), photometric="rgb")
    with pytest.raises(TrainingDataError, match=r"colour image of shape \(96, 112, 3\)"):
        read_training_data(tmp_path)


def test_a_damaged_image_is_told(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\x00 no TIFF")
    with pytest.raises(TrainingDataError, match=r"a\.tif"):
        read_images([tmp_path])


# --- which images, and which together -----------------------------------------------------------------------------


def test_images_are_chosen_by_kind_and_objective(tmp_path):
    entries = [
        {"name": "a", "kind": "tissue", "mag": "20x"},
        {"name": "b", "kind": "tissue", "mag": "40x air"},
        {"name": "c", "kind": "tissue", "mag": "40x oil"},
        {"name": "d", "kind": "tissue", "mag": "63x oil"},
        {"name": "e", "kind": "culture_20x"},
        {"name": "f", "kind": "tissue", "mag": "120x"},
    ]
    path = archive(tmp_path / "mixed.zip", entries)

    def names(*kinds):
        return "".join(item.name for item in read_images([path], kinds=kinds))

    assert names() == "abcdef"
    assert names("20x") == "ae"
    assert names("40x") == "bc"
    assert names("40x oil") == "c"
    assert names("oil") == "cd"
    assert names("20x", "63x") == "ade"
    assert names("tissue") == "abcdf"
    with pytest.raises(TrainingDataError, match=r"kinds \['10x'\].*'40x oil'"):
        names("10x")
    with pytest.raises(TrainingDataError, match="kinds"):
        names("3x")


@pytest.fixture(scope="module")
def volumes(teacher, tmp_path_factory):
    """Three volumes of four planes: the image moved a little from plane to plane."""
    folder = tmp_path_factory.mktemp("volumes")
    plane = tifffile.imread(sample_path("culture"))
    for number in range(3):
        x = number * 64
        stack = np.stack([plane[z : z + 128, x : x + 128] for z in range(4)])
        tifffile.imwrite(folder / f"v{number}.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    return TeacherPatches(read_images([folder]), teacher, distil_settings(views=1), folder=folder / "patches")


def test_planes_of_a_volume_are_never_parted(volumes):
    assert len({entry.image for entry in volumes.entries}) > 6
    assert {entry.group for entry in volumes.entries} == {0, 4, 8}
    for part in range(3):
        train, looked_at = split(volumes, parts=3, part=part, seed=0)
        learnt, held = ({volumes.entries[n].image // 4 for n in part} for part in (train, looked_at))
        assert not learnt & held
        assert len(held) == 1
    with pytest.raises(TrainingDataError, match="got 3 images with nuclei, planes of one file counted as one"):
        split(volumes, parts=4, part=3, seed=0)


def test_a_single_volume_is_cut_into_runs_of_planes(teacher, tmp_path):
    plane = tifffile.imread(sample_path("culture"))
    stack = np.stack([plane[z : z + 128, :128] for z in range(12)])
    tifffile.imwrite(tmp_path / "v.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    config = distil_settings(views=1)
    patches = TeacherPatches(read_images([tmp_path]), teacher, config, folder=tmp_path / "patches")
    seen = set()
    for part in range(3):
        train, looked_at = split(patches, parts=3, part=part, seed=0)
        learnt, held = (sorted({patches.entries[n].image for n in part}) for part in (train, looked_at))
        assert held == list(range(held[0], held[0] + 4))
        assert min(abs(a - b) for a in learnt for b in held) == 3
        seen |= set(held)
    assert seen == set(range(12))
    stack = TeacherPatches(read_images([tmp_path])[:3], teacher, config, folder=tmp_path / "few")
    with pytest.raises(TrainingDataError, match="one file with nuclei in 3 planes"):
        split(stack, parts=2, part=0, seed=0)


def test_labelled_volumes_and_groups_of_the_index_have_one_origin(tmp_path):
    image, labels = disks()
    for name in ("v", "w"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.stack([image] * 5))
        tifffile.imwrite(tmp_path / f"{name}_masks.tif", np.stack([labels] * 5))
    items = read_images([tmp_path])
    assert [item.origin for item in items] == [items[0].origin] * 5 + [items[5].origin] * 5
    assert items[0].origin != items[5].origin
    entries = [{"name": "a", "group": 7}, {"name": "b"}, {"name": "c", "group": 7}, {"name": "d", "group": 8}]
    a, b, c, d = (item.origin for item in read_images([archive(tmp_path / "grouped.zip", entries)]))
    assert a == c
    assert len({a, b, d}) == 3
