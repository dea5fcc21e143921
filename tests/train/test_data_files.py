"""Files of training data: what is damaged is named, and what belongs together is found."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.train.data import median_diameter_px, normalise_percentiles, read_pairs, read_training_data
from napari_aprcnn.train.distil_images import read_images
from napari_aprcnn.train.sampling import CropSampler

from .conftest import disks


def tiff(array, **options) -> bytes:
    blob = io.BytesIO()
    tifffile.imwrite(blob, array, **options)
    return blob.getvalue()


def archive(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def write(folder, **arrays):
    """Write NAME.tif for every array; `__` of a name is a slash."""
    for name, array in arrays.items():
        path = folder / f"{name.replace('__', '/')}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, array)
    return folder


def png(path, array):
    imsave(path, array, check_contrast=False)


def names(items):
    return [item.name for item in items]


# --- pixels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_an_image_that_is_not_finite_is_named(tmp_path, value):
    image, labels = disks()
    image = image.astype(np.float32)
    image[3, 3] = value
    write(tmp_path / "pairs", a=image, a_masks=labels)
    write(tmp_path / "bare", a=image)
    words = r"a\.tif holds (NaN or infinite values|values of .* to 3e\+38); expected"
    with pytest.raises(TrainingDataError, match=words):
        read_training_data(tmp_path / "pairs")
    ((_, _, load),) = read_pairs(tmp_path / "pairs")
    with pytest.raises(TrainingDataError, match=words):
        load()
    with pytest.raises(TrainingDataError, match=r"a\.tif"):
        read_images([tmp_path / "bare"])


def test_bright_nuclei_on_a_dark_background_stay_finite(tmp_path):
    image = np.random.default_rng(0).normal(0, 1e-3, (128, 128)).astype(np.float32)
    labels = np.zeros((128, 128), np.uint16)
    labels[60:70, 60:70] = 1
    image[labels > 0] = 2000
    write(tmp_path / "pairs", a=image, a_masks=labels)
    write(tmp_path / "bare", a=image)
    for items in (read_training_data(tmp_path / "pairs"), read_images([tmp_path / "bare"])):
        assert np.isfinite(items[0].image).all()
        assert items[0].image[65, 65] == np.finfo(np.float16).max
    images, targets = CropSampler(items, crop_px=64, collage=0.0, tissue=0.0).batch(0, 2)
    assert images.isfinite().all()
    assert targets.isfinite().all()


def test_differences_that_vanish_are_no_nan():
    assert not normalise_percentiles(np.full((4, 4), 10**12)).any()
    assert not normalise_percentiles(np.linspace(0, 1e-310, 16).reshape(4, 4)).any()


def test_booleans_are_images(tmp_path):
    image, labels = disks()
    write(tmp_path, a=image > 400, a_masks=labels)
    (item,) = read_training_data(tmp_path)
    np.testing.assert_array_equal(item.image > 0.5, image > 400)


def test_pixels_that_are_no_intensities_and_negative_labels_are_told(tmp_path):
    image, labels = disks()
    write(tmp_path / "complex", a=image.astype(np.complex64), a_masks=labels)
    write(tmp_path / "negative", a=image, a_masks=-labels.astype(np.int32))
    with pytest.raises(TrainingDataError, match=r"a\.tif has pixels of type complex64"):
        read_training_data(tmp_path / "complex")
    with pytest.raises(TrainingDataError, match=r"a_masks\.tif holds the negative label -8"):
        read_training_data(tmp_path / "negative")


def test_ids_of_any_size_take_no_memory(tmp_path):
    image, labels = disks()
    large = np.where(labels > 0, labels.astype(np.int64) + 2_000_000_000_000, 0)
    write(tmp_path, a=image, a_masks=large)
    (item,) = read_training_data(tmp_path)
    np.testing.assert_array_equal(item.labels, labels)
    assert item.labels.dtype == np.uint32
    assert median_diameter_px(large) == median_diameter_px(labels) == item.diameter_px
    write(tmp_path, a_masks=np.full(image.shape, 3_000_000_000, np.uint32))
    assert (read_training_data(tmp_path)[0].labels == 1).all()


# --- damaged files ------------------------------------------------------------------------------------------------


def test_a_damaged_member_is_named(tmp_path):
    image, labels = disks()
    members = {"index.json": '[{"name": "a"}]', "images/a.tif": tiff(image), "labels/a.tif": tiff(labels)}
    path = archive(tmp_path / "a.zip", members)
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("images/a.tif").header_offset + 60
    data = bytearray(path.read_bytes())
    data[start : start + 400] = bytes(range(200)) * 2
    path.write_bytes(data)
    for read in (read_training_data, lambda path: read_images([path])):
        with pytest.raises(TrainingDataError, match=r"images/a\.tif in .*a\.zip.*copy or export it again"):
            read(path)


@pytest.mark.parametrize("broken", ["a", "a_masks"])
def test_a_damaged_compressed_file_is_named(tmp_path, broken):
    image, labels = disks()
    write(tmp_path, a=image, a_masks=labels)
    data = bytearray(tiff(labels, compression="zlib"))
    data[-200:-100] = bytes(100)
    (tmp_path / f"{broken}.tif").write_bytes(data)
    with pytest.raises(TrainingDataError, match=rf"{broken}\.tif.*copy or export it again"):
        read_training_data(tmp_path)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ('{"name": "a"}', "it holds an object"),
        ('["a"]', "entry 1 is text"),
        ('[{"name": "a"}, {"kind": "b"}]', "entry 2 has no name"),
        ("null", "it holds null"),
        ("[{", "Expecting"),
        ("[" * 100_000, "recursion"),
        ('[{"name": "é"}]'.encode("latin-1"), "can't decode byte"),
    ],
)
def test_a_damaged_index_is_told(tmp_path, index, words):
    image, labels = disks()
    path = archive(tmp_path / "a.zip", {"index.json": index, "images/a.tif": tiff(image), "labels/a.tif": tiff(labels)})
    for read in (read_training_data, lambda path: read_images([path])):
        with pytest.raises(TrainingDataError, match=rf"index\.json in .*a\.zip.*{words}.*expected a list of objects"):
            read(path)


def test_what_the_index_names_and_is_not_there_is_told(tmp_path):
    image, labels = disks()
    members = {"images/a.tif": tiff(image), "labels/a.tif": tiff(labels), "images/b.tif": tiff(image)}
    for lacking, words in (("b", r"'b': there is no labels/b\.tif"), ("c", r"'c': there is no")):
        index = json.dumps([{"name": "a"}, {"name": lacking}])
        path = archive(tmp_path / f"{lacking}.zip", {"index.json": index, **members})
        with pytest.raises(TrainingDataError, match=words):
            read_training_data(path)
    with pytest.raises(TrainingDataError, match=r"there is no images/c\.tif in .*c\.zip; add it"):
        read_images([tmp_path / "c.zip"])
    assert names(read_images([tmp_path / "b.zip"])) == ["a", "b"]


# --- images without labels ----------------------------------------------------------------------------------------


def test_a_zip_without_labels_serves_distillation(tmp_path):
    image, labels = disks()
    index = json.dumps([{"name": "a", "mag": "20x", "group": 1}, {"name": "b", "kind": "tissue"}])
    path = archive(
        tmp_path / "indexed.zip",
        {"index.json": index, "images/a.tif": tiff(image), "images/b.tif": tiff(np.stack([image] * 8))},
    )
    items = read_images([path])
    assert names(items) == ["a", *"b" * 8]
    assert (items[0].objective, items[0].origin[-7:], items[1].kind) == ("20x", "group 1", "tissue")
    assert not items[0].labels.any()
    assert names(read_images([path], kinds=["20x"])) == ["a"]
    with pytest.raises(TrainingDataError, match=r"holds no pairs \(2 images without labels"):
        read_training_data(path)
    members = {"b.TIFF": tiff(image), "a.tif": tiff(image), "__MACOSX/._a.tif": b"", "notes.txt": b""}
    plain = archive(tmp_path / "plain.ZIP", members)
    assert names(read_images([plain])) == ["a", "b"]
    wrapped = archive(tmp_path / "wrapped.zip", {f"data/{name}": data for name, data in members.items()})
    assert names(read_images([wrapped])) == ["a", "b"]
    paired = archive(tmp_path / "paired.zip", {**members, "a_masks.tif": tiff(labels)})
    assert names(read_training_data(paired)) == ["a"]
    none = archive(tmp_path / "none.zip", {"notes.txt": b""})
    with pytest.raises(TrainingDataError, match=r"holds no image .*\.txt.*expected \.tif"):
        read_images([none])


def test_a_member_of_a_zip_is_named_when_it_has_channels(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (64, 48, 3)).astype(np.uint8)
    path = archive(tmp_path / "a.zip", {"c.tif": tiff(colours, photometric="rgb")})
    with pytest.raises(TrainingDataError, match=r"c\.tif in .*a\.zip has 3 channels"):
        read_images([path])
    np.testing.assert_allclose(
        read_images([path], channel=1)[0].image, normalise_percentiles(colours[..., 1]), atol=1e-3
    )


@pytest.mark.parametrize("layout", ["{0}", "images__{0}"])
def test_every_image_that_is_no_mask_is_distilled_on(tmp_path, layout):
    image, labels = disks()
    write(tmp_path, **{layout.format(f"p{n}"): image for n in range(4)})
    write(tmp_path, **{"labels__p0" if "images" in layout else "p0_masks": labels})
    items = read_images([tmp_path])
    assert names(items) == ["p0", "p1", "p2", "p3"]
    assert [item.labels.any() for item in items] == [True, False, False, False]
    assert len({item.origin for item in items}) == 4


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ["a.tif", "a.tiff", "a.TIF", "a.png", "a.PNG"])
@pytest.mark.parametrize("mask", ["a_cp_masks.tif", "a_cp_masks.png", "a_masks.TIF", "a_labels.tiff"])
def test_files_of_cellpose_go_in(tmp_path, image, mask):
    pixels, labels = disks()
    for name, array in ((image, pixels), (mask, labels)):
        if name.lower().endswith("png"):
            png(tmp_path / name.lower(), array)
            (tmp_path / name.lower()).rename(tmp_path / name)
        else:
            tifffile.imwrite(tmp_path / name, array)
    (tmp_path / "a_seg.npy").write_bytes(b"")  # beside the masks it does no harm
    tifffile.imwrite(tmp_path / "a_flows.tif", pixels)
    png(tmp_path / "a_cp_output.png", pixels.astype(np.uint8))
    (item,) = read_training_data(tmp_path)
    np.testing.assert_array_equal(item.labels, labels)
    np.testing.assert_allclose(item.image, normalise_percentiles(pixels), atol=2e-3)
    assert names(read_images([tmp_path])) == ["a"]


def test_suffixes_of_images_and_labels_may_differ(tmp_path):
    image, labels = disks()
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tiff", image)
    png(tmp_path / "labels" / "a.png", labels)
    png(tmp_path / "images" / "b.png", image)
    tifffile.imwrite(tmp_path / "labels" / "b_cp_masks.tif", labels)
    assert names(read_training_data(tmp_path)) == ["a", "b"]


def test_pickled_masks_are_not_opened(tmp_path):
    image, _ = disks()
    write(tmp_path, a=image)
    np.save(tmp_path / "a_seg.npy", {"masks": image}, allow_pickle=True)
    with pytest.raises(TrainingDataError, match=r"a\.tif has no masks but a_seg\.npy.*export the masks from Cellpose"):
        read_training_data(tmp_path)
    assert names(read_images([tmp_path])) == ["a"]


def test_labels_without_an_image_are_named(tmp_path):
    image, labels = disks()
    write(tmp_path / "pairs", a=image, a_masks=labels, b_masks=labels)
    write(tmp_path / "parts", images__a=image, labels__a=labels, labels__b=labels)
    for folder, words in (("pairs", r"b_masks\.tif"), ("parts", r"labels/b\.tif")):
        for read in (read_training_data, lambda path: read_images([path])):
            with pytest.raises(TrainingDataError, match=rf"no image of the labels {words}.*add it, or remove"):
                read(tmp_path / folder)
    (tmp_path / "pairs" / "b.jpg").write_bytes(b"")
    with pytest.raises(TrainingDataError, match=r"convert b\.jpg to TIFF"):
        read_training_data(tmp_path / "pairs")
    (tmp_path / "parts" / "index.json").write_text("[]")  # an unpacked archive may hold labels alone
    assert names(read_training_data(tmp_path / "parts")) == ["a"]


def test_what_belongs_together_must_be_clear(tmp_path):
    image, labels = disks()
    write(tmp_path / "masks", a=image, a_masks=labels, a_labels=labels)
    with pytest.raises(TrainingDataError, match=r"a_masks\.tif is labels of a\.tif, but so is a_labels\.tif"):
        read_training_data(tmp_path / "masks")
    write(tmp_path / "images", a=image)
    tifffile.imwrite(tmp_path / "images" / "a.TIFF", image)
    png(tmp_path / "images" / "a_masks.png", labels)
    with pytest.raises(TrainingDataError, match="could be its images"):
        read_training_data(tmp_path / "images")
    write(tmp_path / "longer", a=image, a_cp=image, a_cp_masks=labels)
    assert names(read_training_data(tmp_path / "longer")) == ["a_cp"]


def test_a_picture_beside_its_tiff_is_left_out(tmp_path):
    image, labels = disks()
    write(tmp_path, a=image, a_masks=labels)
    png(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    png(tmp_path / "a_masks.png", np.zeros((4, 4, 3), np.uint8))
    assert names(read_training_data(tmp_path)) == names(read_images([tmp_path])) == ["a"]


def test_grey_pictures_are_one_channel_and_colours_are_told(tmp_path):
    image, labels = disks()
    grey = (image // 8).astype(np.uint8)
    write(tmp_path, a_masks=labels)
    png(tmp_path / "a.png", np.stack([grey] * 3 + [np.full_like(grey, 255)], -1))
    np.testing.assert_allclose(read_training_data(tmp_path)[0].image, normalise_percentiles(grey), atol=2e-3)
    png(tmp_path / "a.png", np.stack([grey, grey, grey * 0], -1))
    with pytest.raises(TrainingDataError, match=r"a\.png is a colour image of shape \(96, 112, 3\)"):
        read_training_data(tmp_path)
    (tmp_path / "a_masks.tif").unlink()
    with pytest.raises(TrainingDataError, match="3 channels"):
        read_images([tmp_path])
    assert len(read_images([tmp_path], channel=1)) == 1
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(TrainingDataError, match=r"a\.png.*it is no PNG"):
        read_images([tmp_path])
