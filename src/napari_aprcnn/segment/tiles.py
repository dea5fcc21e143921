"""Planes through the network: a border of zeros, tiles with tapered overlap, batches of bounded size."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from napari_aprcnn.errors import NotEnoughMemoryError
from napari_aprcnn.models.network import PASS_PX

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["MIRRORS", "NetworkLike", "TileGrid", "Tiler", "plan_tiles"]

GRAIN = 16  # edges that every network of the family takes without padding of its own
MIRRORS = ((1,), (2,), (1, 2))  # axes (N, H, W) that the further images of an augmented run are turned round
SLACK = 1.125  # a plane up to this much larger than a tile is one tile: overlaps cost more than they save
LEAST_OVERLAP = 64  # the outputs need this much context, in network pixels
DEAD_RIM = 0.25  # share of an overlap next to a tile's edge that gets no weight
SMALLEST_TILE = 128
NOTHING = -20.0  # logit where there is nothing to see


class NetworkLike(Protocol):
    """What the pipeline needs of a network."""

    threads: int

    @property
    def card(self) -> Any:
        """Its card: the diameter it was trained at, the border it wants."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    def predict(self, planes: Tensor, *, check: Callable[[], None] | None = None) -> NDArray[np.float32]:
        """Planes (N, H, W) to outputs (N, 3, H, W); `check` is called often and may raise to stop."""


@dataclass(frozen=True)
class TileGrid:
    """How a plane is cut.

    Attributes
    ----------
    size
        (height, width) of every tile.
    starts
        First rows and first columns.
    """

    size: tuple[int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def n_tiles(self) -> int:
        """Tiles of a plane."""
        return len(self.starts[0]) * len(self.starts[1])

    @property
    def pixels(self) -> int:
        """Pixels that the network sees for a plane, overlaps included."""
        return self.n_tiles * self.size[0] * self.size[1]


def plan_tiles(height: int, width: int, *, tile_px: int, overlap: float) -> TileGrid:
    """Cut a plane into tiles of equal size.

    Parameters
    ----------
    height, width
        Size of the plane with its border, multiples of 16.
    tile_px
        Largest edge of a tile, give or take an eighth.
    overlap
        Share of a tile that it shares with its neighbour.

    Examples
    --------
    >>> plan_tiles(1072, 1072, tile_px=1024, overlap=0.1).n_tiles
    1
    >>> plan_tiles(2048, 560, tile_px=1024, overlap=0.1)
    TileGrid(size=(752, 560), starts=((0, 648, 1296), (0,)))
    """
    (rows, tall), (columns, wide) = (_axis(n, tile_px, overlap) for n in (height, width))
    return TileGrid((tall, wide), (rows, columns))


def _axis(length: int, tile_px: int, overlap: float) -> tuple[tuple[int, ...], int]:
    if length <= tile_px * SLACK:
        return (0,), length
    shared = 0 if overlap == 0 else max(round(overlap * tile_px), min(LEAST_OVERLAP, tile_px // 4))
    n = -(-(length - shared) // (tile_px - shared))
    size = min(_round_up(-(-(length + (n - 1) * shared) // n)), length)
    return tuple(round(i * (length - size) / (n - 1)) for i in range(n)), size


def _round_up(n: int) -> int:
    return -(-n // GRAIN) * GRAIN


@cache
def _taper(starts: tuple[int, ...], size: int, length: int, index: int) -> Tensor:
    """Weights of a tile along one axis: 1 inside, down to almost 0 over the overlap, 1 at the plane's own edges."""
    weight = torch.ones(size)
    if index > 0:
        weight *= _ramp(size, starts[index - 1] + size - starts[index])
    if index + 1 < len(starts):
        weight *= _ramp(size, starts[index] + size - starts[index + 1]).flip(0)
    return weight


def _ramp(size: int, shared: int) -> Tensor:
    position = (torch.arange(size) + 0.5) / max(shared, 1)
    share = ((position - DEAD_RIM) / (1 - 2 * DEAD_RIM)).clamp(0, 1)
    return (share * share * (3 - 2 * share)).clamp_min(1e-4)


@dataclass
class Tiler:
    """Runs planes of any size through a network.

    Attributes
    ----------
    network
        The network.
    tile_px
        Largest edge of a tile; halved when a tile does not fit the memory.
    overlap, border_px
        As `TileConfig`.
    batch_px
        Pixels that go through the network at a time, one tile at least.
    on_tile
        Called after each batch with the pixels and the tiles it held; may raise to stop.
    threads
        Small tiles of a batch go through the network side by side, one thread each: threads that share a small tile
        wait for each other most of the time.
    check
        Called many times within a tile, from any thread; may raise to stop.
    augment
        Whether outputs are the mean over a tile and its mirror images, as `TileConfig`.
    """

    network: NetworkLike
    tile_px: int
    overlap: float
    border_px: int
    batch_px: int
    on_tile: Callable[[int, int], None]
    threads: int = 1
    check: Callable[[], None] | None = None
    augment: bool = False

    def grid(self, size: tuple[int, int], *, border: tuple[int, int] | None = None) -> TileGrid:
        """Return how a plane of this size (network pixels, without border) is cut."""
        height, width = (_round_up(n + 2 * b) for n, b in zip(size, self._border(border), strict=True))
        return plan_tiles(height, width, tile_px=self.tile_px, overlap=self.overlap)

    def _border(self, border: tuple[int, int] | None) -> tuple[int, int]:
        return (self.border_px, self.border_px) if border is None else border

    def batch(self, size: tuple[int, int], *, border: tuple[int, int] | None = None) -> int:
        """Return how many planes of this size go through the network together."""
        height, width = self.grid(size, border=border).size
        return max(1, self.batch_px // (height * width))

    def run(
        self,
        planes: Tensor,
        *,
        on_output: Callable[[tuple[slice, slice], Tensor], None] | None = None,
        border: tuple[int, int] | None = None,
    ) -> Tensor:
        """Predict flows and probability.

        Parameters
        ----------
        planes : (N, H, W) float32
            Normalised planes at network resolution.
        on_output
            Called with the place and the outputs (3, h, w) of each tile of a plane that has several.
        border
            Rows and columns of zeros around the planes; ``None``: `border_px` of both.

        Returns
        -------
        (N, 3, H, W) float32
            Flow y, flow x, logit of the probability; on the CPU.

        Raises
        ------
        NotEnoughMemoryError
            If not even the smallest tiles fit.
        """
        while True:
            try:
                return self._run(planes, on_output, self._border(border))
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, NotEnoughMemoryError) or not _is_memory(error):
                    raise
                if self.tile_px <= SMALLEST_TILE:
                    raise NotEnoughMemoryError(
                        f"a tile of {self.tile_px} px does not fit the memory of {self.network.device}; close other "
                        "programs, choose a smaller network (fastercellpose-v3), or run on the CPU"
                    ) from error
                self.tile_px = max(SMALLEST_TILE, self.tile_px // 2)
                self.batch_px = max(self.batch_px // 4, 1)

    def _predict_seen(self, tiles: Tensor, seen: list[bool]) -> Tensor:
        """Predict the tiles in which there is anything to see; the others hold nothing, for sure."""
        if all(seen):
            return self._predict(tiles)
        outputs = torch.zeros((len(tiles), 3, *tiles.shape[1:]))
        outputs[:, 2] = NOTHING
        which = torch.tensor(seen)
        if which.any():
            outputs[which] = self._predict(tiles[which])
        elif self.check is not None:
            self.check()
        return outputs

    def _predict(self, tiles: Tensor) -> Tensor:
        total = self._predict_once(tiles)
        if not self.augment:
            return total
        for axes in MIRRORS:
            found = self._predict_once(tiles.flip(axes)).flip([axis + 1 for axis in axes])
            found[:, [axis - 1 for axis in axes]] *= -1.0  # a mirror turns the flow along its axis round
            total += found
        return total.div_(1 + len(MIRRORS))

    def _predict_once(self, tiles: Tensor) -> Tensor:
        n, area = len(tiles), tiles.shape[1] * tiles.shape[2]
        workers = min(self.threads, n)
        if workers < 2 or area > PASS_PX or self.network.device.type != "cpu":
            return torch.from_numpy(self.network.predict(tiles, check=self.check))
        alone = copy.copy(self.network)
        alone.threads = 1
        parts = torch.split(tiles, max(1, min(-(-n // workers), PASS_PX // (workers * area))))
        try:
            with ThreadPoolExecutor(workers, "aprcnn-tiles") as pool:
                return torch.from_numpy(np.concatenate(list(pool.map(partial(alone.predict, check=self.check), parts))))
        finally:
            # The number that a thread sets is also the one that later threads begin with.
            torch.set_num_threads(self.threads)

    def _run(
        self,
        planes: Tensor,
        on_output: Callable[[tuple[slice, slice], Tensor], None] | None,
        border: tuple[int, int],
    ) -> Tensor:
        n, height, width = planes.shape
        grid = self.grid((height, width), border=border)
        tall, wide = (_round_up(edge + 2 * b) for edge, b in zip((height, width), border, strict=True))
        inside = (slice(border[0], border[0] + height), slice(border[1], border[1] + width))
        canvas = torch.zeros((n, tall, wide))
        canvas[:, inside[0], inside[1]] = planes
        step = max(1, self.batch_px // (grid.size[0] * grid.size[1]))
        if grid.n_tiles == 1:
            parts = []
            for start in range(0, n, step):
                part = canvas[start : start + step]
                parts.append(self._predict_seen(part, [_varies(plane) for plane in planes[start : start + step]]))
                self.on_tile(part.numel(), len(part))
            outputs = parts[0] if len(parts) == 1 else torch.cat(parts)
            return outputs[:, :, inside[0], inside[1]]
        outputs = torch.zeros((n, 3, tall, wide))
        total = torch.zeros((tall, wide))
        jobs = [(i, r, c) for i in range(n) for r in range(len(grid.starts[0])) for c in range(len(grid.starts[1]))]
        for first in range(0, len(jobs), step):
            group = jobs[first : first + step]
            places = [(i, *_place(grid, r, c)) for i, r, c in group]
            tiles = torch.stack([canvas[place] for place in places])
            predicted = self._predict_seen(tiles, [_varies(_within(planes[i], y, x, border)) for i, y, x in places])
            for output, (i, r, c) in zip(predicted, group, strict=True):
                y, x = _place(grid, r, c)
                rows = _taper(grid.starts[0], grid.size[0], tall, r)
                weight = rows[:, None] * _taper(grid.starts[1], grid.size[1], wide, c)
                outputs[i, :, y, x].addcmul_(output, weight)
                if i == 0:
                    total[y, x] += weight
                if on_output is not None:
                    _hand_out(on_output, output, (y, x), border, (height, width))
            self.on_tile(tiles.numel(), len(group))
        return outputs[:, :, inside[0], inside[1]].div_(total[inside])


def _place(grid: TileGrid, row: int, column: int) -> tuple[slice, slice]:
    y, x = grid.starts[0][row], grid.starts[1][column]
    return slice(y, y + grid.size[0]), slice(x, x + grid.size[1])


def _within(plane: Tensor, y: slice, x: slice, border: tuple[int, int]) -> Tensor:
    """The part of a plane that a place on its canvas shows."""
    rows, columns = (slice(max(0, p.start - b), max(0, p.stop - b)) for p, b in zip((y, x), border, strict=True))
    return plane[rows, columns]


def _varies(part: Tensor) -> bool:
    """Whether there is anything to see: what was never imaged (the edges of a mosaic) has one value."""
    if not part.numel():
        return False
    low, high = torch.aminmax(part)
    return bool(low != high)


def _hand_out(
    on_output: Callable[[tuple[slice, slice], Tensor], None],
    output: Tensor,
    place: tuple[slice, slice],
    border: tuple[int, int],
    size: tuple[int, int],
) -> None:
    """Crop a tile's output to the plane without its border."""
    inside, crop = [], []
    for part, length, b in zip(place, size, border, strict=True):
        start, stop = max(part.start - b, 0), min(part.stop - b, length)
        if stop <= start:
            return
        inside.append(slice(start, stop))
        crop.append(slice(start + b - part.start, stop + b - part.start))
    on_output((inside[0], inside[1]), output[:, crop[0], crop[1]])


def _is_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in text or "alloc_cpu" in text
