"""What a teacher says of patches of images: made once, kept on disk, shared by every student.

FasterCellpose thesis, section 3.4: offline, response-based distillation. Nobody has to label anything.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from napari_aprcnn.errors import CancelledError, TrainingDataError
from napari_aprcnn.io.atomic import beside, make_folder, write_text
from napari_aprcnn.models.inputs import network_input
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.train.checkpoint import undamaged, weights_digest
from napari_aprcnn.train.data import FLOW_UNIT, LabelledImage
from napari_aprcnn.train.losses import FLOW_SCALE
from napari_aprcnn.train.sampling import warp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.config import TrainConfig
    from napari_aprcnn.models.network import Network
    from napari_aprcnn.train.distil_settings import DistilConfig

__all__ = ["PatchEntry", "TeacherPatches"]

_log = logging.getLogger(__name__)

_CHUNK = 16  # images of one file
_EDGE_STEP = 16  # the coarsest scale is an eighth of the patch, and features are pooled by 2
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
    group
        Number of the first image of the same file: planes of a volume are alike, and never parted.
    """

    image: int
    source: str
    kind: str
    foreground: float
    group: int


class TeacherPatches:
    """Patches of images with a teacher's outputs, in files that are read as they are needed.

    The student's patches have nuclei of the student's diameter. A teacher of another diameter is shown the same piece
    of the image at its own, and what it says is interpolated to the student's pixels; flows keep their lengths, being
    directions.

    Parameters
    ----------
    images
        The images.
    teacher
        The teacher.
    config
        Size, number and scale of the patches, and what else is kept.
    folder
        Where they are kept; those of another teacher, other images or labels, or another configuration lie beside.
        Files that are damaged are made again.
    progress
        Told the images done and in all.
    should_cancel
        Asked after every image; what is whole on disk is found again.

    Attributes
    ----------
    entries : list of PatchEntry
        One for each patch.
    facts : dict of str to str
        What they follow from: digests of the teacher's weights and of the images and labels, and the settings.

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
        self.facts = _facts(images, teacher, config)
        name = hashlib.sha256(json.dumps(self.facts).encode()).hexdigest()[:16]
        self.folder = make_folder(Path(folder) / name)
        self.entries: list[PatchEntry] = []
        self._places: list[tuple[int, int]] = []
        self._files: dict[tuple[int, str], NDArray[np.float16]] = {}
        run = _runner(teacher, features=config.features > 0)
        first_of: dict[str, int] = {}
        groups = [first_of.setdefault(item.origin or f"{n}", n) for n, item in enumerate(images)]
        for chunk, first in enumerate(range(0, len(images), _CHUNK)):
            numbers = range(first, min(first + _CHUNK, len(images)))
            found = self._found(chunk, numbers)
            if found is None:
                found = self._make(chunk, numbers, images, teacher, run, should_cancel)
            self._places += [(chunk, row) for row in range(len(found))]
            self.entries += [PatchEntry(n, images[n].source, images[n].kind, share, groups[n]) for n, share in found]
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
            path = self._path(chunk, kind)
            with undamaged(path, "give the command again: it is made again"):
                self._files[chunk, kind] = np.load(path, mmap_mode="r", allow_pickle=False)
        return self._files[chunk, kind]

    def _found(self, chunk: int, numbers: Sequence[int]) -> list[tuple[int, float]] | None:
        """Images and shares of foreground of the patches of a chunk on disk; ``None`` if it is missing or damaged."""
        path = self._path(chunk, "json")
        if not path.exists():
            return None
        try:
            with undamaged(path, "it is made again"):
                found = [(int(n), float(share)) for n, share in json.loads(path.read_text(encoding="utf-8"))]
                if not all(n in numbers for n, _ in found):
                    raise ValueError(f"it names images beside {numbers[0]} to {numbers[-1]}")
            edge = self.config.training.crop_px
            self._check(chunk, "npy", (len(found), _CHANNELS, edge, edge))
            if found and self.config.features > 0:
                self._check(chunk, "features.npy", (len(found), None, edge // _EDGE_STEP, edge // _EDGE_STEP))
        except TrainingDataError as error:
            _log.warning("%s", error)
            return None
        return found

    def _check(self, chunk: int, kind: str, expected: tuple[int | None, ...]) -> None:
        path = self._path(chunk, kind)
        with undamaged(path, "it is made again"):
            array = np.load(path, mmap_mode="r" if expected[0] else None, allow_pickle=False)
            same = [n in (None, have) for n, have in zip(expected, array.shape, strict=True)]
            if array.dtype != np.float16 or not all(same):
                raise ValueError(f"got {array.dtype} of shape {array.shape}, expected float16 of {expected}")

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
    ) -> list[tuple[int, float]]:
        patches, features, entries = [], [], []
        for number in numbers:
            if should_cancel():
                raise CancelledError(f"cancelled; {chunk * _CHUNK} images are done and kept in {self.folder}")
            item = images[number]
            for patch, shown in _views(item, number, teacher, self.config):
                output, seen = run(shown)
                output = _resampled(output, patch.shape[-1])
                foreground = float((output[2] > 0)[patch[4] > 0].mean()) if patch[4].any() else 0.0
                if foreground < self.config.foreground:
                    continue
                patch[1:3], patch[3] = output[:2] / FLOW_SCALE, np.clip(output[2], -30, 30)
                patches.append(patch.astype(np.float16))
                entries.append((number, round(foreground, 4)))
                if seen is not None:
                    features.append(_resampled(seen, patch.shape[-1] // _EDGE_STEP).astype(np.float16))
        edge = self.config.training.crop_px
        _store(self._path(chunk, "npy"), np.stack(patches) if patches else np.zeros((0, _CHANNELS, edge, edge)))
        if features:
            _store(self._path(chunk, "features.npy"), np.stack(features))
        # Last: it says that the others are whole.
        write_text(json.dumps(entries), self._path(chunk, "json"), overwrite=True)
        return entries


def _views(
    item: LabelledImage, number: int, teacher: Network, config: DistilConfig
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Patches of one image, turned and scaled about the diameter, and each as the teacher sees it, at its own scale.

    A pure function of the seed and the image's number.
    """
    diameter = item.diameter_px or _found_diameter(item, teacher)
    if diameter <= 0:
        return
    edge, shown_edge = config.training.crop_px, _teacher_edge(teacher, config.training)
    for view in range(config.views):
        rng = np.random.default_rng((config.training.seed, number, view))
        scale = config.training.diameter_px / diameter * 2 ** rng.uniform(-config.scale_jitter, config.scale_jitter)
        again = copy.deepcopy(rng)
        image, target, outside_is_zero = warp(item, rng, scale, edge)
        patch = np.zeros((_CHANNELS, *image.shape), np.float32)
        patch[0] = image * target[3] if outside_is_zero else image
        patch[4], patch[5:8] = target[3], target[:3]
        if shown_edge == edge:
            yield patch, patch[0]
            continue
        # The same numbers are drawn, so the same piece of the image is cut.
        image, target, _ = warp(item, again, scale * shown_edge / edge, shown_edge)
        yield patch, image * target[3] if outside_is_zero else image


def _teacher_edge(teacher: Network, training: TrainConfig) -> int:
    """Edge of a patch at the teacher's diameter, to a multiple of 16."""
    ratio = teacher.card.diameter_px / training.diameter_px
    return max(_EDGE_STEP, round(training.crop_px * ratio / _EDGE_STEP) * _EDGE_STEP)


def _resampled(planes: NDArray[np.float32], edge: int) -> NDArray[np.float32]:
    """Bring (C, h, h) planes to (C, edge, edge); values stay what they are."""
    if planes.shape[-1] == edge:
        return planes
    out = F.interpolate(
        torch.from_numpy(planes)[None], (edge, edge), mode="bilinear", align_corners=False,
        antialias=planes.shape[-1] > edge,
    )  # fmt: skip
    return np.asarray(out[0].numpy(), np.float32)


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


def _facts(images: Sequence[LabelledImage], teacher: Network, config: DistilConfig) -> dict[str, str]:
    training, card = config.training, teacher.card
    weights = f"{weights_digest(teacher.module.state_dict())} {teacher.precision}"
    return {
        "teacher": f"{weights} {card.diameter_px:g} px {card.second_channel} {teacher.module.config.style}",
        "images": _content(images),
        "patches": (
            f"{training.crop_px} px, diameter {training.diameter_px!r}, seed {training.seed}, {config.views} views, "
            f"jitter {config.scale_jitter!r}, foreground {config.foreground!r}, features {config.features > 0}, "
            f"flows in {FLOW_UNIT}"
        ),
    }


def _content(images: Sequence[LabelledImage]) -> str:
    """Digest of pixels and labels, of which the flows follow."""
    digest = hashlib.sha256()
    for item in images:
        digest.update(f"{item.image.shape} {item.image.dtype} {item.labels.dtype} {item.diameter_px!r};".encode())
        digest.update(np.ascontiguousarray(item.image).data)
        digest.update(np.ascontiguousarray(item.labels).data)
    return digest.hexdigest()[:16]


def _store(path: Path, array: NDArray[Any]) -> None:
    with beside(path, overwrite=True) as part, part.open("wb") as handle:
        np.save(handle, array.astype(np.float16), allow_pickle=False)
        handle.flush()
        os.fsync(handle.fileno())
