"""One run of a network for volumes: from the grey values of the first time point to the labels of the last."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ImageError
from napari_aprcnn.models.volume_inputs import InputScale, input_scale
from napari_aprcnn.segment.blocks import adopt
from napari_aprcnn.segment.scale import Scale
from napari_aprcnn.segment.sizes import drop_small
from napari_aprcnn.segment.speeds import speeds
from napari_aprcnn.segment.star_targets import require_volume
from napari_aprcnn.segment.stardist import require_stardist
from napari_aprcnn.segment.store import Store
from napari_aprcnn.segment.volume_masks import VolumeOutputs, resized, volume_labels
from napari_aprcnn.segment.volume_outputs import HeadOutputs, head_outputs
from napari_aprcnn.segment.volume_plan import (
    DENSE_PRR,
    SECONDS_PER_ROW,
    SECONDS_PER_VOXEL,
    TYPICAL_PRR,
    VolumePlan,
    margin_of,
    on_voxels,
    plan_volume,
    row_bytes,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.apr.tree import ParticleTree
    from napari_aprcnn.config import SegmentConfig
    from napari_aprcnn.models.volume_network import VolumeNetwork
    from napari_aprcnn.segment.diameter import DiameterEstimate
    from napari_aprcnn.segment.partials import Partials
    from napari_aprcnn.segment.plan import Mode
    from napari_aprcnn.segment.progress import Reporter
    from napari_aprcnn.segment.reader import Reader
    from napari_aprcnn.segment.source import MappedImage

__all__ = ["VolumePlan", "VolumeRun", "on_voxels", "pace_of", "remember_pace"]

SCALE_PLANES = 24
# Seconds that runs of a model took, over those that were expected; by model and device.
_PACE: dict[tuple[str, str], float] = {}
_ENOUGH_VOXELS = 1 << 15


def remember_pace(model: str, device: str, *, took: float, expected: float, voxels: int) -> None:
    """Keep how a run's time compared with the table's, for the next estimate in this process."""
    if voxels >= _ENOUGH_VOXELS and expected > 0:
        _PACE[model, device] = took / expected


def pace_of(model: str, device: str) -> float:
    """Return what expected seconds are to be multiplied with; before a first run the calibration's, or 1."""
    if (model, device) in _PACE:
        return _PACE[model, device]
    return speeds().volume_pace.get(model, 1.0) if _on_cpu(device) else 1.0


def _on_cpu(device: str) -> bool:
    import torch

    return device == "cpu" or (device == "auto" and not torch.cuda.is_available())


@dataclass
class VolumeRun:
    """What one run works with; attributes as those of `Run`.

    Attributes
    ----------
    tree, outputs
        Particles and kept outputs of a single time point that ran in one block; else ``None``.
    """

    source: MappedImage
    reader: Reader
    config: SegmentConfig
    network: VolumeNetwork
    reporter: Reporter
    partials: Partials
    threads: int
    budget: int
    n_objects: int = 0
    tile_px: int = 0
    mode: Mode = "volume"
    diameter: DiameterEstimate | None = None
    tree: ParticleTree | None = None
    outputs: VolumeOutputs | HeadOutputs | None = None
    _voxels: int = 0
    _particles: int = 0

    @property
    def scale(self) -> Scale:
        """Rescaling before the network."""
        return Scale(self.config.volume.zoom, (1.0, 1.0, 1.0))

    @property
    def prr(self) -> float:
        """Voxels a particle, of all blocks; 0 without particles."""
        return self._voxels / self._particles if self._particles else 0.0

    def execute(self) -> tuple[Store, VolumePlan]:
        """Do everything.

        Raises
        ------
        NotEnoughMemoryError, CancelledError
            As `plan_volume`, and on request.
        """
        net, zoom = self.network.module.config, self.config.volume.zoom
        if net.head == "stardist":
            require_stardist()  # not after minutes of network
        plan = plan_volume(
            self.source.shape,
            n_times=self.source.n_times,
            margin=margin_of(net, zoom),
            budget=self.budget,
            per_row=row_bytes(net, self.config.volume, self.network.precision),
            prr=1.0 if on_voxels(net, self.config.volume) else DENSE_PRR,
            known_prr=None if on_voxels(net, self.config.volume) else TYPICAL_PRR,
            zoom=zoom,
            head=net.head,
            keep=self.config.keep_flows,
            moved=self.config.volume.grow_vox != 0,
        )
        self.tile_px = plan.tile_px
        self.reporter.plan(plan.seconds)
        keep = self.config.keep_flows and len(plan.blocks) == 1
        components = 3 if net.head == "flows" else 0
        store = Store(self.source.n_times, self.source.shape, components=components, keep_flows=keep)
        for time in range(self.source.n_times):
            self._volume(time, plan, store)
            if self.source.n_times > 1:
                self.partials.found(time, self.source.whole, store.labels[time], final=True)
        self._remember(plan)
        return store, plan

    def _remember(self, plan: VolumePlan) -> None:
        voxels = sum(math.prod(block.outer_shape) for block in plan.blocks) * self.source.n_times
        work = voxels * self.config.volume.zoom**3 * (SECONDS_PER_VOXEL + SECONDS_PER_ROW / (self.prr or 1.0))
        took = sum(self.reporter.seconds.get(name, 0.0) for name in ("network", "masks"))
        remember_pace(self.config.model, self.config.device, took=took, expected=work, voxels=voxels)

    def _volume(self, time: int, plan: VolumePlan, store: Store) -> None:
        scale = None if len(plan.blocks) == 1 else self._scale(time)
        n_objects = 0
        for number, block in enumerate(plan.blocks):
            with self.reporter.stage("read"):
                image = self.reader.read(time, block.outer)
                self.reader.release()
            labels, flows, probability = self._block(image, scale, plan)
            del image
            if len(plan.blocks) == 1:
                store.put_labels(time, self.source.whole, labels)
                store.put_outputs(time, self.source.whole, flows, probability)
            else:
                target = store.room_for(n_objects + int(labels.max(initial=0)))[time]
                del flows, probability  # adopting takes memory, too, and so does the next block
                n_objects = adopt(target, labels, block, n_objects=n_objects)
                self.partials.found(time, block.core, target[block.core], final=False)
                del labels
            done = time * len(plan.blocks) + number + 1
            self.reporter.advance("network", 0.0, done=done, total=plan.n_tiles, what=f"block {done} of {plan.n_tiles}")
        with self.reporter.stage("masks"):
            self.n_objects += drop_small(store.labels[time], share=self.config.smallest_share_3d)

    def _scale(self, time: int) -> InputScale:
        """Grey values of a time point, from planes at regular distances."""
        n_z = self.source.shape[0]
        planes = np.unique(np.linspace(0, n_z - 1, min(n_z, SCALE_PLANES)).astype(int))
        with self.reporter.stage("normalise"):
            parts = [self.reader.read(time, (slice(z, z + 1), *self.source.whole[1:])) for z in planes.tolist()]
            return input_scale(np.concatenate(parts))

    def _block(
        self, image: NDArray[Any], scale: InputScale | None, plan: VolumePlan
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.float32]]:
        options, shape = self.config.volume, image.shape
        if options.zoom != 1.0:
            image = resized(image, [max(1, round(n * options.zoom)) for n in shape])
        seen = image.shape
        padded = self._padded(image)
        self._require_volume(padded.shape, shape)
        with self.reporter.stage("network"):
            out = self.network.predict(
                padded,
                scale=scale,
                relative_error=options.relative_error,
                particle_stages=options.particle_stages,
                check=self.reporter.check,
            )
        if out.tree is not None:
            self._voxels += out.tree.voxels
            self._particles += len(out.tree)
        share = plan.seconds / plan.n_tiles
        self.reporter.advance("network", 0.7 * share, done=0, total=plan.n_tiles, what="network is done, masks follow")
        if plan.n_tiles == 1 and padded is image:
            self.tree = out.tree
        with self.reporter.stage("masks"):
            if self.network.module.config.head == "flows":
                dense = out.dense[:, :, : seen[2]]
                del out  # masks take as much memory again
                flows = np.ascontiguousarray(np.moveaxis(dense[..., :3], -1, 0))
                probability = np.ascontiguousarray(dense[..., 3])
                del dense
                found = self._from_flows(flows, probability, shape, plan)
            else:
                outputs, probability = head_outputs(
                    out,
                    self.network.module.config,
                    self.network.card,
                    padded=padded.shape,
                    seen=seen,
                    shape=shape,
                    outline=options.outline,
                )
                del out
                found = self._from_head(outputs, probability, plan)
        self.reporter.advance("masks", 0.3 * share, done=0, total=plan.n_tiles, what="masks are done")
        return found

    def _padded(self, image: NDArray[Any]) -> NDArray[Any]:
        """Give a tiny image as many planes of x as its particles need levels for every pooling; others as they are."""
        net = self.network.module.config
        least = 1 if on_voxels(net, self.config.volume) else 2**net.depth + 1
        if max(image.shape) >= least:
            return image
        return np.pad(image, ((0, 0), (0, 0), (0, least - image.shape[2])), mode="edge")

    def _require_volume(self, seen: tuple[int, ...], shape: tuple[int, ...]) -> None:
        """Refuse what a StarDist head cannot make objects of, by the shape of the image and before the network runs."""
        if self.network.module.config.head != "stardist" or min(seen) > 1:
            return
        require_volume(shape)
        raise ImageError(
            f"got zoom {self.config.volume.zoom:g} for an image of shape {shape}: the network would see a plane of it; "
            "take a zoom at which two voxels are left along each axis"
        )

    def _from_flows(
        self, flows: NDArray[np.float32], probability: NDArray[np.float32], shape: tuple[int, ...], plan: VolumePlan
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.float32]]:
        stop = self.reporter.should_cancel
        labels = volume_labels(flows, probability, shape, self.config, threads=self.threads, should_cancel=stop)
        if plan.n_tiles == 1 and self.config.keep_flows:
            z, y, x = shape
            self.outputs = VolumeOutputs(flows, probability, (z, y, x))
        if self.config.volume.zoom != 1.0 and self.config.keep_flows and len(plan.blocks) == 1:
            large = np.empty((len(flows), *shape), np.float32)
            for one, flow in zip(large, flows, strict=True):
                one[...] = resized(flow, shape)
            flows, probability = large, resized(probability, shape)
        return labels, flows, probability

    def _from_head(
        self, outputs: HeadOutputs, probability: NDArray[np.float32], plan: VolumePlan
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.float32]]:
        """Labels of the other heads, which have no flows."""
        labels = outputs.labels(self.config, should_cancel=self.reporter.should_cancel)
        if plan.n_tiles == 1 and self.config.keep_flows:
            self.outputs = outputs
        return labels, np.zeros((0, *outputs.shape), np.float32), probability
