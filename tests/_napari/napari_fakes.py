"""A stand-in for the networks: thresholds and connected components, tile by tile, at a speed of one's choice."""

from __future__ import annotations

import threading
import time

import numpy as np
from scipy import ndimage

from napari_aprcnn._napari.backend import Backend, Machine
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import CancelledError
from napari_aprcnn.models.cards import ModelCard
from napari_aprcnn.segment.progress import PartialLabels, Progress
from napari_aprcnn.segment.readout import Readout
from napari_aprcnn.segment.result import SegmentationResult, smallest_dtype
from napari_aprcnn.segment.source import map_image


def card(name: str) -> ModelCard:
    return ModelCard(name=name, architecture="faster_v3", title=name, data="nothing", licence="CC0-1.0")


def readout(labels: np.ndarray, axes: str) -> Readout:
    return Readout(
        model="fake", model_sha256="0" * 64, precision="float32", device="CPU, 1 thread", threads=1,
        instruction_set="plain", axes=axes, shape=labels.shape, dimensionality="2d", n_objects=int(labels.max()),
        diameter_px=21.5, diameter_given=False, zoom=1.0, seconds=1.0, stages={"network": 0.7, "masks": 0.3},
        voxels=labels.size, voxels_per_s=float(labels.size), peak_memory_bytes=10**8, memory_added_bytes=10**6,
        memory_estimate_bytes=10**6, tile_px=512, n_tiles=4, n_blocks=1, versions={"python": "3"},
    )  # fmt: skip


class FakeSegment:
    """Segments by a threshold at half the range; remembers what it was asked.

    `hold` stops it after the first tile until `release` is set, or it is cancelled.
    """

    def __init__(self, *, tiles: int = 4, seconds_a_tile: float = 0.0, hold: bool = False, error=None) -> None:
        self.tiles = tiles
        self.seconds_a_tile = seconds_a_tile
        self.hold = hold
        self.error = error
        self.release = threading.Event()
        self.thread: threading.Thread | None = None
        self.configs: list[SegmentConfig] = []
        self.images: list[object] = []

    def __call__(self, image, *, config, progress, should_cancel, on_partial):
        self.thread = threading.current_thread()
        self.configs.append(config)
        self.images.append(image)
        source = map_image(image, config.axes)
        volumes = np.stack([source.read(t, source.whole) for t in range(source.n_times)])
        labels = ndimage.label(volumes > volumes.max() / 2)[0].astype(np.uint32)
        rows = np.linspace(0, source.shape[1], self.tiles + 1).astype(int)
        for tile in range(self.tiles):
            if should_cancel():
                raise CancelledError("cancelled")
            time.sleep(self.seconds_a_tile)
            for t in range(source.n_times):
                region = (slice(0, source.shape[0]), slice(rows[tile], rows[tile + 1]), slice(0, source.shape[2]))
                if on_partial is not None:
                    part = source.to_output(labels[(slice(t, t + 1), *region)])
                    on_partial(PartialLabels(source.output_region(t, region), part.copy()))
            left = (self.tiles - tile - 1) * self.seconds_a_tile
            words = f"tile {tile + 1} of {self.tiles}, {left:.0f} s left"
            progress(Progress("network", tile + 1, self.tiles, left, (tile + 1) / self.tiles, words))
            while self.hold and not self.release.wait(0.005):
                if should_cancel():
                    raise CancelledError("cancelled")
            if self.error is not None:
                raise self.error
        out = np.ascontiguousarray(source.to_output(labels)).astype(smallest_dtype(int(labels.max())))
        probability = flows = None
        if config.keep_flows:
            probability = np.where(out > 0, 4.0, -4.0).astype(np.float32)
            flows = np.stack([np.ones(out.shape), np.zeros(out.shape)]).astype(np.float32) * 5
        return SegmentationResult(out, probability, flows, readout(out, source.axes), config)


def fake_machine(device: str, threads: int | None) -> Machine:
    models = (card("fastercellpose-v3"), card("fastcellpose"))
    return Machine(models, "CPU, 2 threads", "no GPU found: there is none in this test")


def fake_backend(segment=None, *, machine=fake_machine) -> Backend:
    return Backend(
        segment=segment or FakeSegment(),
        estimate=lambda shape, dtype, config, diameter, prr: f"about 1 s for {tuple(shape)}",
        machine=machine,
    )


def blobs(shape: tuple[int, ...], *, step: int = 16, dtype="uint8") -> np.ndarray:
    """Bright squares on a grid in the last two axes."""
    image = np.zeros(shape, dtype)
    for y in range(4, shape[-2] - 8, step):
        for x in range(4, shape[-1] - 8, step):
            image[..., y : y + 7, x : x + 7] = 200
    return image
