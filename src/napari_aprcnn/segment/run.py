"""One run: from the percentiles of the first time point to the labels of the last."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_aprcnn.config import FlowConfig
from napari_aprcnn.segment import flows as flow_masks
from napari_aprcnn.segment.blocks import adopt
from napari_aprcnn.segment.diameter import DiameterEstimate, View, estimate_diameter, pick_windows, window
from napari_aprcnn.segment.normalise import Intensity, measure_intensity
from napari_aprcnn.segment.plan import BATCH_PX, Mode, Plan, Task, make_plan, remember_speed
from napari_aprcnn.segment.planes import predict_plane, predict_volume
from napari_aprcnn.segment.scale import Scale, scale_for
from napari_aprcnn.segment.sizes import drop_small
from napari_aprcnn.segment.stitch import Stitcher
from napari_aprcnn.segment.store import Store
from napari_aprcnn.segment.tiles import MIRRORS, Tiler

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_aprcnn.config import SegmentConfig
    from napari_aprcnn.segment.partials import Partials
    from napari_aprcnn.segment.progress import Reporter
    from napari_aprcnn.segment.reader import Reader
    from napari_aprcnn.segment.source import MappedImage, Region
    from napari_aprcnn.segment.tiles import NetworkLike

__all__ = ["Run", "torch_threads"]

VIEW_EDGE = 400  # image pixels of the windows that the first pass looks at, in planes larger than one of them
SMALLEST_VOX = FlowConfig().min_size_vox  # the usual limit, and what is below it, gives way to small nuclei
ABSENT = -10.0  # logit where the image is constant: surely no nucleus


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Set torch's threads, which are the whole process's, and put them back."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Run:
    """What one run works with.

    Attributes
    ----------
    source, reader
        The image.
    config, mode
        Parameters, and the dimensionality they come to.
    network, architecture
        The network and the name that its costs go by.
    reporter, partials
        To the caller.
    threads
        Threads of the kernels.
    budget
        Bytes that the run may add.
    n_objects, diameter, scale, tile_px, prr
        What it found; edge of the tiles that it ended with; voxels a particle, of which there are none here.
    """

    source: MappedImage
    reader: Reader
    config: SegmentConfig
    mode: Mode
    network: NetworkLike
    architecture: str
    reporter: Reporter
    partials: Partials
    threads: int
    budget: int
    diameter: DiameterEstimate | None = None
    scale: Scale = field(default_factory=lambda: Scale(1.0, (1.0, 1.0, 1.0)))
    n_objects: int = 0
    tile_px: int = 0
    prr: float = 0.0
    _intensities: dict[int, Intensity] = field(default_factory=dict)
    _tiles_done: int = 0
    _pixels_done: int = 0

    @property
    def trained_px(self) -> float:
        """Diameter that the network was trained at."""
        return float(self.network.card.diameter_px)

    def execute(self) -> tuple[Store, Plan]:
        """Do everything."""
        self._check_values()
        given = self.config.diameter_px
        ratio = scale_for(None, self.trained_px, self.config.spacing_um).ratio
        if given is None:
            self.diameter = self._estimate(ratio)
            given = self.diameter.diameter_px
        self.scale = scale_for(given, self.trained_px, self.config.spacing_um)
        diameter = given if given is not None else self.trained_px
        on_gpu = self.network.device.type != "cpu"
        task = Task(
            self.mode, self.source.n_times, self.source.shape, self.scale, diameter, self.architecture, on_gpu=on_gpu
        )
        plan = make_plan(task, self.config.tiles, budget=self.budget, keep_flows=self.config.keep_flows)
        self.reporter.plan(plan.seconds)
        tiler = self._tiler(plan.tile_px, plan.batch_px)
        tiler.on_tile, tiler.augment = partial(self._on_tile, plan), self.config.tiles.augment
        store = Store(
            self.source.n_times,
            self.source.shape,
            components=3 if self.mode == "planes" else 2,
            keep_flows=plan.keep_flows,
        )
        for time in range(self.source.n_times):
            if self._intensity(time).flat:
                self._put_nothing(time, store)
            elif self.mode == "planes":
                self._volume(time, plan, tiler, store)
            else:
                self._planes(time, plan, tiler, store)
            self._intensities.pop(time)
            if self.source.n_times > 1:
                self.partials.found(time, self.source.whole, store.labels[time], final=True)
        passes = 1 + len(MIRRORS) if self.config.tiles.augment else 1
        remember_speed(self.architecture, self.reporter.seconds.get("network", 0.0), passes * self._pixels_done)
        self.tile_px = tiler.tile_px
        return store, plan

    def _check_values(self) -> None:
        """Look for NaN in arrays in memory before anything is computed; files are checked as they are read."""
        if type(self.source.data) is np.ndarray and self.source.dtype.kind == "f":
            with self.reporter.stage("read"):
                for time in range(self.source.n_times):
                    self.source.read(time, self.source.whole)

    def _tiler(self, tile_px: int, batch_px: int, network: NetworkLike | None = None) -> Tiler:
        tiles = self.config.tiles
        return Tiler(
            network or self.network,
            tile_px,
            tiles.overlap,
            tiles.border_px,
            batch_px,
            lambda _pixels, _tiles: None,
            self.threads,
            self.reporter.check,
        )

    def _on_tile(self, plan: Plan, pixels: int, tiles: int) -> None:
        self._tiles_done += tiles
        self._pixels_done += pixels
        done, total = min(self._tiles_done, plan.n_tiles), plan.n_tiles
        work = (plan.seconds - plan.masks_seconds) * pixels / max(plan.network_px, 1)
        self.reporter.advance("network", work, done=done, total=total, what=f"tile {done} of {total}")

    def _intensity(self, time: int) -> Intensity:
        if time not in self._intensities:
            spacing = self.config.spacing_um
            anisotropy = 1.0 if spacing is None else spacing[0] / (spacing[1] * spacing[2]) ** 0.5
            with self.reporter.stage("normalise"):
                self._intensities[time] = measure_intensity(
                    partial(self._read, time), self.source.shape, self.config.normalise, anisotropy=anisotropy
                )
        return self._intensities[time]

    def _read(self, time: int, region: Region) -> NDArray[Any]:
        with self.reporter.stage("read"):
            return self.reader.read(time, region)

    # --- the first pass ------------------------------------------------------------------------------------------

    def _estimate(self, ratio: tuple[float, float, float]) -> DiameterEstimate:
        self.reporter.advance("diameter", 0.0, done=0, total=1, what="looking for the diameter of the nuclei")
        views = self._views()
        # Which answer fits best can hang on the last digits, so it is looked for in float32 whatever follows.
        exact = getattr(self.network, "exact", self.network)
        with self.reporter.stage("diameter"):
            return estimate_diameter(
                views,
                self._tiler(self.config.tiles.tile_px, BATCH_PX, exact),
                trained_px=self.trained_px,
                ratio=ratio,
                flows=self.config.flows,
                threads=self.threads,
                check=self.reporter.check,
            )

    def _views(self) -> list[View]:
        """Windows of a few planes of a few time points, where most is to be seen."""
        n_t, (n_z, n_y, n_x) = self.source.n_times, self.source.shape
        times = sorted({0, n_t // 2, n_t - 1})
        depths = sorted({n_z // 4, n_z // 2, (3 * n_z) // 4}) if n_z > 1 else [0]
        n_windows = max(1, 3 // len(times) // len(depths))
        views: list[View] = []
        for time in times:
            intensity = self._intensity(time)
            if intensity.flat:
                continue
            for z in depths:

                def interest(part: tuple[slice, slice], time: int = time, z: int = z) -> float:
                    # Every other pixel is enough to tell nuclei from background.
                    plane = self._normalised(time, (slice(z, z + 1), *part))[0, ::2, ::2]
                    return float(np.clip(plane, 0.0, 1.0).std())

                if n_y * n_x <= 2 * VIEW_EDGE**2:
                    centres = [(n_y // 2, n_x // 2)]
                else:
                    centres = pick_windows(interest, (n_y, n_x), edge=VIEW_EDGE, n=n_windows)
                views += [partial(self._crop, time, z, centre) for centre in centres]
        return views

    def _crop(self, time: int, z: int, centre: tuple[int, int], edge: int) -> NDArray[np.float32]:
        y, x = (window(c, edge, n) for c, n in zip(centre, self.source.shape[1:], strict=True))
        plane: NDArray[np.float32] = self._normalised(time, (slice(z, z + 1), y, x))[0]
        return plane

    def _normalised(self, time: int, region: Region) -> NDArray[np.float32]:
        intensity = self._intensity(time)
        with self.reporter.stage("read"):
            return self.reader.normalised(time, region, intensity)

    # --- the segmentation ----------------------------------------------------------------------------------------

    def _masks(self, flows: NDArray[np.float32], probability: NDArray[np.float32], plan: Plan) -> NDArray[np.uint32]:
        for component, factor in zip(flows, self.scale.displacement[3 - len(flows) :], strict=True):
            if factor != 1.0:
                component *= np.float32(factor)
        config = self.config.flows
        config = config.replace(
            n_steps=min(self.scale.steps(config.n_steps), 10_000),
            min_size_vox=self._smallest(config.min_size_vox, volume=len(flows) == 3),
        )
        with self.reporter.stage("masks"):
            labels = flow_masks.masks_from_flows(
                flows, probability, config=config, threads=self.threads, should_cancel=self.reporter.should_cancel
            )
        share = plan.masks_seconds * labels.size / max(self._computed_voxels(plan), 1)
        done, total = min(self._tiles_done, plan.n_tiles), plan.n_tiles
        self.reporter.advance("masks", share, done=done, total=total, what=f"masks after tile {done} of {total}")
        return labels

    def _smallest(self, wanted: int, *, volume: bool) -> int:
        """Limit in voxels: the usual one may not drop the nuclei of a coarse image, one that was chosen may."""
        if wanted > SMALLEST_VOX:
            return wanted
        diameter = self.trained_px / self.scale.zoom
        quarter = math.pi / 24.0 * diameter**3 / math.prod(self.scale.ratio) if volume else math.pi / 16.0 * diameter**2
        return min(wanted, round(quarter))

    def _computed_voxels(self, plan: Plan) -> int:
        of_blocks = sum(int(np.prod(block.outer_shape)) for block in plan.blocks)
        return of_blocks * self.source.n_times * (1 if self.mode == "planes" else self.source.shape[0])

    def _volume(self, time: int, plan: Plan, tiler: Tiler, store: Store) -> None:
        n_objects = 0
        for block in plan.blocks:
            volume = self._normalised(time, block.outer)
            self.reader.release()

            def on_planes(first: int, outputs: Tensor, region: Region = block.outer) -> None:
                for i, output in enumerate(outputs.numpy()):
                    z = region[0].start + first + i
                    self.partials.provisional(time, (slice(z, z + 1), *region[1:]), output)

            with self.reporter.stage("network"):
                flows, probability = predict_volume(volume, tiler, self.scale, on_planes=on_planes)
            del volume
            labels = self._masks(flows, probability, plan)
            if len(plan.blocks) == 1:
                store.put_labels(time, self.source.whole, labels)
                store.put_outputs(time, self.source.whole, flows, probability)
            else:
                target = store.room_for(n_objects + int(labels.max(initial=0)))[time]
                del flows, probability  # adopting takes memory, too, and so does the next block
                n_objects = adopt(target, labels, block, n_objects=n_objects)
                self.partials.found(time, block.core, target[block.core], final=False)
                del labels
        self.n_objects += self._drop_small(time, store)

    def _drop_small(self, time: int, store: Store) -> int:
        with self.reporter.stage("masks"):
            return drop_small(store.labels[time], share=self.config.smallest_share_3d)

    def _planes(self, time: int, plan: Plan, tiler: Tiler, store: Store) -> None:
        stitcher = Stitcher(iou=self.config.stitch_iou) if self.mode == "stitch" else None
        for z in range(self.source.shape[0]):
            region = (slice(z, z + 1), *self.source.whole[1:])
            labels = self._plane(time, z, plan, tiler, store)
            if stitcher is not None:
                with self.reporter.stage("stitch"):
                    labels = stitcher.add(labels)
            else:
                self.n_objects += int(labels.max(initial=0))
            store.put_labels(time, region, labels[None])
            if self.source.shape[0] > 1:
                self.partials.found(time, region, labels[None], final=stitcher is None)
        if stitcher is not None:
            self.n_objects += self._drop_small(time, store)

    def _plane(self, time: int, z: int, plan: Plan, tiler: Tiler, store: Store) -> NDArray[np.uint32]:
        target = np.zeros((1, *self.source.shape[1:]), np.uint32) if len(plan.blocks) > 1 else None
        n_objects = 0
        for block in plan.blocks:
            region = (slice(z, z + 1), *block.outer[1:])
            plane = self._normalised(time, region)[0]
            on_output = partial(self._on_output, time, region, plane.shape) if self.partials.wanted else None
            with self.reporter.stage("network"):
                outputs = predict_plane(plane, tiler, self.scale, on_output=on_output)
            labels = self._masks(outputs[:2], outputs[2], plan)
            if target is None:
                store.put_outputs(time, region, outputs[:2, None], outputs[2][None])
                return labels
            del plane, outputs  # adopting takes memory, too, and so does the next block
            n_objects = adopt(target, labels[None], block, n_objects=n_objects)
            core = (slice(z, z + 1), *block.core[1:])
            self.partials.found(time, core, target[block.core], final=False)
            del labels
        return np.zeros(self.source.shape[1:], np.uint32) if target is None else target[0]

    def _on_output(
        self, time: int, region: Region, shape: tuple[int, int], place: tuple[slice, slice], output: Tensor
    ) -> None:
        """Hand out the provisional labels of a tile: network pixels to image pixels, edges rounded inwards."""
        if not self.partials.wanted:
            return
        size = self.scale.network_size(shape, (1, 2))
        where = []
        for part, network, image, of in zip(place, size, shape, region[1:], strict=True):
            start, stop = -(-part.start * image // network), part.stop * image // network
            where.append(slice(of.start + start, of.start + stop))
        if all(part.stop > part.start for part in where):
            self.partials.provisional(time, (region[0], where[0], where[1]), output.numpy())

    def _put_nothing(self, time: int, store: Store) -> None:
        shape = self.source.shape
        store.room_for(0)
        if store.keep_flows:
            flows = np.zeros((3 if self.mode == "planes" else 2, *shape), np.float32)
            store.put_outputs(time, self.source.whole, flows, np.full(shape, ABSENT, np.float32))
