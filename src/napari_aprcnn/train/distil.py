"""Distillation: a small network learns what a large one says (FasterCellpose thesis, section 3.4)."""

from __future__ import annotations

import copy
import csv
import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_aprcnn.errors import ConfigError, TrainingDataError
from napari_aprcnn.models.devices import resolve_device
from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.models.inputs import network_input
from napari_aprcnn.models.network import Network
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.train.augment import degrade
from napari_aprcnn.train.checkpoint import CHECKPOINT, facts_of, loaded, undamaged
from napari_aprcnn.train.fit import TrainStep, Watch, fit
from napari_aprcnn.train.losses import flow_loss
from napari_aprcnn.train.teacher import FEATURE_POOL, TeacherPatches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.models.volume_network import VolumeNetwork
    from napari_aprcnn.train.distil_settings import DistilConfig

__all__ = ["FeatureObjective", "PatchSampler", "distil_on", "foreground_iou", "split", "teacher_for"]

VALIDATION = "validation.csv"
BEST = "best.pt"
PARTED = 2  # planes beside those that are looked at, of a single file
_log = logging.getLogger(__name__)
_REMEDY = f"remove it and {CHECKPOINT} beside it to train afresh"


class PatchSampler:
    """Batches of patches with the teacher's outputs as targets, turned by 90 degrees and mirrored.

    Parameters
    ----------
    patches
        All of them.
    chosen
        Numbers of those that are drawn.
    config
        What the student learns from.
    """

    def __init__(self, patches: TeacherPatches, chosen: Sequence[int], config: DistilConfig) -> None:
        self.patches, self.chosen, self.config = patches, list(chosen), config

    def batch(self, step: int, size: int) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
        """Return the batch of a step.

        Returns
        -------
        images : (size, p, p) float32
        target
            (size, 4, p, p) flows in unit vectors, probability, weight; and (size, C, h, w) features, or ``None``.
        """
        seed = self.config.training.seed
        parts = [self._one(np.random.default_rng((seed, step, index))) for index in range(size)]
        images, targets, features = zip(*parts, strict=True)
        seen = torch.from_numpy(np.stack(features)) if self.config.features > 0 else None
        return torch.from_numpy(np.stack(images)), (torch.from_numpy(np.stack(targets)), seen)

    def _one(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32], Any]:
        index = self.chosen[int(rng.integers(len(self.chosen)))]
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        patch = turned(self.patches.patch(index), turns, mirrored=mirrored)
        image = patch[0]
        if self.config.consistency:
            image = degrade(image, rng)
            if not patch[0][patch[4] == 0].any():
                image = image * patch[4]  # a border that was filled with zeros stays zero
        target = target_of(patch, self.config.hard)
        features = None
        if self.config.features > 0:
            features = _turned_plane(self.patches.features(index), turns, mirrored=mirrored)
        return np.ascontiguousarray(image, np.float32), target, features


def target_of(patch: NDArray[np.float32], hard: float) -> NDArray[np.float32]:
    """Flows, probability and weight of a patch.

    Mixing the targets has the gradient of mixing the losses, for squared error and cross-entropy alike.
    """
    soft = np.concatenate([patch[1:3], 1 / (1 + np.exp(-patch[3:4]))])
    labels = patch[5:8]
    mixed = soft if hard == 0 or not labels[2].any() else (1 - hard) * soft + hard * labels
    return np.ascontiguousarray(np.concatenate([mixed, patch[4:5]]), np.float32)


def turned(patch: NDArray[np.float32], turns: int, *, mirrored: bool) -> NDArray[np.float32]:
    """A patch turned by quarter turns and mirrored along x; its two flows turn with it."""
    out = _turned_plane(patch, turns, mirrored=mirrored).copy()
    for y in (1, 5):
        flow_y, flow_x = out[y].copy(), out[y + 1].copy()
        for _ in range(turns % 4):  # numpy's rot90 brings (y, x) to (-x, y)
            flow_y, flow_x = -flow_x, flow_y
        out[y], out[y + 1] = flow_y, -flow_x if mirrored else flow_x
    return out


def _turned_plane(planes: NDArray[np.float32], turns: int, *, mirrored: bool) -> NDArray[np.float32]:
    out = np.rot90(planes, turns, axes=(-2, -1))
    return np.ascontiguousarray(out[..., ::-1] if mirrored else out)


class FeatureObjective(nn.Module):
    """Responses, and optionally the coarsest features.

    Parameters
    ----------
    weight
        Of the features.
    student, teacher
        Channels of the coarsest scale.
    """

    def __init__(self, weight: float, student: int, teacher: int) -> None:
        super().__init__()
        self.weight = weight
        self.adapter = nn.Conv2d(student, teacher, 1) if weight > 0 else None

    def forward(
        self, module: CellposeFamily, inputs: Tensor, target: tuple[Tensor, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of flows and features, and that of the probability."""
        responses, features = target
        if self.adapter is None or features is None:
            return flow_loss(module(inputs)[0], responses)
        seen: list[Tensor] = []
        handle = module.downsample.register_forward_hook(lambda _m, _i, out: seen.append(out[3]))
        try:
            output = module(inputs)[0]
        finally:
            handle.remove()
        flow, probability = flow_loss(output, responses)
        own = self.adapter(nn.functional.avg_pool2d(seen[0], FEATURE_POOL)).float()
        spread = features.var() + 1e-6
        return flow + self.weight * (own - features).square().mean() / spread, probability


def split(patches: TeacherPatches, *, parts: int, part: int, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the patches to train on and to look at: every `parts`-th image, none in both.

    Planes of one file, and images that an index has in one group, count as one image. Of a single file the planes are
    cut into `parts` runs; one is looked at, and the two planes beside it are left out, as they are too much like it.

    Raises
    ------
    TrainingDataError
        If there are too few images.
    """
    groups = sorted({entry.group for entry in patches.entries})
    if len(groups) == 1:
        return _split_planes(patches, parts=parts, part=part)
    order = np.random.default_rng(seed).permutation(len(groups))
    held = {groups[int(i)] for i in order[part::parts]}
    train = [n for n, entry in enumerate(patches.entries) if entry.group not in held]
    looked_at = [n for n, entry in enumerate(patches.entries) if entry.group in held]
    if not train or not looked_at:
        raise TrainingDataError(
            f"got {len(groups)} images with nuclei, planes of one file counted as one (they are too alike to learn from"
            f" some and look at others); expected at least {max(2, part + 1)}: give more files, or fewer folds"
        )
    return train, looked_at


def _split_planes(patches: TeacherPatches, *, parts: int, part: int) -> tuple[list[int], list[int]]:
    """Numbers of the patches of one file to train on and to look at: runs of neighbouring planes."""
    planes = sorted({entry.image for entry in patches.entries})
    run = np.array_split(planes, parts)[part]
    train, looked_at = [], []
    if len(run):
        low, high = int(run[0]), int(run[-1])
        looked_at = [n for n, entry in enumerate(patches.entries) if low <= entry.image <= high]
        train = [n for n, entry in enumerate(patches.entries) if not low - PARTED <= entry.image <= high + PARTED]
    if not train or not looked_at:
        raise TrainingDataError(
            f"got one file with nuclei in {len(planes)} planes; expected more of them, to learn from some and look at "
            f"others, {PARTED} planes apart: give more files or planes, or fewer folds"
        )
    _log.info("one file: planes %d to %d are looked at, %d beside them left out", low, high, PARTED)
    return train, looked_at


def foreground_iou(
    module: CellposeFamily, patches: TeacherPatches, chosen: Sequence[int], config: DistilConfig, device: str = "cpu"
) -> float:
    """IoU of what student and teacher take for nuclei, at a probability of 0.5, pooled over patches (thesis 3.4)."""
    both = either = 0
    on = resolve_device(device).torch_device
    module = copy.deepcopy(module).to(on)
    for start in range(0, len(chosen), config.training.batch_size):
        part = np.stack([patches.patch(n) for n in chosen[start : start + config.training.batch_size]])
        planes = torch.from_numpy(np.ascontiguousarray(part[:, 0])).to(on)
        with torch.inference_mode():
            y, _ = module(network_input(planes, second_channel=config.training.second_channel))
        inside, teacher, valid = y[:, 2].cpu().numpy() > 0, part[:, 3] > 0, part[:, 4] > 0
        both += int((inside & teacher & valid).sum())
        either += int(((inside | teacher) & valid).sum())
    return both / either if either else 1.0


class _Judge:
    """Keeps the best network and says when to stop; knows what an interrupted training had seen.

    Raises `TrainingDataError` if the record of that is damaged.
    """

    def __init__(self, folder: Path, config: DistilConfig, iou: Callable[[CellposeFamily], float]) -> None:
        self.folder, self.config, self.iou = folder, config, iou
        self.seen: list[tuple[int, float]] = []
        path = folder / VALIDATION
        if path.exists() and (folder / CHECKPOINT).exists():  # without one the training starts afresh
            with undamaged(path, _REMEDY), path.open(newline="", encoding="utf-8") as handle:
                self.seen = [(int(row["step"]), float(row["iou"])) for row in csv.DictReader(handle)]

    def look(self, step: int, module: CellposeFamily) -> bool:
        self.seen = [item for item in self.seen if item[0] < step]  # a resumed training looks again
        value = self.iou(module)
        if value >= max((iou for _, iou in self.seen), default=0.0):
            torch.save(module.state_dict(), self.folder / (BEST + ".part"))
            (self.folder / (BEST + ".part")).replace(self.folder / BEST)
        self.seen.append((step, value))
        part = self.folder / (VALIDATION + ".part")
        with part.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["step", "iou"])
            # Every digit, or a resumed training would judge otherwise.
            writer.writerows((step, repr(iou)) for step, iou in self.seen)
        part.replace(self.folder / VALIDATION)
        return self.ends()

    def ends(self) -> bool:
        """Both rules of the thesis: a fall, and a standstill."""
        values = [iou for _, iou in self.seen]
        if values[-1] < max(values) - self.config.max_drop:
            return True
        patience = self.config.patience
        last = values[-(patience + 1) :]
        return 0 < patience < len(values) and max(last) - min(last) < self.config.standstill

    @property
    def best(self) -> float:
        return max((iou for _, iou in self.seen), default=0.0)


def distil_on(
    patches: TeacherPatches,
    train: Sequence[int],
    looked_at: Sequence[int],
    *,
    config: DistilConfig,
    teacher_width: int,
    run_dir: Path | str,
    initial: dict[str, Tensor] | None = None,
    device: str = "cpu",
    workers: int = 0,
    progress: Callable[[TrainStep], None] = lambda _: None,
    on_look: Callable[[int, float], None] = lambda _step, _iou: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> tuple[CellposeFamily, float]:
    """Train a student on patches that a teacher has seen, or go on with a training that was interrupted.

    Parameters
    ----------
    patches
        With the teacher's outputs.
    train, looked_at
        Numbers of those to learn from, and of those to look at (`split`).
    config
        The distillation.
    teacher_width
        Channels of the teacher's coarsest scale.
    run_dir
        Folder of the checkpoint and the logs.
    initial
        State to start from instead of random weights.
    device, workers, progress, should_cancel
        As `fit` takes them.
    on_look
        Told the steps done and the IoU.

    Returns
    -------
    module : CellposeFamily
        The averaged weights with the best IoU.
    iou : float
        Theirs.

    Raises
    ------
    TrainingDataError
        If the folder holds the checkpoint of another training, teacher or start, or something damaged.
    ConfigError
        If the student is no network of the family.
    CancelledError
        If `should_cancel` said yes; a checkpoint was written first.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    training = config.training
    width = CellposeFamily(training.architecture).config.widths[3]
    judge = _Judge(run_dir, config, lambda module: foreground_iou(module, patches, looked_at, config, device))

    def look(step: int, module: CellposeFamily) -> bool:
        ends = judge.look(step, module)
        on_look(step, judge.seen[-1][1])
        return ends

    every = config.validate_every or math.ceil(len(train) / training.batch_size)
    torch.manual_seed(training.seed)
    module = fit(
        PatchSampler(patches, train, config),
        config=training,
        run_dir=run_dir,
        initial=initial,
        objective=FeatureObjective(config.features, width, teacher_width),
        watch=Watch(every, look),
        key={
            **facts_of(config, without="training"),
            **patches.facts,
            "patches looked at": hashlib.sha256(repr((list(train), list(looked_at))).encode()).hexdigest()[:16],
        },
        device=device,
        workers=workers,
        progress=progress,
        should_cancel=should_cancel,
    )
    best = run_dir / BEST
    if best.exists():
        state = loaded(best, _REMEDY)
        with undamaged(best, _REMEDY):
            module.load_state_dict(state)
    return module, judge.best


def teacher_for(
    teacher: Network | VolumeNetwork | str | Path,
    config: DistilConfig,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> Network:
    """Load a teacher, and refuse one whose outputs the student does not have.

    Raises
    ------
    ConfigError
        If it is a network for volumes.
    """
    network = load_model(teacher, device=device, threads=threads) if isinstance(teacher, str | Path) else teacher
    if not isinstance(network, Network):
        raise ConfigError(
            f"the teacher {network.name!r} is a network for volumes, the student "
            f"{config.training.architecture!r} one for planes: their outputs differ; give one of the Cellpose family"
        )
    return network
