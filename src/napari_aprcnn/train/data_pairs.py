"""Which images training data hold, and which labels belong to them: by an index, by folders, or by names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from napari_aprcnn.errors import TrainingDataError
from napari_aprcnn.train.data_files import IMAGE_SUFFIXES, INDEX, DataFiles, stem

__all__ = ["LABEL_SUFFIXES", "Entry", "find_entries"]

LABEL_SUFFIXES = ("_masks", "_labels", "_cp_masks")
"""Of the names of labels beside their image."""

# What Cellpose writes beside an image and its masks.
_DERIVED = ("_flows", "_flows_0", "_flows_1", "_flows_2", "_cellprob", "_cp_output", "_outlines")
_PICKLED = "_seg.npy"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image.

    Attributes
    ----------
    name, kind, objective, origin
        As `LabelledImage` has them.
    image
        Name of its file.
    labels
        Name of the file of its labels; ``None``: there are none.
    unpaired
        What is wrong where labels were expected, for whoever needs them.
    """

    name: str
    image: str
    labels: str | None
    kind: str = ""
    objective: str = ""
    origin: str = ""
    unpaired: str = ""


def find_entries(files: DataFiles) -> list[Entry]:
    """Find all images, with labels or without; nothing but the index is read.

    Raises
    ------
    TrainingDataError
        If the index is damaged, labels have no image, or it is not clear what belongs together.
    """
    if files.is_indexed:
        return _by_index(files)
    return _by_folder(files) if {"images", "labels"} <= files.folders else _by_name(files)


def _by_index(files: DataFiles) -> list[Entry]:
    by_stem = {stem(name): name for name in files.pictures}

    def find(part: str, name: str) -> str | None:
        usual = f"{part}/{name}.tif"
        return usual if usual in files.known else by_stem.get(f"{part}/{name}")

    found = []
    for item in _read_index(files):
        name = str(item["name"])
        image, labels = find("images", name), find("labels", name)
        if image is None and labels is not None:
            continue  # labels alone, as some archives hold them for other uses
        found.append(
            Entry(
                name=name,
                image=image or f"images/{name}.tif",
                labels=labels,
                kind=str(item.get("kind", "")),
                objective=str(item.get("mag", "")),
                origin=f"{files.path.resolve()}: {'group ' + str(item['group']) if 'group' in item else name}",
                unpaired="" if labels else f"there is no labels/{name}.tif",
            )
        )
    return found


def _read_index(files: DataFiles) -> list[dict[str, Any]]:
    remedy = (
        'expected a list of objects with a name, [{"name": "a"}, ...], in UTF-8: write it again, or remove it and '
        "images and labels are paired by their names"
    )
    data = files.read(INDEX)
    try:
        index = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TrainingDataError(f"cannot read {files.shown(INDEX)} ({error}); {remedy}") from error
    if not isinstance(index, list):
        raise TrainingDataError(f"cannot read {files.shown(INDEX)}: it holds {_json(index)}; {remedy}")
    for number, item in enumerate(index, start=1):
        if not isinstance(item, dict):
            raise TrainingDataError(f"cannot read {files.shown(INDEX)}: entry {number} is {_json(item)}; {remedy}")
        if not isinstance(item.get("name"), str | int | float):
            raise TrainingDataError(f"cannot read {files.shown(INDEX)}: entry {number} has no name; {remedy}")
    return index


def _json(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", type(None): "null"}.get(type(value), "a number")


def _by_folder(files: DataFiles) -> list[Entry]:
    """``images/NAME.tif`` and ``labels/NAME.tif``."""
    images, masks = (
        [name for name in files.pictures if PurePosixPath(name).parts[0] == part] for part in ("images", "labels")
    )
    found, lost = _match(files, images, masks)
    if INDEX not in files.known:  # an unpacked archive may hold labels alone
        _refuse_lost(files, lost)
    return [
        _entry(files, image, found.get(image), f"labels has no labels for {PurePosixPath(image).name}; expected a file "
               "of the same name")
        for image in images
    ]  # fmt: skip


def _by_name(files: DataFiles) -> list[Entry]:
    """``NAME.tif`` and ``NAME_masks.tif``; without masks, images alone."""
    pictures = [name for name in files.pictures if files.is_zip or "/" not in name]
    if not any(_is_mask(name) for name in pictures) and "images" in files.folders:
        pictures = [name for name in files.pictures if name.startswith("images/")]
    masks = [name for name in pictures if _is_mask(name)]
    stems = {stem(name) for name in pictures if not _is_mask(name)}
    images = [name for name in pictures if not _is_mask(name) and not _bases(name, _DERIVED) & stems]
    found, lost = _match(files, images, masks)
    _refuse_lost(files, lost)
    entries = [_entry(files, image, mask, "") for image, mask in found.items()]
    for image in images:
        if image not in found:
            pickled = f"{stem(image)}{_PICKLED}"
            unpaired = (
                f"{PurePosixPath(image).name} has no masks but {pickled}, a pickle, which is not opened because it can "
                "run code; export the masks from Cellpose (File > Save masks as PNG/tif)"
            )
            entries.append(_entry(files, image, None, unpaired if pickled in files.known else ""))
    return entries


def _entry(files: DataFiles, image: str, labels: str | None, unpaired: str) -> Entry:
    origin = f"{files.path.resolve()}: {image}" if files.is_zip else str((files.path / image).resolve())
    name = PurePosixPath(image).stem
    return Entry(name=name, image=image, labels=labels, origin=origin, unpaired="" if labels else unpaired)


def _match(files: DataFiles, images: list[str], masks: list[str]) -> tuple[dict[str, str], list[str]]:
    """Labels of every image that has some, and labels without an image."""
    by_stem: dict[str, list[str]] = {}
    for image in images:
        by_stem.setdefault(stem(image), []).append(image)
    found: dict[str, str] = {}
    lost = []
    for mask in masks:
        beside = f"images/{mask.removeprefix('labels/')}" if mask.startswith("labels/") else mask
        # The longest first: a_cp_masks belongs to a_cp where there is one, else to a.
        candidates = sorted({stem(beside)} | _bases(beside, LABEL_SUFFIXES), key=len, reverse=True)
        owners = next((by_stem[one] for one in candidates if one in by_stem), [])
        if not owners:
            lost.append(mask)
            continue
        same = [one for one in owners if PurePosixPath(one).suffix == PurePosixPath(mask).suffix] or owners
        if len(same) > 1 or same[0] in found:
            many = f"{' and '.join(same)} could be its images" if len(same) > 1 else f"so is {found[same[0]]}"
            raise TrainingDataError(
                f"{files.path}: {mask} is labels of {same[0]}, but {many}; expected one image and one file of labels "
                "of it: remove or rename the others"
            )
        found[same[0]] = mask
    return found, lost


def _refuse_lost(files: DataFiles, lost: list[str]) -> None:
    if not lost:
        return
    keys = {one.removeprefix("labels/") for mask in lost for one in {stem(mask)} | _bases(mask, LABEL_SUFFIXES)}
    others = [
        name for name in files.names
        if stem(name).removeprefix("images/") in keys and PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES
    ]  # fmt: skip
    remedy = f"convert {', '.join(others[:3])} to TIFF" if others else "add it, or remove the labels"
    more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
    raise TrainingDataError(
        f"{files.path}: there is no image of the labels {', '.join(lost[:3])}{more}; expected NAME.tif, .tiff or .png "
        f"for every NAME_masks or labels/NAME: {remedy}"
    )


def _is_mask(name: str) -> bool:
    return stem(name).endswith(LABEL_SUFFIXES)


def _bases(name: str, suffixes: tuple[str, ...]) -> set[str]:
    """Names without suffix that this one may be derived from."""
    return {stem(name).removesuffix(one) for one in suffixes if stem(name).endswith(one)}
