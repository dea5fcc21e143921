"""The whole job: where the time of a run goes, what tiles cost, and the memory estimate beside the measured peak."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_aprcnn.bench.table import BenchTable, Cell
from napari_aprcnn.config import SegmentConfig, TileConfig
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.write import write_labels
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.segment.readout import Readout

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["measured_apart", "nuclei", "table"]

ALLOWED = 0.3
STAGES = ("read", "normalise", "diameter", "network", "masks")
_MEASURE_MEMORY = """
import json, sys
import numpy as np
from napari_aprcnn.bench.pipeline import nuclei
from napari_aprcnn.segment.estimate import estimate
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.config import SegmentConfig
request = json.loads(sys.argv[1])
# A small run first: what torch sets up once is not the run's. The image is made before the run and is not its either.
segment(nuclei((16, 64, 64)[-len(request["shape"]) :]), config=SegmentConfig(**request["config"]))
image = nuclei(tuple(request["shape"]))
config = SegmentConfig(**request["config"])
readout = segment(image, config=config).readout
# The dock knows the PRR before a run, too.
expected = estimate(image.shape, image.dtype, config, prr=readout.prr or None).memory_bytes
print(json.dumps({"added": readout.memory_added_bytes, "estimate": expected}))
"""


def nuclei(shape: tuple[int, ...], *, diameter_px: float = 25.0, seed: int = 0) -> NDArray[np.uint16]:
    """Draw an image of soft balls on a jittered grid, with camera noise.

    Parameters
    ----------
    shape
        (Y, X) or (Z, Y, X).
    diameter_px
        Diameter of the balls.
    seed
        Of positions, sizes and noise.

    Returns
    -------
    uint16 array
    """
    rng = np.random.default_rng(seed)
    image = rng.normal(200.0, 12.0, shape).astype(np.float32)
    axes = [np.arange(0.6 * diameter_px, n, 1.5 * diameter_px) for n in shape]
    for place in np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)):
        centre = place + rng.uniform(-0.2, 0.2, len(shape)) * diameter_px
        radius = 0.5 * diameter_px * rng.uniform(0.75, 1.2)
        parts = [
            slice(max(int(c - radius) - 4, 0), min(int(c + radius) + 5, n)) for c, n in zip(centre, shape, strict=True)
        ]
        grids = np.meshgrid(*(np.arange(p.start, p.stop) for p in parts), indexing="ij", sparse=True)
        squares: Any = sum((grid - c) ** 2 for grid, c in zip(grids, centre, strict=True))
        image[tuple(parts)] += rng.uniform(600, 2000) / (1 + np.exp((np.sqrt(squares) - radius) / 1.2))
    return np.clip(image, 0, 65535).astype(np.uint16)


def table(*, threads: int = 2, quick: bool = False) -> Iterator[BenchTable]:
    """Measure stages, tiles and memory.

    Parameters
    ----------
    threads
        Threads of torch and of the kernels.
    quick
        Small images, one repeat.
    """
    yield _stages(threads, quick=quick)
    yield _tiles(threads, quick=quick)
    yield _memory(threads, quick=quick)


def _stages(threads: int, *, quick: bool) -> BenchTable:
    edge, depth, repeats = (256, 16, 1) if quick else (1024, 64, 5)
    rows: list[tuple[Cell, ...]] = []
    for name, shape, given in (
        (f"2D {edge}^2, diameter given", (edge, edge), 25.0),
        (f"2D {edge}^2, diameter estimated", (edge, edge), None),
        (f"3D {depth} x {edge // 4}^2, three planes", (depth, edge // 4, edge // 4), 25.0),
    ):
        image = nuclei(shape)
        times, readouts = zip(
            *(_file_to_file(image, given, threads) for _ in range(repeats if len(shape) == 2 else 1)), strict=True
        )
        middle = readouts[times.index(statistics.median_low(times))]
        stages = [middle.stages.get(stage, 0.0) for stage in STAGES]
        rows.append(
            (
                name,
                middle.n_objects,
                statistics.median_low(times),
                middle.seconds,
                *stages,
                sum(stages) / middle.seconds,
            )
        )
    return BenchTable(
        title="From TIFF to label TIFF, warm process, fastercellpose-v3",
        columns=("image", "nuclei", "file to file s", "run s", *(f"{stage} s" for stage in STAGES), "share in stages"),
        rows=tuple(rows),
        notes=(f"{threads} threads; median of {repeats} in 2D, once in 3D; the network is loaded in each run",),
    )


def _file_to_file(image: NDArray[np.uint16], diameter_px: float | None, threads: int) -> tuple[float, Readout]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tifffile.imwrite(folder / "image.tif", image)
        segment(image[..., :64, :64], diameter_px=25.0, threads=threads)  # warm
        start = time.perf_counter()
        source = open_image(folder / "image.tif")
        result = segment(source.data, diameter_px=diameter_px, threads=threads)
        write_labels(result.labels, folder / "labels.tif", axes=result.axes)
        return time.perf_counter() - start, result.readout


def _tiles(threads: int, *, quick: bool) -> BenchTable:
    image = nuclei((400, 400) if quick else (2048, 2048))
    network = load_model("fastercellpose-v3", device="cpu", threads=threads)
    rows: list[tuple[Cell, ...]] = []
    whole: NDArray[Any] | None = None
    for tile_px in (2048, 1024, 512, 256):
        result = segment(image, model=network, diameter_px=25.0, threads=threads, tiles=TileConfig(tile_px=tile_px))
        whole = result.labels if whole is None else whole
        same = float(np.mean((whole > 0) == (result.labels > 0)))
        readout = result.readout
        rows.append(
            (
                tile_px,
                readout.n_tiles,
                readout.stages["network"],
                readout.memory_added_bytes / 1e6,
                readout.n_objects,
                same,
            )
        )
    return BenchTable(
        title=f"Tiles, {image.shape[0]}^2, fastercellpose-v3",
        columns=("largest tile px", "tiles", "network s", "added MB", "nuclei", "pixels alike"),
        rows=tuple(rows),
        notes=(f"{threads} threads; alike: nucleus or background as with the largest tile",),
    )


def _memory(threads: int, *, quick: bool) -> BenchTable:
    # No diameter given here means 25 px, so that nothing is resized; networks for volumes do not look at it.
    cases: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
        ("2D, 512^2", (512, 512), {}),
        ("3D, 32 x 160^2", (32, 160, 160), {}),
    ]
    if not quick:
        stack = (64, 256, 256)
        cases = [
            ("2D, 1024^2", (1024, 1024), {}),
            ("2D, 1024^2, fastercellpose-v1", (1024, 1024), {"model": "fastercellpose-v1"}),
            ("2D, 1024^2, fastcellpose", (1024, 1024), {"model": "fastcellpose"}),
            ("2D, 1024^2, enlarged twice", (1024, 1024), {"diameter_px": 12.5}),
            ("2D, 4096^2", (4096, 4096), {}),
            ("2D, 4096^2, tiles of 512", (4096, 4096), {"tiles": {"tile_px": 512}}),
            ("2D, 4096^2, budget 0.3 GB", (4096, 4096), {"tiles": {"memory_gb": 0.3}}),
            ("3D, 64 x 256^2", stack, {}),
            ("3D, 64 x 256^2, labels only", stack, {"keep_flows": False}),
            ("3D, 64 x 256^2, stitched", stack, {"dimensionality": "stitch"}),
            ("3D, 64 x 256^2, fastcellpose", stack, {"model": "fastcellpose"}),
            ("3D, 64 x 512^2, budget 0.5 GB", (64, 512, 512), {"tiles": {"memory_gb": 0.5}}),
            *(
                (f"3D, {words}{model}{more}", shape, {"model": model, **settings})
                for words, shape, model in (
                    ("64 x 256^2, ", stack, "apr-unet-nuclei-3d"),
                    ("96 x 320^2, ", (96, 320, 320), "apr-unet-nuclei-3d"),
                    ("64 x 256^2, ", stack, "apr-stardist-nuclei-3d"),
                )
                for more, settings in (("", {}), (", bfloat16", {"precision": "bfloat16"}))
            ),
            (
                "3D, 64 x 256^2, apr-unet-nuclei-3d on voxels",
                stack,
                {"model": "apr-unet-nuclei-3d", "volume": {"particle_stages": 0}},
            ),
        ]
    rows: list[tuple[Cell, ...]] = []
    for name, shape, config in cases:
        settings = SegmentConfig(**{"diameter_px": 25.0, "threads": threads, "device": "cpu", **config})
        added, expected = measured_apart(shape, settings)
        rows.append((name, expected / 1e6, added / 1e6, expected / added, abs(expected / added - 1) <= ALLOWED))
    return BenchTable(
        title="Memory estimate beside the measured peak, fastercellpose-v3 where no other is named",
        columns=("image", "estimate MB", "measured MB", "estimate / measured", f"within {ALLOWED:.0%}"),
        rows=tuple(rows),
        notes=(
            "each in a process of its own; measured: resident memory above that before the run, sampled every 20 ms",
            f"{threads} threads",
        ),
    )


def measured_apart(shape: tuple[int, ...], config: SegmentConfig) -> tuple[float, float]:
    """Bytes that a run on `nuclei` adds, in a process of its own, and bytes that were expected."""
    import json

    request = json.dumps({"shape": shape, "config": json.loads(config.to_json())})
    done = subprocess.run(  # noqa: S603 - our own interpreter and our own text
        [sys.executable, "-c", _MEASURE_MEMORY, request],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    figures = json.loads(done.stdout)
    return float(max(figures["added"], 1)), float(figures["estimate"])
