"""What a user waits for before anything happens: imports, ``aprcnn --help``, and a small image from file to file."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.bench.table import BenchTable, Cell
from napari_aprcnn.errors import ModelNotFoundError

__all__ = ["table"]

# (what, arguments of Python, goal in seconds)
_COMMANDS: tuple[tuple[str, tuple[str, ...], float | None], ...] = (
    ("python, nothing imported", ("-c", "pass"), None),
    ("import napari_aprcnn", ("-c", "import napari_aprcnn"), 1.5),
    ("import torch", ("-c", "import torch"), None),
    ("import napari_aprcnn; segment is ready", ("-c", "import napari_aprcnn; napari_aprcnn.segment"), None),
    ("aprcnn --help", ("-m", "napari_aprcnn.cli", "--help"), 0.5),
    ("aprcnn segment --help", ("-m", "napari_aprcnn.cli", "segment", "--help"), 0.5),
)
_FILE_TO_FILE_GOAL_S = 1.0
_EDGE_PX = 1024


def table(*, threads: int = 2, quick: bool = False) -> BenchTable:
    """Measure start-up in fresh processes, and a 2D image from file to label file in a warm one.

    Parameters
    ----------
    threads
        Threads of the segmentation.
    quick
        Fewer repeats.

    Returns
    -------
    BenchTable
        Best and median wall time in seconds, and the goal where there is one.
    """
    repeats = 2 if quick else 7
    rows: list[tuple[Cell, ...]] = []
    for what, arguments, goal in _COMMANDS:
        # The first run fills the disk cache and is not counted.
        times = [_process_s(arguments) for _ in range(repeats + 1)][1:]
        rows.append((what, min(times), statistics.median(times), goal, None if goal is None else min(times) < goal))
    notes = [f"best and median of {repeats} fresh processes, warm disk cache"]
    try:
        times = _file_to_file(repeats=repeats, threads=threads)
    except ModelNotFoundError as error:
        notes.append(f"file to label file was left out: {error}")
    else:
        what = f"{_EDGE_PX} x {_EDGE_PX} TIFF to label TIFF, warm process, {threads} threads"
        goal = _FILE_TO_FILE_GOAL_S
        rows.append((what, min(times), statistics.median(times), goal, min(times) < goal))
        notes.append("file to file: opened, diameter estimated, segmented, labels written, by the default model")
    return BenchTable(
        title="Start-up",
        columns=("what", "best s", "median s", "goal s", "reached"),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _process_s(arguments: tuple[str, ...]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own
    return time.perf_counter() - started


def _file_to_file(*, repeats: int, threads: int) -> list[float]:
    """Time an image from its file to its label file, after one run that loads everything."""
    from napari_aprcnn.config import AxisMapping
    from napari_aprcnn.io.read import open_image
    from napari_aprcnn.io.write import write_image, write_labels
    from napari_aprcnn.segment.pipeline import segment

    times = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_image(_nuclei(), folder / "image.tif", axes="YX", spacing_um=(0.5, 0.5, 0.5))
        for _ in range(repeats + 1):
            started = time.perf_counter()
            source = open_image(folder / "image.tif")
            result = segment(
                source.data,
                axes=AxisMapping(order=source.axes),
                spacing_um=source.spacing_um,
                threads=threads,
                keep_flows=False,
            )
            write_labels(
                result.labels, folder / "labels.tif", axes=source.axes, spacing_um=source.spacing_um, overwrite=True
            )
            times.append(time.perf_counter() - started)
    return times[1:]


def _nuclei() -> NDArray[np.uint16]:
    """A field of about 600 bright disks with noise, 25 px across."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:_EDGE_PX, :_EDGE_PX].astype(np.float32)
    pitch = 42
    rows, columns = np.rint(y / pitch), np.rint(x / pitch)
    jitter = rng.uniform(-7, 7, (2, int(rows.max()) + 1, int(columns.max()) + 1)).astype(np.float32)
    cell = rows.astype(int), columns.astype(int)
    distance = np.hypot(y - rows * pitch - jitter[0][cell], x - columns * pitch - jitter[1][cell])
    image = 200 + 2000 / (1 + np.exp((distance - 12.5) / 1.2)) + rng.normal(0, 40, distance.shape)
    pixels: NDArray[np.uint16] = image.clip(0, 65535).astype(np.uint16)
    return pixels
