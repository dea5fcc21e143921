"""Compare our masks with those of Cellpose 3.1.1 on the same fields, and the cost on both sides.

    python benchmarks/compare_masks.py --peer build/peer/bin/python [--data FOLDER] [--out FOLDER] [--images 8]

Fields: simulated labels in 2D and 3D; with --data (the folder of labelled zips) real labels, as many of each set as
--images says; all disturbed with smooth noise of several strengths; with --model too, the outputs of that network for
the images. With --outputs only a folder of .npz files (`flows`, `probability`). Volumes get flows as a 2D network gives
them on three planes.
Writes masks_agreement.txt and .json. Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from napari_aprcnn.bench.fields import disturbed_field, ellipsoids
from napari_aprcnn.bench.masks import agreement, run_worker
from napari_aprcnn.bench.table import BenchTable
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.segment.flows import flows_from_masks

SETS_2D = ("dsb2018_fluo_test", "bbbc039_test", "bitdepth_test")
SETS_3D = ("bbbc050_val", "gonuclear_mini_dev", "stardist_sample_3d")
NOISES = (0.5, 1.0, 2.0)
Field = tuple[NDArray[np.float32], NDArray[np.float32]]


def plane_flows(labels: NDArray[Any]) -> NDArray[np.float32]:
    """Flows of a volume as averaged over xy, zy and zx planes: each component from the two planes that hold it."""
    flows = np.zeros((3, *labels.shape), np.float32)
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        planes = np.moveaxis(labels, axis, 0)
        target = [np.moveaxis(flows[other], axis, 0) for other in others]
        for i, plane in enumerate(planes):
            two = flows_from_masks(plane)
            for part, flow in zip(target, two, strict=True):
                part[i] += flow / 2
    return flows


def disturbed_planes(labels: NDArray[Any], *, noise: float, seed: int) -> Field:
    """As `disturbed_field`, with the flows of `plane_flows`."""
    flows, probability = disturbed_field(np.zeros_like(labels), noise=noise, seed=seed)
    for flow, clean in zip(flows, plane_flows(labels), strict=True):
        flow += ndimage.gaussian_filter(5 * clean, 0.7)
    probability += 6 + ndimage.gaussian_filter(np.where(labels > 0, np.float32(6), np.float32(-6)), 1.0)
    return flows, probability


def simulated_fields() -> Iterator[tuple[str, Field]]:
    plane = ellipsoids((768, 768), 340, diameter=34, seed=1)
    small = ellipsoids((512, 512), 700, diameter=12, seed=2)
    volume = ellipsoids((40, 192, 192), 110, diameter=21, seed=3)
    for noise in NOISES:
        yield f"simulated 2D 34 px, noise {noise}", disturbed_field(plane, noise=noise, seed=1)
        yield f"simulated 2D 12 px, noise {noise}", disturbed_field(small, noise=noise, seed=2)
        yield f"simulated 3D 21 px, noise {noise}", disturbed_field(volume, noise=noise, seed=3)


def real_fields(data: Path, images: int) -> Iterator[tuple[str, Field]]:
    for name in (*SETS_2D, *SETS_3D):
        if not (data / f"{name}.zip").exists():
            continue
        with zipfile.ZipFile(data / f"{name}.zip") as archive:
            names = [entry["name"] for entry in json.loads(archive.read("index.json"))]
            wanted = images if name in SETS_2D else min(images, 2)
            chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, wanted).astype(int))]
            for k, item in enumerate(chosen):
                labels = tifffile.imread(io.BytesIO(archive.read(f"labels/{item}.tif")))
                noise = NOISES[k % len(NOISES)]
                make = disturbed_field if labels.ndim == 2 else disturbed_planes
                yield f"{name}, noise {noise}", make(labels, noise=noise, seed=k)


def network_fields(model: str, data: Path, images: int) -> Iterator[tuple[str, Field]]:
    """Outputs of a network for real images, percentiles 1 and 99 normalised, at their own scale."""
    network = load_model(model, device="cpu")
    for name in SETS_2D:
        with zipfile.ZipFile(data / f"{name}.zip") as archive:
            names = [entry["name"] for entry in json.loads(archive.read("index.json"))]
            for item in [names[i] for i in np.unique(np.linspace(0, len(names) - 1, images).astype(int))]:
                image = tifffile.imread(io.BytesIO(archive.read(f"images/{item}.tif"))).astype(np.float32)
                image = image if image.ndim == 2 else image[..., :3].mean(-1)
                low, high = np.percentile(image, (1, 99))
                out = network.predict(((image - low) / max(high - low, 1e-6))[None])[0]
                yield f"network on {name}", (out[:2], out[2])
    with zipfile.ZipFile(data / f"{SETS_3D[-1]}.zip") as archive:
        name = json.loads(archive.read("index.json"))[0]["name"]
        volume = tifffile.imread(io.BytesIO(archive.read(f"images/{name}.tif"))).astype(np.float32)
    low, high = np.percentile(volume, (1, 99))
    volume = (volume - low) / max(high - low, 1e-6)
    flows, probability = np.zeros((3, *volume.shape), np.float32), np.zeros(volume.shape, np.float32)
    for axis in range(3):
        out = np.stack([network.predict(plane[None])[0] for plane in np.moveaxis(volume, axis, 0)])
        others = [other for other in range(3) if other != axis]
        for k, other in enumerate(others):
            flows[other] += np.moveaxis(out[:, k], 0, axis) / 2
        probability += np.moveaxis(out[:, 2], 0, axis) / 3
    yield f"network on {SETS_3D[-1]}", (flows, probability)


def output_fields(folder: Path) -> Iterator[tuple[str, Field]]:
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as field:
            yield f"network: {path.stem.split('-')[0]}", (field["flows"], field["probability"])


def compare(fields: Iterator[tuple[str, Field]], peer: Path, threads: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Run both sides on all fields; one record a field."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        titles, paths = [], []
        for i, (title, (flows, probability)) in enumerate(fields):
            titles.append(title)
            paths.append(folder / f"{i:04d}.npz")
            np.savez(paths[-1], flows=flows, probability=probability)
        print(f"{len(paths)} fields; ours", file=sys.stderr)
        ours = run_worker(sys.executable, "ours", paths, folder / "ours", threads=threads)
        print("cellpose", file=sys.stderr)
        theirs = run_worker(peer, "cellpose", paths, folder / "theirs", threads=threads)
        records = []
        for title, path in zip(titles, paths, strict=True):
            a, b = (np.load(folder / who / f"{path.stem}.npy") for who in ("ours", "theirs"))
            n, n_theirs, iou = agreement(a, b)
            mine, other = ours["fields"][path.stem], theirs["fields"][path.stem]
            costs = {
                f"{key}_{who}": side[key]
                for who, side in (("ours", mine), ("theirs", other))
                for key in ("wall_s", "cpu_s", "peak_bytes")
            }
            records.append(
                {
                    "title": title,
                    "n": n,
                    "n_theirs": n_theirs,
                    "iou": iou,
                    "equal": float(np.mean((a > 0) == (b > 0))),
                    **costs,
                }
            )
        return records, [ours["version"], theirs["version"]]


def as_table(records: list[dict[str, Any]], versions: list[str]) -> tuple[BenchTable, bool]:
    titles = list(dict.fromkeys(record["title"] for record in records))
    rows = []
    for title in [*titles, "all"]:
        group = [record for record in records if title in {record["title"], "all"}]
        n, theirs = (sum(record[key] for record in group) for key in ("n", "n_theirs"))
        weight = np.array([max(record["n_theirs"], 1) for record in group])
        iou = float(np.average([record["iou"] for record in group], weights=weight))
        costs = [sum(record[key] for record in group) for key in ("cpu_s_ours", "cpu_s_theirs")]
        change = 100 * (n - theirs) / max(theirs, 1)
        rows.append((title, len(group), n, theirs, f"{change:+.2f}", f"{iou:.4f}", *costs, costs[1] / costs[0]))
    peaks = [max(record[f"peak_bytes_{who}"] for record in records) / 2**20 for who in ("ours", "theirs")]
    good = abs(float(rows[-1][4])) <= 0.5 and float(rows[-1][5]) >= 0.98
    return BenchTable(
        title="The same masks as Cellpose?",
        columns=("fields", "images", "ours", "theirs", "count %", "IoU", "CPU s ours", "CPU s theirs", "x CPU"),
        rows=tuple(rows),
        notes=(
            "IoU: mean over matched objects. Goals: count within 0.5 %, IoU at least 0.98: "
            + ("met" if good else "NO"),
            f"{versions[0]}; {versions[1]}",
            f"peak memory of the processes: {peaks[0]:.0f} and {peaks[1]:.0f} MiB",
        ),
    ), good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="Python with cellpose 3.1.1")
    parser.add_argument("--data", type=Path, help="folder of the labelled zips")
    parser.add_argument("--model", help="with --data: name or file of a network whose outputs are compared too")
    parser.add_argument("--outputs", type=Path, help="folder of .npz files with network outputs")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--images", type=int, default=6, help="images of each 2D set (at most 2 of each 3D set)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    def fields() -> Iterator[tuple[str, Field]]:
        if options.outputs:
            yield from output_fields(options.outputs)
            return
        yield from simulated_fields()
        if options.data:
            yield from real_fields(options.data, options.images)
            if options.model:
                yield from network_fields(options.model, options.data, options.images)

    table, good = as_table(*compare(fields(), options.peer, options.threads))
    print(table.text())
    table.write(options.out, "masks_agreement")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
