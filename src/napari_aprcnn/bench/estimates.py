"""What the Segment dock predicts after this machine was measured, beside what the runs then take."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tifffile

from napari_aprcnn.bench.table import BenchTable
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.io.samples import sample_path
from napari_aprcnn.segment import plan, volume_run
from napari_aprcnn.segment.calibrate import calibrate, made_up_nuclei
from napari_aprcnn.segment.estimate import estimate
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.segment.speeds import forget_speeds, save_speeds

if TYPE_CHECKING:
    from napari_aprcnn.segment.speeds import MachineSpeeds

__all__ = ["table"]

ALLOWED = 0.3


@dataclass(frozen=True)
class _Case:
    name: str
    image: Any
    config: dict[str, Any] = field(default_factory=dict)


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Keep the user's own calibration as it is."""
    before = os.environ.get("APRCNN_CONFIG_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["APRCNN_CONFIG_DIR"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["APRCNN_CONFIG_DIR"]
            else:
                os.environ["APRCNN_CONFIG_DIR"] = before
            forget_speeds()


def _cases(*, quick: bool) -> list[_Case]:
    u2os, ovule = (tifffile.imread(sample_path(name)) for name in ("u2os", "ovule-3d"))
    cases = [
        _Case("u2os, diameter looked for", u2os),
        _Case("made-up 700 x 900", made_up_nuclei((700, 900)), {"diameter_px": 25.0}),
        _Case("ovule 100^3, three planes", ovule, {"diameter_px": 20.0, "dimensionality": "planes"}),
        _Case("ovule 100^3, network for volumes", ovule, {"model": "apr-unet-nuclei-3d"}),
    ]
    if quick:
        return cases[:2]
    return [
        *cases,
        _Case("made-up 2048^2", made_up_nuclei((2048, 2048)), {"diameter_px": 25.0}),
        _Case("made-up 2048^2, small nuclei", made_up_nuclei((2048, 2048), diameter_px=15.0), {"diameter_px": 15.0}),
        _Case("made-up 1024^2, fastercellpose-v1", made_up_nuclei((1024, 1024)), {"model": "fastercellpose-v1"}),
        _Case("made-up 32 x 256 x 256, three planes", made_up_nuclei((32, 256, 256)), {"diameter_px": 25.0}),
        _Case("ovule 100^3, stitched", ovule, {"diameter_px": 20.0, "dimensionality": "stitch"}),
    ]


def _row(case: _Case, *, threads: int, repeats: int) -> tuple[Any, ...]:
    options = {"model": "fastercellpose-v3", **case.config}
    config = SegmentConfig(threads=threads, device="cpu", **options)
    segment(case.image, config=config)  # load the network
    # What runs here took goes before the calibration, which is what is looked at.
    plan._MEASURED.clear()
    volume_run._PACE.clear()
    prr = None
    predicted = estimate(case.image.shape, case.image.dtype, config)
    runs = [segment(case.image, config=config).readout for _ in range(repeats)]
    if runs[0].prr:
        prr = runs[0].prr  # the dock shows it live
        plan._MEASURED.clear()
        volume_run._PACE.clear()
        predicted = estimate(case.image.shape, case.image.dtype, config, prr=prr)
    took = min(run.seconds for run in runs)
    seconds = predicted.seconds or 0.0
    return case.name, seconds, took, seconds / took, abs(seconds / took - 1) <= ALLOWED


def table(*, threads: int = 2, quick: bool = False) -> BenchTable:
    """Measure this machine, then compare predicted with real times.

    Parameters
    ----------
    threads
        Threads of both.
    quick
        Two images only.
    """
    with _elsewhere():
        measured: MachineSpeeds = calibrate(threads=threads)
        save_speeds(measured)
        rows = tuple(_row(case, threads=threads, repeats=2 if quick else 3) for case in _cases(quick=quick))
    busy = ("other programs were busy while the machine was measured",) if measured.busy else ()
    return BenchTable(
        title="Predicted and real time of runs, after measuring this machine",
        columns=("run", "predicted s", "took s", "predicted / took", f"within {ALLOWED:.0%}"),
        rows=rows,
        notes=(f"measuring took {measured.seconds:.0f} s", "took: the shortest of 3 runs after one", *busy),
    )
