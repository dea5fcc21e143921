"""What a teacher says of patches of images: made once, kept on disk, shared by every student.

FasterCellpose thesis, section 3.4: offline, response-based distillation. Nobody has to label anything.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch

from napari_aprcnn.errors import CancelledError, TrainingDataError
from napari_aprcnn.io.atomic import make_folder
from napari_aprcnn.models.inputs import network_input
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.train.data import FLOW_UNIT, LabelledImage, normalise_percentiles, read_training_data
from napari_aprcnn.train.losses import FLOW_SCALE
from napari_aprcnn.train.sampling import warp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.models.network import Network
    from napari_aprcnn.train.distil_settings import DistilConfig

__all__ = ["PatchEntry", "TeacherPatches", "read_images"]

_log = logging.getLogger(__name__)

_CHUNK = 16  # images of one file
_CHANNELS = 8  # image, teacher's flow y, flow x, logit, weight, label's flow y, flow x, inside
FEATURE_POOL = 2
"""Features of the coarsest scale are kept averaged over squares of this edge."""

Teacher = Callable[["NDArray[np.float32]"], "tuple[NDArray[np.float32], NDArray[np.float32] | None]"]


@dataclass(frozen=True)
class PatchEntry:
    """Where a patch is from.

    Attributes
    ----------
    image, source, kind
        Number of its image in the set, source and kind of that.
    foreground
        Share of its pixels that the teacher takes for nuclei.
    """

    image: int
    source: str
    kind: str
    foreground: float


def read_images(paths: Sequence[Path | str], *, kinds: Sequence[str] = ()) -> list[LabelledImage]:
    """Read images to distil on: archives and folders of pairs, or folders of images without labels.

    Parameters
    ----------
    paths
        As `train.data` describes them; a folder without a single label is read as images alone, planes of 3D images
        each for itself.
    kinds
        Only images whose kind holds one of these words (``20x``), for a model of one objective.

    Returns
    -------
    list of LabelledImage
        Images without labels have none of them, and a diameter of 0.

    Raises
    ------
    TrainingDataError
        If there is nothing to read, or nothing of these kinds.
    """
    images: list[LabelledImage] = []
    for path in paths:
        images += _unlabelled(Path(path)) if _is_bare(Path(path)) else read_training_data(path)
    chosen = [item for item in images if not kinds or any(word in item.kind for word in kinds)]
    if not chosen:
        there = sorted({item.kind for item in images})
        raise TrainingDataError(f"got no image of the kinds {list(kinds)}; there are {there[:20]}")
    return chosen


def _is_bare(path: Path) -> bool:
    if not path.is_dir() or (path / "labels").is_dir():
        return False
    return not any(p.stem.endswith(("_masks", "_labels")) for p in path.glob("*.tif*"))


def _unlabelled(folder: Path) -> list[LabelledImage]:
    found: list[LabelledImage] = []
    for path in sorted((folder / "images" if (folder / "images").is_dir() else folder).glob("*.tif*")):
        try:
            image = tifffile.imread(path)
        except (OSError, tifffile.TiffFileError, ValueError) as error:
            raise TrainingDataError(f"cannot read {path} ({error}); expected a TIFF") from error
        if image.ndim not in (2, 3):
            raise TrainingDataError(f"{path} has shape {image.shape}; expected (H, W) or (Z, H, W)")
        found += [_bare(path.stem, folder.stem, plane) for plane in (image[None] if image.ndim == 2 else image)]
    if not found:
        raise TrainingDataError(f"{folder} holds no TIFF; expected images")
    return found


def _bare(name: str, source: str, plane: NDArray[Any]) -> LabelledImage:
    return LabelledImage(
        name=name,
        kind="",
        source=source,
        image=normalise_percentiles(plane).astype(np.float16),
        labels=np.zeros(plane.shape, np.uint16),
        flows=np.zeros((2, *plane.shape), np.int8),
        diameter_px=0.0,
    )


class TeacherPatches:
    """Patches of images with a teacher's outputs, in files that are read as they are needed.

    Parameters
    ----------
    images
        The images.
    teacher
        The teacher.
    config
        Size, number and scale of the patches, and what else is kept.
    folder
        Where they are kept; those of another teacher, other images or another configuration lie beside.
    progress
        Told the images done and in all.
    should_cancel
        Asked after every image; what is whole on disk is found again.

    Attributes
    ----------
    entries : list of PatchEntry
        One for each patch.

    Raises
    ------
    TrainingDataError
        If the teacher finds nuclei in no patch.
    CancelledError
        If `should_cancel` said yes.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        teacher: Network,
        config: DistilConfig,
        *,
        folder: Path | str,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        should_cancel: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config = config
        self.folder = make_folder(Path(folder) / _digest(images, teacher, config))
        self.entries: list[PatchEntry] = []
        self._places: list[tuple[int, int]] = []
        self._files: dict[tuple[int, str], NDArray[np.float16]] = {}
        run = _runner(teacher, features=config.features > 0)
        for chunk, first in enumerate(range(0, len(images), _CHUNK)):
            numbers = range(first, min(first + _CHUNK, len(images)))
            if not self._path(chunk, "json").exists():
                self._make(chunk, numbers, images, teacher, run, should_cancel)
            made = json.loads(self._path(chunk, "json").read_text(encoding="utf-8"))
            self._places += [(chunk, row) for row in range(len(made))]
            self.entries += [PatchEntry(**entry) for entry in made]
            progress(numbers[-1] + 1, len(images))
        if not self.entries:
            raise TrainingDataError(
                f"the teacher {teacher.name!r} finds nuclei in none of {len(images)} images (at least "
                f"{config.foreground:.1%} of a patch); give other images, a diameter, or another teacher"
            )

    def __len__(self) -> int:
        return len(self.entries)

    def patch(self, index: int) -> NDArray[np.float32]:
        """Return (8, p, p): image, flow y, flow x, logit, weight; flow y, flow x and inside of the labels."""
        chunk, row = self._places[index]
        return np.asarray(self._array(chunk, "npy")[row], np.float32)

    def features(self, index: int) -> NDArray[np.float32]:
        """Return (C, h, w): the teacher's coarsest features."""
        chunk, row = self._places[index]
        return np.asarray(self._array(chunk, "features.npy")[row], np.float32)

    def _array(self, chunk: int, kind: str) -> NDArray[np.float16]:
        if (chunk, kind) not in self._files:
            self._files[chunk, kind] = np.load(self._path(chunk, kind), mmap_mode="r", allow_pickle=False)
        return self._files[chunk, kind]

    def _path(self, chunk: int, kind: str) -> Path:
        return self.folder / f"{chunk:05d}.{kind}"

    def _make(
        self,
        chunk: int,
        numbers: Sequence[int],
        images: Sequence[LabelledImage],
        teacher: Network,
        run: Teacher,
        should_cancel: Callable[[], bool],
    ) -> None:
        patches, features, entries = [], [], []
        for number in numbers:
            if should_cancel():
                raise CancelledError(f"cancelled; {chunk * _CHUNK} images are done and kept in {self.folder}")
            item = images[number]
            for patch in _views(item, number, teacher, self.config):
                output, seen = run(patch[0])
                foreground = float((output[2] > 0)[patch[4] > 0].mean()) if patch[4].any() else 0.0
                if foreground < self.config.foreground:
                    continue
                patch[1:3], patch[3] = output[:2] / FLOW_SCALE, np.clip(output[2], -30, 30)
                patches.append(patch.astype(np.float16))
                entries.append(PatchEntry(number, item.source, item.kind, round(foreground, 4)).__dict__)
                if seen is not None:
                    features.append(seen.astype(np.float16))
        edge = self.config.training.crop_px
        _store(self._path(chunk, "npy"), np.stack(patches) if patches else np.zeros((0, _CHANNELS, edge, edge)))
        if features:
            _store(self._path(chunk, "features.npy"), np.stack(features))
        part = self._path(chunk, "json.part")  # last: it says that the others are whole
        part.write_text(json.dumps(entries), encoding="utf-8")
        part.replace(self._path(chunk, "json"))


def _views(item: LabelledImage, number: int, teacher: Network, config: DistilConfig) -> Iterator[NDArray[np.float32]]:
    """Patches of one image, turned and scaled about the diameter; a pure function of the seed and its number."""
    diameter = item.diameter_px or _found_diameter(item, teacher)
    if diameter <= 0:
        return
    for view in range(config.views):
        rng = np.random.default_rng((config.training.seed, number, view))
        scale = config.training.diameter_px / diameter * 2 ** rng.uniform(-config.scale_jitter, config.scale_jitter)
        image, target, outside_is_zero = warp(item, rng, scale, config.training.crop_px)
        patch = np.zeros((_CHANNELS, *image.shape), np.float32)
        patch[0] = image * target[3] if outside_is_zero else image
        patch[4], patch[5:8] = target[3], target[:3]
        yield patch


def _found_diameter(item: LabelledImage, teacher: Network) -> float:
    return float(segment(item.image.astype(np.float32), model=teacher).readout.diameter_px or 0.0)


def _runner(teacher: Network, *, features: bool) -> Teacher:
    if not features:
        return lambda image: (teacher.predict(image[None])[0], None)
    module, seen = teacher.module, []
    device = next(module.parameters()).device

    def run(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        planes = torch.from_numpy(np.ascontiguousarray(image[None])).to(device)
        handle = module.downsample.register_forward_hook(lambda _m, _i, out: seen.append(out[3]))
        try:
            with torch.inference_mode():
                y, _ = module(network_input(planes, second_channel=teacher.card.second_channel))
        finally:
            handle.remove()
        pooled = torch.nn.functional.avg_pool2d(seen.pop(), FEATURE_POOL)
        return y[0].float().cpu().numpy(), pooled[0].float().cpu().numpy()

    return run


def _digest(images: Sequence[LabelledImage], teacher: Network, config: DistilConfig) -> str:
    training = config.training
    facts: list[Any] = [
        teacher.sha256 or teacher.name,
        training.crop_px, training.diameter_px, training.seed, config.views, config.scale_jitter, config.foreground,
        config.features > 0, FLOW_UNIT,
        [(item.source, item.name, item.image.shape) for item in images],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _store(path: Path, array: NDArray[Any]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as handle:
        np.save(handle, array.astype(np.float16), allow_pickle=False)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)
