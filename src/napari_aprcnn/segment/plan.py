"""How a run is cut before it starts: tiles, batches and blocks that fit the memory, and what it will take.

One model of memory and time serves the estimate that a user sees and the plan that a run follows. The figures in it
are measured by ``python -m napari_aprcnn.bench pipeline``, which prints the estimate beside the measured peak.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from napari_aprcnn.errors import NotEnoughMemoryError
from napari_aprcnn.models.configs import NETWORKS
from napari_aprcnn.models.network import PASS_PX
from napari_aprcnn.segment.blocks import Block, cut_blocks
from napari_aprcnn.segment.memory import words_bytes
from napari_aprcnn.segment.planes import ORIENTATIONS, border_of
from napari_aprcnn.segment.speeds import speeds
from napari_aprcnn.segment.tiles import GRAIN, MIRRORS, SMALLEST_TILE, TileGrid, plan_tiles

if TYPE_CHECKING:
    from napari_aprcnn.config import TileConfig
    from napari_aprcnn.segment.scale import Scale

__all__ = ["COSTS", "Cost", "Mode", "Plan", "Task", "cost_of", "make_plan"]

Mode = Literal["2d", "planes", "stitch", "volume"]

BATCH_PX = 1024 * 1024
GPU_BATCH_PX = 8 * BATCH_PX
WIDE_TILE = 448  # edge of a tile of the wide networks, so that progress is told every second or two
HALO_DIAMETERS = 2.0
WHOLE = (1, 1, 1)
CHOICES = 6  # cuts that are compared at most
LEAST_CORE = 32  # voxels; thinner blocks are nearly all halo
WORKERS = 2  # tiles side by side; more threads take more, but must not change how a run is cut
# Bytes, from what the code allocates:
PASS_BYTES = 24  # per pixel in a pass of the network: two channels in, three out, padding
TILE_BYTES = 12  # per pixel of the tiles of a batch: outputs, twice where workers' parts are put together
PLANE_BYTES, TILED_BYTES = 4, 24  # per pixel of a batch's planes with their border: canvas; sums and weights, tiles
RESIZED_BYTES = 16  # per image pixel of a batch that is resized: planes, outputs
KERNEL_2D, KERNEL_3D = 12, 20  # per voxel from flows to masks, where up to half are in nuclei
MARGIN, BLOCKED_MARGIN = 1.05, 1.2  # what one block leaves in pieces, the next cannot take
FIXED_BYTES = 6_000_000  # what torch and the libraries set up at their first use


@dataclass(frozen=True)
class Cost:
    """What a network takes per network pixel.

    Attributes
    ----------
    bytes_per_px
        Peak memory of a forward pass beside its input and output; the buffers of the fused kernels are exactly this.
    seconds_per_px
        Time on two CPU threads.
    """

    bytes_per_px: float
    seconds_per_px: float


COSTS = {
    "faster_v3": Cost(148, 0.1e-6),
    "faster_wide": Cost(152, 0.09e-6),
    "faster_v2": Cost(268, 0.16e-6),
    "faster_v1": Cost(324, 0.22e-6),
    "fastcellpose": Cost(220, 0.25e-6),
    "compressed_dsc": Cost(536, 0.65e-6),
    "cellpose_dsc": Cost(648, 1.1e-6),
    "compressed": Cost(640, 1.5e-6),
    "upsample": Cost(640, 1.7e-6),
    "dilated": Cost(640, 1.9e-6),
    "cellpose": Cost(640, 1.8e-6),
}
WIDE_S_PER_PX = 1.2e-6
_MEASURED: dict[str, float] = {}


def cost_of(architecture: str) -> Cost:
    """Return what an architecture takes; the most, where it is unknown.

    Speeds of earlier runs in this process go before those of a calibration, and these before the table's.
    """
    cost = COSTS.get(architecture, COSTS["cellpose"])
    calibrated = speeds().network_s_per_px.get(architecture, cost.seconds_per_px)
    return Cost(cost.bytes_per_px, _MEASURED.get(architecture, calibrated))


def remember_speed(architecture: str, seconds: float, pixels: int) -> None:
    """Keep the measured speed of a run for the next estimate in this process."""
    if pixels >= 1 << 18:
        _MEASURED[architecture] = seconds / pixels


@dataclass(frozen=True)
class Task:
    """What is to be computed.

    Attributes
    ----------
    mode
        As `SegmentConfig.dimensionality`, resolved.
    n_times, shape
        Time points, and (Z, Y, X) of each.
    scale
        Rescaling to the network.
    diameter_px
        Diameter of the nuclei in the plane.
    architecture
        Of the network.
    on_gpu
        The network's memory is not the machine's.
    """

    mode: Mode
    n_times: int
    shape: tuple[int, int, int]
    scale: Scale
    diameter_px: float
    architecture: str
    on_gpu: bool = False

    @property
    def voxels(self) -> int:
        """Voxels of the labels."""
        return self.n_times * math.prod(self.shape)


@dataclass(frozen=True)
class Plan:
    """How a run is cut.

    Attributes
    ----------
    tile_px, batch_px
        Largest edge of a tile, pixels that go through the network at a time.
    blocks
        Of one time point (mode ``planes``) or one plane (else).
    memory_bytes
        Peak memory that the run is expected to add.
    keep_flows
        Probability and flows of the whole image fit the memory too.
    n_tiles, network_px
        Of the whole run.
    seconds
        Expected time of the whole run on two CPU threads, or as measured in this process.
    masks_seconds
        The part of it that goes from flows to masks.
    reduced
        Memory forced smaller tiles or blocks.
    """

    tile_px: int
    batch_px: int
    blocks: tuple[Block, ...]
    memory_bytes: int
    keep_flows: bool
    n_tiles: int
    network_px: int
    seconds: float
    masks_seconds: float
    reduced: bool


def make_plan(task: Task, config: TileConfig, *, budget: int, keep_flows: bool = True) -> Plan:
    """Find the largest tiles and blocks that fit a budget.

    Parameters
    ----------
    task
        What is to be computed.
    config
        Tile size and overlap that are wanted.
    budget
        Bytes that the run may add.
    keep_flows
        Keep probability and flows of the whole image, if they fit.

    Raises
    ------
    NotEnoughMemoryError
        If not even the smallest tiles and blocks fit; the message says what would.
    """
    # The table's speed, not a measured one: the same run must be cut the same way each time.
    wide = COSTS.get(task.architecture, COSTS["cellpose"]).seconds_per_px >= WIDE_S_PER_PX
    wanted = min(config.tile_px, WIDE_TILE) if wide else config.tile_px
    tiles = [wanted]
    while tiles[-1] > 2 * SMALLEST_TILE:
        tiles.append(max(2 * SMALLEST_TILE, tiles[-1] // 2))
    least: float = 2 * task.voxels
    if least > budget:
        raise _too_large(least, budget)  # the labels alone; looking for a cut would take forever
    least = math.inf
    fitting: list[Plan] = []
    for parts in (WHOLE, *_splits(task)):
        for tile, keep in (
            (t, k) for t in tiles for k in ((True, False) if keep_flows and parts == WHOLE else (False,))
        ):
            # Not only the largest: a smaller block may just fit one tile, where the largest is cut into several.
            needed = max(_memory(task, config, tile, block, keep=keep) for block in _block_shapes(task, parts))
            least = min(least, needed)
            if needed <= budget:
                reduced = tile != wanted or parts != WHOLE or keep != keep_flows
                fitting.append(_finish(task, config, tile, parts, int(needed), keep=keep, reduced=reduced))
                break
        # Finer cuts than the first that takes full tiles only cost more; small tiles cost more than a few blocks.
        if fitting and (tile == wanted or len(fitting) > CHOICES):
            return min(fitting, key=lambda plan: plan.seconds)
    if fitting:
        return min(fitting, key=lambda plan: plan.seconds)
    raise _too_large(least, budget)


def _too_large(least: float, budget: int) -> NotEnoughMemoryError:
    return NotEnoughMemoryError(
        f"the run needs at least {words_bytes(least)} even in the smallest tiles and blocks, and may take "
        f"{words_bytes(budget)}; close other programs, raise tiles.memory_gb, crop the image, or give a diameter_px "
        "that is true (small values enlarge the image for the network)"
    )


def _splits(task: Task) -> Iterable[tuple[int, int, int]]:
    """Yield finer and finer cuts, along the axis where blocks are longest in network pixels."""
    parts = [1, 1, 1]
    axes = (0, 1, 2) if task.mode == "planes" else (1, 2)
    while True:
        edges = {axis: task.shape[axis] / parts[axis] for axis in axes}
        longest = max(axes, key=lambda axis: edges[axis] * task.scale.ratio[axis])
        if edges[longest] < 2 * LEAST_CORE:
            return
        parts[longest] += max(1, parts[longest] // 4)
        yield parts[0], parts[1], parts[2]


def _cut_shape(task: Task) -> tuple[int, int, int]:
    return task.shape if task.mode == "planes" else (1, *task.shape[1:])


def _halo(task: Task, parts: tuple[int, int, int]) -> tuple[int, int, int]:
    z, y, x = (
        math.ceil(HALO_DIAMETERS * task.diameter_px / ratio) + 8 if n > 1 else 0
        for n, ratio in zip(parts, task.scale.ratio, strict=True)
    )
    return z, y, x


def _block_shapes(task: Task, parts: tuple[int, int, int]) -> set[tuple[int, int, int]]:
    """Shapes of blocks with their halos: within the image and at its border."""
    edges = []
    for n, p, h in zip(_cut_shape(task), parts, _halo(task, parts), strict=True):
        edges.append({min(-(-n // p) + sides * h, n) for sides in ((0,) if p == 1 else (1,) if p == 2 else (1, 2))})
    return {(z, y, x) for z in edges[0] for y in edges[1] for x in edges[2]}


def _memory(task: Task, config: TileConfig, tile: int, block: tuple[int, int, int], *, keep: bool) -> float:
    """Peak bytes: what lives through the run, and the larger of the network's stage and the kernel's."""
    volume = task.mode == "planes"
    voxels, components = math.prod(block), 3 if volume else 2
    batch = _batch(task, tile)
    whole = task.n_times == 1 and volume and block == task.shape
    lasting = task.voxels * (4 if whole else 2)
    if not volume and block != _cut_shape(task):
        lasting += 4 * math.prod(task.shape[1:])  # blocks are put together in 32 bits
    outputs = 4 * (components + 1)
    margin = MARGIN if block == _cut_shape(task) else BLOCKED_MARGIN
    # A single plane's or volume's outputs are what is kept.
    if keep and not (task.n_times == 1 and (volume or task.shape[0] == 1)):
        lasting += task.voxels * outputs
    network = 0.0
    for orientation in ORIENTATIONS if volume else ORIENTATIONS[:1]:
        rows, columns = orientation.axes
        size = task.scale.network_size((block[rows], block[columns]), (rows, columns))
        border = border_of(orientation, config.border_px)
        grid = _grid(size, config, tile, border)
        area = grid.size[0] * grid.size[1]
        together = max(1, batch // area)
        planes = together if volume else 1
        canvas = math.prod(_with_border(size, border))
        stage = planes * canvas * (PLANE_BYTES if grid.n_tiles == 1 else TILED_BYTES)
        if size != (block[rows], block[columns]):
            stage += planes * (math.prod(size) * PLANE_BYTES + block[rows] * block[columns] * RESIZED_BYTES)
        network = max(network, stage + _tiles_bytes(task, area, min(planes * grid.n_tiles, together)))
    if volume:  # the outputs of all three orientations are summed in place
        return margin * (FIXED_BYTES + lasting + voxels * (4 + outputs + 4) + max(network, voxels * KERNEL_3D))
    # The outputs of a plane are part of the network's stage; then they are copied, and then masks are made of them.
    return margin * (FIXED_BYTES + lasting + voxels * 4 + max(network, voxels * (outputs + max(outputs, KERNEL_2D))))


def _tiles_bytes(task: Task, area: int, tiles: int) -> float:
    """Peak bytes of so many tiles that are predicted together."""
    side_by_side = min(WORKERS, tiles) if area <= PASS_PX else 1
    outputs = tiles * area * TILE_BYTES * (2 if side_by_side > 1 else 1)
    if task.on_gpu:
        return outputs
    in_a_pass = min(max(area, PASS_PX), tiles * area)
    # The fused kernels take one plane at a time, each worker.
    fused = task.architecture in NETWORKS and NETWORKS[task.architecture].separable
    busy = side_by_side * area if fused else in_a_pass
    return outputs + in_a_pass * PASS_BYTES + busy * cost_of(task.architecture).bytes_per_px


def _with_border(size: tuple[int, int], border: tuple[int, int]) -> tuple[int, int]:
    height, width = (-(-(n + 2 * b) // GRAIN) * GRAIN for n, b in zip(size, border, strict=True))
    return height, width


def _grid(size: tuple[int, int], config: TileConfig, tile: int, border: tuple[int, int]) -> TileGrid:
    return plan_tiles(*_with_border(size, border), tile_px=tile, overlap=config.overlap)


def _batch(task: Task, tile: int) -> int:
    # Small tiles run side by side, so a batch holds several.
    return GPU_BATCH_PX if task.on_gpu else min(BATCH_PX, max(tile * tile, PASS_PX))


def _finish(
    task: Task,
    config: TileConfig,
    tile: int,
    parts: tuple[int, int, int],
    memory: int,
    *,
    keep: bool,
    reduced: bool,
) -> Plan:
    blocks = cut_blocks(_cut_shape(task), parts=parts, halo=_halo(task, parts))
    volume = task.mode == "planes"
    n_tiles = pixels = voxels = 0
    for block in blocks:
        shape = block.outer_shape
        voxels += math.prod(shape)
        for orientation in ORIENTATIONS if volume else ORIENTATIONS[:1]:
            rows, columns = orientation.axes
            size = task.scale.network_size((shape[rows], shape[columns]), orientation.axes)
            grid = _grid(size, config, tile, border_of(orientation, config.border_px))
            n_planes = shape[orientation.stack] if volume else 1
            n_tiles += grid.n_tiles * n_planes
            pixels += grid.pixels * n_planes
    repeats = task.n_times * (1 if volume else task.shape[0])
    machine = speeds()
    masks = voxels * repeats * (machine.masks_s_per_voxel if volume else machine.masks_s_per_px)
    passes = 1 + len(MIRRORS) if config.augment else 1
    per_px = passes * cost_of(task.architecture).seconds_per_px + (machine.stack_s_per_px if volume else 0.0)
    per_repeat = len(blocks) * machine.pass_s
    if task.mode == "stitch":
        per_repeat += machine.stitch_s + machine.stitch_s_per_px * math.prod(task.shape[1:])
    seconds = repeats * (pixels * per_px + per_repeat) + masks
    return Plan(
        tile, _batch(task, tile), blocks, memory, keep, n_tiles * repeats, pixels * repeats, seconds, masks, reduced
    )
