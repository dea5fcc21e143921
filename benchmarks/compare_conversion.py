"""Compare our conversion with pyapr 1.0.7: particles, values, time and memory.

    python benchmarks/compare_conversion.py --peer build/pyapr/bin/python [--data FOLDER] [--out FOLDER] [--only WORD]
        [--edge 512]

The peer's Python comes from benchmarks/pyapr_environment.sh. Images: a simulated volume of 192 x 256 x 256 (time), one
of --edge cubed (memory; each side in a process of its own), and with --data every image of the folder of labelled zips,
with automatic and with given thresholds. Both sides use all cores of the process. Our rows of particles are made
outside the clock. Writes conversion_agreement.json and .txt. Exit code 1 if a goal is missed: 99.9 % equal voxels in
every image, 0.1 % of the particles, no more time, half the memory. What mode strict costs is reported.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

WORKER = Path(__file__).with_name("conversion_worker.py")
AUTO = {"rel_error": 0.1, "auto_parameters": True}


def nuclei(shape: tuple[int, ...], count: int, seed: int = 0) -> NDArray[np.uint16]:
    """Blurred balls over a background of 100, with the noise of counted photons."""
    random = np.random.default_rng(seed)
    image = np.full(shape, 100, np.float32)
    for _ in range(count):
        centre, radius = [random.uniform(0, n) for n in shape], random.uniform(6, 12)
        box = tuple(
            slice(max(0, int(c - radius - 4)), min(n, int(c + radius + 5))) for c, n in zip(centre, shape, strict=True)
        )
        at = np.ogrid[box]
        distance = np.sqrt(sum((a - c) ** 2 for a, c in zip(at, centre, strict=True)))
        image[box] += random.uniform(200, 2000) / (1 + np.exp((distance - radius) * 1.5))
    image += random.normal(size=shape).astype(np.float32) * np.sqrt(image)
    return np.clip(image, 0, 65535).astype(np.uint16)


def given(image: NDArray[Any]) -> dict[str, Any]:
    """Thresholds as a user would set them, from the image's percentiles."""
    low, high = (float(v) for v in np.percentile(image, (20, 99.8)))
    span = max(high - low, 1.0)
    return {
        "rel_error": 0.1,
        "auto_parameters": False,
        "Ip_th": low,
        "sigma_th": round(0.1 * span, 2),
        "grad_th": round(0.01 * span, 3),
    }


def images_of(archive: Path) -> Iterator[NDArray[Any]]:
    with zipfile.ZipFile(archive) as opened:
        for name in sorted(opened.namelist()):
            if name.startswith("images/") and name.endswith(".tif"):
                image = tifffile.imread(io.BytesIO(opened.read(name)))
                yield np.ascontiguousarray(image, image.dtype.newbyteorder("="))


def convert(folder: Path, peer: str, jobs: list[dict[str, Any]], makers: tuple[str, ...]) -> dict[str, list[Any]]:
    """Run the jobs with each maker in a process of its own."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    results = {}
    for maker in makers:
        python = peer if maker == "pyapr" else sys.executable
        subprocess.run([python, str(WORKER), str(folder), maker], check=True, stdout=subprocess.DEVNULL)
        results[maker] = json.loads((folder / f"result_{maker}.json").read_text())
    return results


def agreement(folder: Path, peer: str, images: list[NDArray[Any]]) -> list[dict[str, Any]]:
    """Levels, values and particle counts, with automatic and with given thresholds."""
    jobs = []
    for number, image in enumerate(images):
        np.save(folder / f"{number}.npy", image)
        jobs += [
            {"image": f"{number}.npy", "parameters": parameters, "repeats": 1, "keep": True}
            for parameters in (AUTO, given(image))
        ]
    results = convert(folder, peer, jobs, ("pyapr", "compatible", "strict"))
    rows = []
    for number, job in enumerate(jobs):
        peers, ours = (np.load(folder / f"{number}_{maker}.npz") for maker in ("pyapr", "compatible"))
        counts = {maker: result[number]["particles"] for maker, result in results.items()}
        same_set = np.array_equal(peers["levels"], ours["levels"])
        rows.append(
            {
                "thresholds": "automatic" if job["parameters"]["auto_parameters"] else "given",
                "equal_voxels": float((peers["levels"] == ours["levels"]).mean()),
                "count_ratio": counts["compatible"] / counts["pyapr"],
                "strict_ratio": counts["strict"] / counts["compatible"],
                "equal_values": bool(np.array_equal(peers["values"], ours["values"])) if same_set else None,
            }
        )
    for path in folder.glob("*.np*"):
        path.unlink()
    return rows


def summary(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    same = [row["equal_values"] for row in rows if row["equal_values"] is not None]
    return {
        "set": name,
        "thresholds": rows[0]["thresholds"],
        "images": len(rows),
        "least_equal": min(row["equal_voxels"] for row in rows),
        "mean_equal": float(np.mean([row["equal_voxels"] for row in rows])),
        "worst_count": max(abs(row["count_ratio"] - 1) for row in rows),
        "worst_strict": max(row["strict_ratio"] for row in rows) - 1,
        "mean_strict": float(np.mean([row["strict_ratio"] for row in rows])) - 1,
        "equal_values": f"{sum(same)}/{len(same)}",
    }


def sets(folder: Path | None, only: str) -> Iterator[tuple[str, list[NDArray[Any]]]]:
    yield "simulated 96x96x96", [nuclei((96, 96, 96), 12, seed=1)]
    for archive in sorted(folder.glob("*.zip")) if folder is not None else []:
        if only in archive.name:
            yield archive.stem, list(images_of(archive))


def cost(peer: str, image: NDArray[Any], repeats: int) -> dict[str, Any]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "0.npy", image)
        jobs = [{"image": "0.npy", "parameters": AUTO, "repeats": repeats, "keep": False}]
        results = convert(folder, peer, jobs, ("pyapr", "compatible", "strict"))
    return {maker: result[0] for maker, result in results.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--peer", required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--only", default="")
    parser.add_argument("--edge", type=int, default=512)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    lines, missed, record = [], [], {"agreement": [], "cores": len(os.sched_getaffinity(0))}

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    tell("| set | thresholds | images | equal voxels: least | mean | count | strict: most | mean | equal values |")
    tell("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, images in sets(options.data, options.only):
        with TemporaryDirectory() as folder:
            rows = agreement(Path(folder), options.peer, images)
        for thresholds in ("automatic", "given"):
            line = summary(name, [row for row in rows if row["thresholds"] == thresholds])
            record["agreement"].append(line)
            tell(
                f"| {name} | {thresholds} | {line['images']} | {line['least_equal']:.6f} | {line['mean_equal']:.7f} | "
                f"{line['worst_count']:.5%} | {line['worst_strict']:+.3%} | {line['mean_strict']:+.3%} | "
                f"{line['equal_values']} |"
            )
            if line["least_equal"] < 0.999 or line["worst_count"] > 0.001:
                missed.append(f"{name}, {thresholds}")
    record["time"] = cost(options.peer, nuclei((192, 256, 256), 300), 5)
    tile = nuclei((options.edge // 2,) * 3, int(400 * (options.edge / 512) ** 3))
    record["memory"] = cost(options.peer, np.tile(tile, (2, 2, 2)), 1)
    for name in ("time", "memory"):
        for maker, result in record[name].items():
            peer = record[name]["pyapr"]
            tell(
                f"{name}: {maker}: {result['seconds']:.2f} s ({result['seconds'] / peer['seconds']:.2f}), processor "
                f"{result['processor']:.2f} s ({result['processor'] / peer['processor']:.2f}), added "
                f"{result['added_mib']:.0f} MiB ({result['added_mib'] / peer['added_mib']:.2f}), "
                f"{result['particles']} particles"
            )
            if name == "time" and result["processor"] > peer["processor"]:
                missed.append(f"{name}: {maker}")
            if name == "memory" and maker != "pyapr" and result["added_mib"] > 0.5 * peer["added_mib"]:
                missed.append(f"{name}: {maker}")
    for line in missed:
        tell(f"goal missed: {line}")
    (options.out / "conversion_agreement.json").write_text(json.dumps(record, indent=2))
    (options.out / "conversion_agreement.txt").write_text("\n".join(lines) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
