"""U-Nets on particles beside the same U-Net on voxels: time and memory of inference and of a training step.

APR-CNN, section 6. Every figure comes from a process of its own.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from napari_aprcnn.bench.table import BenchTable
from napari_aprcnn.bench.worker import run_worker
from napari_aprcnn.models.forms import choose_form
from napari_aprcnn.models.volume_config import VolumeNetConfig, receptive_radius

__all__ = ["break_even", "table", "tiles_of"]

WORKER = "napari_aprcnn.bench.unet_worker"
TIMEOUT_S = 1800
PRR = (2.0, 6.0, 20.0, 54.0)
GOALS = {6.0: 4.0, 20.0: 12.0, 54.0: 25.0}
TILE_BUDGET = 20e9
CHANNELS, DEPTH = 16, 3
MODEL = "apr-unet-nuclei-3d"
FROM_FILE = ("read", "network", "masks", "write")


def _run(threads: int, form: int | None, *, keeps: bool = True, **order: Any) -> dict[str, Any]:
    network = {"channels": CHANNELS, "depth": DEPTH, "filter_banks": 3, "particle_stages": form}
    wanted = {"network": network, "threads": threads, **order}
    found: dict[str, Any] = run_worker(WORKER, wanted, threads=threads, keeps=keeps, timeout_s=TIMEOUT_S)
    return found


def break_even(points: list[tuple[float, float]]) -> float:
    """PRR at which the speed-up is one, from (PRR, speed-up) in order; lines between them in logarithms."""
    for (low, slow), (high, fast) in pairwise(points):
        if slow < 1 <= fast:
            share = -math.log(slow) / (math.log(fast) - math.log(slow))
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    # The first two points tell the slope outside.
    (low, slow), (high, fast) = points[:2]
    slope = (math.log(fast) - math.log(slow)) / (math.log(high) - math.log(low))
    return math.exp(math.log(low) - math.log(slow) / slope)


def tiles_of(edge: int, tile: int, halo: int) -> int:
    """Tiles of a cube: each gives its middle, without the halo."""
    if tile >= edge:
        return 1
    return math.ceil(edge / (tile - 2 * halo)) ** 3


def _inference(threads: int, edge: int, repeats: int) -> tuple[BenchTable, dict[str, Any], list[dict[str, Any]]]:
    # Its gigabytes are fresh pages for two passes; the best of more is what its arithmetic takes.
    pixel = _run(threads, 0, edge=edge, prr=1.0, repeats=repeats + 2, index=False)
    lean = _run(threads, 0, edge=edge, prr=1.0, repeats=1, index=False, once=True, keeps=False)
    rows: list[tuple[Any, ...]] = [
        ("pixel", 1.0, pixel["forward_s"], None, None, None, None, lean["peak_bytes"] / 1e9, None)
    ]
    found: list[dict[str, Any]] = []
    kinds: list[tuple[int | None, bool]] = [(None, False), (None, True), (1, False), (2, False), (3, False)]
    for (form, half), wanted in [(kind, prr) for kind in kinds for prr in PRR]:
        one = _run(threads, form, edge=edge, prr=wanted, repeats=repeats, half=half)
        small = _run(threads, form, edge=edge, prr=wanted, repeats=1, index=False, once=True, keeps=False, half=half)
        speed = pixel["forward_s"] / one["forward_s"]
        goal = GOALS.get(wanted) if form is None else None
        memory = lean["peak_bytes"] / small["peak_bytes"]
        met = None if goal is None else speed >= goal
        name = one["form"] + (", bfloat16" if half else "")
        rows.append((name, round(one["prr"], 1), one["forward_s"], one["first_s"], speed, goal, met,
                     small["peak_bytes"] / 1e9, memory))  # fmt: skip
        found.append({**one, "form": name, "speed": speed, "wanted": wanted, "small_bytes": small["peak_bytes"]})
    apr = [(one["prr"], one["speed"]) for one in found if one["form"] == "apr"]
    at_20 = {row[0]: row[8] for row in rows if row[0].startswith("apr") and abs(row[1] - 20) < 1}
    notes = (
        f"depth {DEPTH}, C = {CHANNELS}, 3 outputs, {threads} threads, float32, {edge}^3 voxels, best of {repeats}; "
        "pixel: channels_last_3d, inference_mode; particles: with the reconstruction, tables built in the first pass",
        f"break-even at PRR {break_even(apr):.2f} (goal 1.5; the paper on a GPU: 20)",
        "memory: peak of one pass beyond the process before, index tables counted, as the system gives it; at PRR 20 "
        f"1 / {at_20['apr']:.1f}, features in bfloat16 1 / {at_20['apr, bfloat16']:.1f} (goal 1/20)",
    )
    columns = ("form", "PRR", "s", "first s", "speed-up", "goal", "met", "GB", "pixel GB / GB")
    made = BenchTable(title="U-Net, inference", columns=columns, rows=tuple(rows), notes=notes)
    return made, {**pixel, "small_bytes": lean["peak_bytes"]}, found


def _choice(pixel: dict[str, Any], found: list[dict[str, Any]], edge: int) -> BenchTable:
    """What the automatic choice of the form costs against the best form."""
    rows = []
    for wanted in PRR:
        alike = [one for one in found if one["wanted"] == wanted and "," not in one["form"]]
        each = {one["form"]: one["forward_s"] for one in alike} | {"pixel": pixel["forward_s"]}
        best = min(each, key=lambda name: each[name])
        config = VolumeNetConfig(channels=CHANNELS, depth=DEPTH)
        prr, counts = next((one["prr"], one["rows"]) for one in found if one["wanted"] == wanted)
        chosen = config.replace(particle_stages=choose_form(config, (edge,) * 3, counts)).form
        loss = each[chosen] / each[best]
        rows.append((round(prr, 1), *(each[n] for n in ("pixel", "apr", "hybrid1", "hybrid2", "hybrid3")), best, chosen,
                     loss, loss <= 1.1))  # fmt: skip
    columns = (
        "PRR",
        "pixel s",
        "apr s",
        "hybrid1 s",
        "hybrid2 s",
        "hybrid3 s",
        "best",
        "chosen",
        "/ best",
        "met (<= 1.1)",
    )
    return BenchTable(title="U-Net, which form", columns=columns, rows=tuple(rows))


def _training(threads: int, edge: int, repeats: int) -> BenchTable:
    pixel = _run(threads, 0, edge=edge, prr=1.0, repeats=repeats, training=True, index=False)
    whole = pixel["forward_s"] + pixel["backward_s"]
    rows: list[tuple[Any, ...]] = [
        ("pixel", 1.0, pixel["forward_s"], pixel["backward_s"], pixel["backward_s"] / pixel["forward_s"], None, None,
         pixel["peak_bytes"] / 1e9)
    ]  # fmt: skip
    points = []
    for wanted in PRR:
        one = _run(threads, None, edge=edge, prr=wanted, repeats=repeats, training=True)
        speed = whole / (one["forward_s"] + one["backward_s"])
        ratio = one["backward_s"] / one["forward_s"]
        points.append((one["prr"], speed))
        rows.append(("apr", round(one["prr"], 1), one["forward_s"], one["backward_s"], ratio, ratio <= 2.2, speed,
                     one["peak_bytes"] / 1e9))  # fmt: skip
    columns = ("form", "PRR", "forward s", "backward s", "/ forward", "met (<= 2.2)", "speed-up", "GB")
    notes = (f"{edge}^3 voxels; break-even at PRR {break_even(points):.2f} (goal 2)",)
    return BenchTable(title="U-Net, one training step", columns=columns, rows=tuple(rows), notes=notes)


def _large(threads: int, edge: int, pixel: dict[str, Any]) -> BenchTable:
    """A large volume whole, against voxels in tiles."""
    halo = receptive_radius(VolumeNetConfig(depth=DEPTH))
    per_voxel = pixel["small_bytes"] / pixel["edge"] ** 3
    tile = min(edge, int((TILE_BUDGET / per_voxel) ** (1 / 3)) // 8 * 8)
    number = tiles_of(edge, tile, halo)
    seconds = number * pixel["forward_s"] * (tile / pixel["edge"]) ** 3
    rows = []
    for half in (False, True):
        one = _run(threads, None, edge=edge, prr=20.0, repeats=1, index=False, once=True, keeps=False, half=half)
        rows.append((f"{edge}^3", "bfloat16" if half else "float32", round(one["prr"], 1), one["first_s"],
                     one["peak_bytes"] / 1e9, tile, number, seconds, seconds / one["first_s"],
                     seconds / one["first_s"] >= 15))  # fmt: skip
    columns = ("volume", "features", "PRR", "apr s", "GB", "tile", "tiles", "pixel s", "speed-up", "met (>= 15)")
    notes = (
        f"pixel: tiles that fit {TILE_BUDGET / 1e9:.0f} GB with a halo of {halo} voxels, at the speed of the "
        f"{pixel['edge']}^3 volume of the first table; apr: whole, one pass that builds its index "
        "tables, which are counted, memory as the system gives it",
    )
    return BenchTable(title="U-Net on a large volume", columns=columns, rows=tuple(rows), notes=notes)


def _whole(threads: int, edge: int) -> BenchTable:
    """The shipped model, from a file on the disk to a file of labels."""
    nuclei = round(90 * (edge / 256) ** 3) + 1
    one = run_worker(WORKER, {"threads": threads, "edge": edge, "nuclei": nuclei, "model": MODEL},
                     threads=threads, keeps=False, timeout_s=TIMEOUT_S)  # fmt: skip
    rows = ((f"{edge}^3", round(one["prr"], 1), *(one[name] for name in FROM_FILE), one["objects"], nuclei,
             one["seconds"], 10.0, one["seconds"] <= 10),)  # fmt: skip
    columns = ("volume", "PRR", *(f"{name} s" for name in FROM_FILE), "objects", "simulated", "all s", "goal", "met")
    notes = (
        f"{MODEL}, simulated nuclei in an uncompressed TIFF, first run of a process; network: with conversion and "
        "reconstruction; all: with reading, the model's weights and writing labels",
    )
    return BenchTable(title="U-Net, from TIFF to labels", columns=columns, rows=rows, notes=notes)


def table(threads: int = 2, *, quick: bool = False) -> list[BenchTable]:
    """Measure inference, forms, a training step, a large volume and the whole job."""
    edge, repeats = (64, 1) if quick else (256, 2)
    inference, pixel, found = _inference(threads, edge, repeats)
    return [
        inference,
        _choice(pixel, found, edge),
        _training(threads, 32 if quick else 128, repeats),
        _large(threads, 128 if quick else 512, pixel),
        _whole(threads, edge),
    ]
