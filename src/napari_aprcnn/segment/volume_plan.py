"""How a run of a network for volumes is cut, and what it is expected to take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from napari_aprcnn._kernels.waiting import can_wait
from napari_aprcnn.errors import NotEnoughMemoryError
from napari_aprcnn.models.volume_config import halo
from napari_aprcnn.models.volume_memory import peak_row_bytes
from napari_aprcnn.segment.blocks import Block, cut_blocks
from napari_aprcnn.segment.memory import words_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_aprcnn.config import VolumeConfig
    from napari_aprcnn.models.volume_config import VolumeNetConfig

__all__ = [
    "DENSE_PRR",
    "SECONDS_PER_ROW",
    "SECONDS_PER_VOXEL",
    "TYPICAL_PRR",
    "VolumePlan",
    "margin_of",
    "on_voxels",
    "plan_volume",
    "row_bytes",
]

# Bytes at the peak, measured: of the run; and by head, of a voxel beside the network, and when labels are made.
FIXED_BYTES = 15_000_000
HEAD_BYTES = {"flows": (12, 48), "three_class": (12, 94), "stardist": (36, 62)}
# Of a voxel of the image where there is a zoom: float32 copies and labels, of a whole image and of a block of one; or
# flows and probability that are brought back to it; or labels that grow.
WHOLE_BYTES, BLOCK_BYTES, KEPT_BYTES, MOVED_BYTES = 4, 8, 18, 30
TYPICAL_PRR, DENSE_PRR = 4.0, 2.0  # what an estimate assumes, and what blocks must fit the memory at
SECONDS_PER_ROW, SECONDS_PER_VOXEL = 1.15e-6, 1.3e-7
LEAST_CORE = 32


def margin_of(config: VolumeNetConfig, zoom: float) -> tuple[int, int, int]:
    """How far blocks of an image must overlap, in its voxels along z, y, x."""
    reach = halo(config)
    margin = math.ceil(max(reach.before, reach.after) / zoom)
    return margin, margin, margin


def on_voxels(config: VolumeNetConfig, options: VolumeConfig) -> bool:
    """Whether no stage of a network works on particles."""
    return (config.hybrid if options.particle_stages is None else options.particle_stages) == 0


@dataclass(frozen=True)
class VolumePlan:
    """How a run is cut.

    Attributes
    ----------
    blocks
        Of one time point.
    memory_bytes
        Peak memory that the run is expected to add.
    seconds
        Expected time.
    n_tiles
        Blocks of the whole run.
    """

    blocks: tuple[Block, ...]
    memory_bytes: int
    seconds: float
    n_tiles: int
    tile_px: int = 0
    reduced: bool = False


def row_bytes(config: VolumeNetConfig, options: VolumeConfig, precision: str = "float32") -> Callable[[float], float]:
    """Bytes at the peak of a row of the finest stage, a particle or a voxel, from the PRR."""
    stages = config.particle_stages if options.particle_stages is None else options.particle_stages
    form = config.replace(particle_stages=stages)
    return partial(peak_row_bytes, form, half=precision == "bfloat16", lean=can_wait())


def plan_volume(
    shape: tuple[int, int, int],
    *,
    n_times: int,
    margin: tuple[int, int, int],
    budget: int,
    per_row: Callable[[float], float],
    prr: float = DENSE_PRR,
    known_prr: float | None = None,
    zoom: float = 1.0,
    head: str = "flows",
    keep: bool = True,
    moved: bool = False,
) -> VolumePlan:
    """Find the largest blocks that fit a budget.

    Parameters
    ----------
    shape, n_times
        Of a time point, and how many there are.
    margin
        What blocks overlap along z, y, x.
    budget
        Bytes.
    per_row
        Bytes of a row of the finest stage, from the PRR (`row_bytes`).
    prr
        Voxels a particle that blocks are cut for; 1 for networks on voxels.
    known_prr
        Voxels a particle as measured, for the figures of memory and time; ``None``: as `prr`. How an image is cut does
        not depend on it, so that the same run is cut the same way each time.
    zoom
        As in `VolumeConfig`.
    head
        Of the network.
    keep
        Whether flows and probability are kept, as they are in a run of one block.
    moved
        Whether outlines are moved by voxels.

    Raises
    ------
    NotEnoughMemoryError
        If not even small blocks fit.
    """

    def per_voxel(at: float, *, whole: bool) -> float:
        beside, masks = HEAD_BYTES[head]
        on_network = zoom**3 * max(beside + per_row(at) / at, masks)
        if zoom == 1.0:
            return on_network
        resized = WHOLE_BYTES if whole else BLOCK_BYTES
        return on_network + max(resized, KEPT_BYTES * (keep and whole), MOVED_BYTES * moved)

    lasting = FIXED_BYTES + 4 * math.prod(shape) * n_times
    parts = [1, 1, 1]
    while True:
        core = [-(-n // p) for n, p in zip(shape, parts, strict=True)]
        outer = [min(c + 2 * m, n) if p > 1 else n for c, m, n, p in zip(core, margin, shape, parts, strict=True)]
        needed = lasting + math.prod(outer) * per_voxel(prr, whole=max(parts) == 1)
        if needed <= budget:
            break
        longest = max(range(3), key=lambda axis: core[axis])
        if core[longest] <= LEAST_CORE:
            raise NotEnoughMemoryError(
                f"the run needs at least {words_bytes(needed)} even in the smallest blocks, and may take "
                f"{words_bytes(budget)}; close other programs, raise tiles.memory_gb, or crop the image"
            )
        parts[longest] += 1
    cut = tuple(parts[axis] > 1 for axis in range(3))
    margins = tuple(m if c else 0 for m, c in zip(margin, cut, strict=True))
    blocks = cut_blocks(shape, parts=(parts[0], parts[1], parts[2]), halo=(margins[0], margins[1], margins[2]))
    voxels = sum(math.prod(block.outer_shape) for block in blocks) * n_times * zoom**3
    true_prr = known_prr or prr
    seconds = voxels * (SECONDS_PER_VOXEL + SECONDS_PER_ROW / true_prr)
    needed = lasting + math.prod(outer) * per_voxel(true_prr, whole=max(parts) == 1)
    return VolumePlan(blocks, int(needed), seconds, len(blocks) * n_times, max(outer), len(blocks) > 1)
