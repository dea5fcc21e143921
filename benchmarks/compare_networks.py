"""Train the APR-CNN paper's networks side by side and compare their accuracy.

    python benchmarks/compare_networks.py run --bbbc050 TRAIN.zip TEST.zip [--seeds 0 1 2] [--channels 8] [--steps 600]
    python benchmarks/compare_networks.py table

Every run (data, network, seed) trains from scratch, tunes its thresholds on volumes that it was not trained on by the
mean accuracy at IoU 0.3, 0.5 and 0.7, and is scored once on the test volumes. `run` appends to the results file and
leaves out what is in there, so it goes on where it was stopped. Weights are thrown away.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent.parent / "docs" / "experiments" / "networks.json"
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MIN_VOXELS = 50  # BBBC050's truth has fragments below
NETWORKS: dict[str, dict[str, Any]] = {
    "pixel": {"head": "three_class", "particle_stages": 0},
    "apr eta 1": {"head": "three_class", "particle_stages": None, "filter_banks": 1},
    "apr eta 3": {"head": "three_class", "particle_stages": None, "filter_banks": 3},
    "hybrid1": {"head": "three_class", "particle_stages": 1},
    "hybrid2": {"head": "three_class", "particle_stages": 2},
    "pixel stardist": {"head": "stardist", "particle_stages": 0},
    "apr stardist": {"head": "stardist", "particle_stages": None},
    "hybrid2 stardist": {"head": "stardist", "particle_stages": 2},
}
SHAPE = (48, 96, 96)
SIMULATED = {"train": 80, "tune": 8, "test": 16}

Record = dict[str, Any]


# --- the data --------------------------------------------------------------------------------------------------------
def _simulated() -> dict[str, list[Any]]:
    from napari_aprcnn.train.simulation import simulate_volume
    from napari_aprcnn.train.volume_sources import LabelledVolume

    parts: dict[str, list[Any]] = {}
    seed = 50_000
    for part, number in SIMULATED.items():
        parts[part] = []
        while len(parts[part]) < number:
            made = simulate_volume(seed=seed, shape=SHAPE)
            if made.labels.any():
                parts[part].append(LabelledVolume(f"simulated-{seed}", "simulated", made.image, made.labels))
            seed += 1
    return parts


def _bbbc050(train: Path, test: Path) -> dict[str, list[Any]]:
    from napari_aprcnn.train.volume_sources import read_volumes

    both = sorted(read_volumes([train]), key=lambda item: item.name)
    embryos = sorted({_embryo(item.name) for item in both})
    held = embryos[-1]
    return {
        "train": [item for item in both if _embryo(item.name) != held],
        "tune": [item for item in both if _embryo(item.name) == held],
        "test": read_volumes([test]),
    }


def _embryo(name: str) -> str:
    return name.split("_t")[0]


def _truth(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Without the fragments that count for nothing."""
    sizes = np.bincount(labels.ravel())
    keep = sizes >= MIN_VOXELS
    keep[0] = False
    return np.where(keep[labels], labels, 0)


# --- one run ---------------------------------------------------------------------------------------------------------
def _run(data: dict[str, list[Any]], name: str, seed: int, channels: int, steps: int, folder: Path) -> Record:
    from napari_aprcnn.evaluate.matching import evaluate_pooled
    from napari_aprcnn.models.volume_config import VolumeNetConfig
    from napari_aprcnn.train.volume_fit import fit_volumes
    from napari_aprcnn.train.volume_settings import VolumeTrainConfig

    network = VolumeNetConfig(channels=channels, depth=3, in_channels=1, **NETWORKS[name])
    config = VolumeTrainConfig(
        network=network, epochs=max(1, steps // 100), steps_per_epoch=min(steps, 100), crop=(40, 64, 64),
        simulated=0.0, elastic=0.0, seed=seed, learning_rate=2e-3, relative_error=(0.1, 0.1),
    )  # fmt: skip
    start = time.perf_counter()
    net = fit_volumes(config, run_dir=folder, labelled=data["train"])
    trained = time.perf_counter() - start
    predict = _predictor(net)
    tuned = _tune(network, [predict(item.image) for item in data["tune"]], [_truth(i.labels) for i in data["tune"]])
    pairs = []
    for item in data["test"]:
        labels = _decode(network, predict(item.image), item.image.shape, tuned)
        pairs.append((_truth(labels), _truth(item.labels)))
    scores = evaluate_pooled(pairs, thresholds=THRESHOLDS)
    return {
        "network": name,
        "seed": seed,
        "channels": channels,
        "steps": steps,
        "accuracy": {f"{s.threshold:g}": round(s.accuracy, 4) for s in scores},
        "settings": json.loads(tuned.model_dump_json()),
        "train_s": round(trained, 1),
    }


def _predictor(net: Any) -> Any:
    from napari_aprcnn.models.cards import ModelCard
    from napari_aprcnn.models.devices import resolve_device
    from napari_aprcnn.models.volume_network import VolumeNetwork

    card = ModelCard(name="run", architecture="", title="", data="", licence="", volume=net.config, relative_error=0.1)
    return VolumeNetwork(net, card, device=resolve_device("cpu", threads=1)).predict


def _tune(network: Any, outputs: list[Any], truths: list[Any]) -> Any:
    from napari_aprcnn.segment.star_targets import cell_centres
    from napari_aprcnn.segment.volume_heads import rays_of, star_cells
    from napari_aprcnn.train.tune import StarPrediction, tune_stardist, tune_three_class

    if network.head == "three_class":
        return tune_three_class([_probabilities(out) for out in outputs], truths).settings
    predictions = []
    for out, truth in zip(outputs, truths, strict=True):
        probability = 1 / (1 + np.exp(-np.clip(out.features[:, 0], -30, 30)))
        points = cell_centres(star_cells(out, truth.shape)).astype(np.float32)
        predictions.append(StarPrediction(probability, out.features[:, 1:], points, truth.shape))
    return tune_stardist(predictions, truths, rays_of(network)).settings


def _probabilities(out: Any) -> Any:
    logits = np.moveaxis(out.dense, -1, 0)
    weights = np.exp(logits - logits.max(0))
    return weights / weights.sum(0)


def _decode(network: Any, out: Any, shape: Any, settings: Any) -> Any:
    from napari_aprcnn.segment.volume_heads import decode_stardist, decode_three_class

    if network.head == "three_class":
        return decode_three_class(out, settings)[0]
    return decode_stardist(out, network, shape, settings)[0]


# --- results ---------------------------------------------------------------------------------------------------------
def _key(record: Record) -> tuple[Any, ...]:
    return record["data"], record["network"], record["seed"], record["channels"], record["steps"]


def _read(path: Path) -> list[Record]:
    found: list[Record] = json.loads(path.read_text()) if path.exists() else []
    return found


def _append(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    records = sorted([*_read(path), record], key=_key)
    beside = path.with_suffix(".part")
    beside.write_text("[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]\n")
    beside.replace(path)


def _average(record: Record) -> float:
    return mean(record["accuracy"].values())


def answers(records: Sequence[Record]) -> list[str]:
    """The paper's claims, each with yes or no, from the runs that there are."""
    lines = []
    for data in sorted({r["data"] for r in records}):
        runs = {n: [_average(r) for r in records if r["data"] == data and r["network"] == n] for n in NETWORKS}
        spread = {n: stdev(v) if len(v) > 1 else None for n, v in runs.items()}
        gap = _gap(runs, "apr eta 3", "pixel")
        if gap is not None:
            word = "yes" if gap >= -0.02 else "no"
            lines.append(f"{data}: particles within 0.02 of pixels on average: {word} ({gap:+.3f})")
        one, three = spread["apr eta 1"], spread["apr eta 3"]
        if one is not None and three is not None:
            word = "yes" if three < one else "no"
            lines.append(
                f"{data}: three filter banks more consistent than one: {word} (deviation {three:.3f} against {one:.3f})"
            )
        for name in ("apr stardist", "hybrid2 stardist"):
            gap = _gap(runs, name, "pixel stardist")
            if gap is not None:
                word = "yes" if gap >= -0.02 else "no"
                lines.append(f"{data}: {name} without loss against pixels: {word} ({gap:+.3f})")
    return lines


def _gap(runs: dict[str, list[float]], name: str, other: str) -> float | None:
    return mean(runs[name]) - mean(runs[other]) if runs[name] and runs[other] else None


def table(records: Sequence[Record]) -> str:
    """Markdown: mean and deviation of the accuracy over seeds, at every IoU threshold and on average."""
    lines = []
    for data, channels in sorted({(r["data"], r["channels"]) for r in records}):
        lines += [f"**{data}**, C = {channels}", "", "| network | runs | " + " | ".join(f"{t:g}" for t in THRESHOLDS)
                  + " | mean |", "| --- " * (len(THRESHOLDS) + 3) + "|"]  # fmt: skip
        for name in NETWORKS:
            mine = [r for r in records if (r["data"], r["channels"], r["network"]) == (data, channels, name)]
            if mine:
                cells = [_words(r["accuracy"][f"{t:g}"] for r in mine) for t in THRESHOLDS]
                lines.append(
                    f"| {name} | {len(mine)} | " + " | ".join([*cells, _words(_average(r) for r in mine)]) + " |"
                )
        lines.append("")
    return "\n".join(lines)


def _words(values: Iterable[float]) -> str:
    found = list(values)
    return f"{mean(found):.3f}" + (f" ± {stdev(found):.3f}" if len(found) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--bbbc050", type=Path, nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    if options.what == "run":
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
        sets = {"simulation": _simulated()}
        if options.bbbc050:
            sets["BBBC050"] = _bbbc050(*options.bbbc050)
        for seed in options.seeds:
            for data, parts in sets.items():
                for name in options.networks:
                    stub = {"data": data, "network": name, "seed": seed, "channels": options.channels,
                            "steps": options.steps}  # fmt: skip
                    if _key(stub) in {_key(r) for r in _read(options.results)}:
                        continue
                    with tempfile.TemporaryDirectory() as folder:
                        made = _run(parts, name, seed, options.channels, options.steps, Path(folder))
                    _append(options.results, {"data": data, **made})
                    print(f"{data} {name} seed {seed}: {_average(made):.3f} in {made['train_s']:.0f} s", flush=True)
    records = _read(options.results)
    print(table(records))
    print("\n".join(answers(records)))


if __name__ == "__main__":
    main()
