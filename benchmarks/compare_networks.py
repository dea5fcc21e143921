"""Train the APR-CNN paper's networks side by side and compare their accuracy.

    python benchmarks/compare_networks.py run --bbbc050 TRAIN.zip TEST.zip [--seeds 0 1 2] [--channels 8] [--steps 600]
    python benchmarks/compare_networks.py run ... --device cuda --jobs 8     # 48 runs beside one another on a GPU
    python benchmarks/compare_networks.py table

Every run (data, network, seed) trains from scratch, tunes its thresholds on volumes that it was not trained on by the
mean accuracy at IoU 0.3, 0.5 and 0.7, and is scored once on the test volumes. `run` appends to the results file and
leaves out what is in there, so it goes on where it was stopped. Networks of one head see the
same crops, made once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

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
SLOWEST = sorted(NETWORKS, key=lambda name: (NETWORKS[name]["particle_stages"] not in (0, 1), NETWORKS[name]["head"]))
"""Networks that take longest come first, so that no core waits at the end."""
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
_SETS: dict[str, dict[str, list[Any]]] = {}
"""Data of the experiment: processes that are forked share it."""
_CROPS: dict[tuple[str, int, str], list[Any]] = {}
"""Crops to train on, by data, seed and head."""


def _config(name: str, seed: int, channels: int, steps: int) -> Any:
    from napari_aprcnn.models.volume_config import VolumeNetConfig
    from napari_aprcnn.train.volume_settings import VolumeTrainConfig

    network = VolumeNetConfig(channels=channels, depth=3, in_channels=1, **NETWORKS[name])
    return VolumeTrainConfig(
        network=network, epochs=max(1, steps // 100), steps_per_epoch=min(steps, 100), crop=(40, 64, 64),
        simulated=0.0, elastic=0.0, seed=seed, learning_rate=2e-3, relative_error=(0.1, 0.1), workers=0,
    )  # fmt: skip


def _targets_of(name: str) -> str:
    """Head that the crops of a network have targets for. Targets of voxels are made from the labels."""
    fields = NETWORKS[name]
    return "three_class" if fields["particle_stages"] == 0 else str(fields["head"])


def _make_crops(key: tuple[str, int, str], first: int, last: int, channels: int, steps: int) -> bytes:
    from napari_aprcnn.train.volume_crops import VolumeCrops

    data, seed, head = key
    name = next(n for n, fields in NETWORKS.items() if fields["head"] == head)
    made = VolumeCrops(_config(name, seed, channels, steps), None, _SETS[data]["train"])
    return pickle.dumps([made[number] for number in range(first, last)])  # plain bytes: no handles of shared memory


def _kept(folder: Path, *run: Any) -> Path:
    return folder / ("-".join(str(part) for part in run).replace(" ", "-") + ".safetensors")


def _trained(
    data: str, name: str, seed: int, channels: int, steps: int, device: str, keep: Path | None
) -> tuple[Any, float]:
    """The network and the seconds of its training: made, or kept from before."""
    from napari_aprcnn.models.volumes import VolumeNet
    from napari_aprcnn.train.volume_fit import fit_volumes

    config = _config(name, seed, channels, steps)
    kept = None if keep is None else _kept(keep, data, name, seed, channels, steps)
    if kept is not None and kept.exists():
        net = VolumeNet(config.network)
        net.load_state_dict({key: value.float() for key, value in load_file(kept).items()})
        return net.eval(), float(json.loads(kept.with_suffix(".json").read_text())["train_s"])
    start = time.perf_counter()
    crops = _CROPS.get((data, seed, _targets_of(name)))
    with tempfile.TemporaryDirectory() as folder:
        net = fit_volumes(config, run_dir=folder, labelled=_SETS[data]["train"], crops=crops, accelerator=device).cpu()
    seconds = time.perf_counter() - start
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        state = {key: v.half() if v.is_floating_point() else v for key, v in net.state_dict().items()}
        kept.with_suffix(".json").write_text(json.dumps({"train_s": seconds}))
        save_file(state, kept.with_suffix(".part"))
        kept.with_suffix(".part").replace(kept)
    return net, seconds


def _run(
    data: str, name: str, seed: int, channels: int, steps: int, device: str, keep: Path | None, score: bool
) -> Record | None:
    import torch

    from napari_aprcnn.evaluate.matching import evaluate_pooled

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    parts = _SETS[data]
    net, trained = _trained(data, name, seed, channels, steps, device, keep)
    if not score:
        return None
    network = net.config
    start = time.perf_counter()
    predict = _predictor(net, device)
    tuned = _tune(network, [predict(item.image) for item in parts["tune"]], [_truth(i.labels) for i in parts["tune"]])
    pairs = []
    for item in parts["test"]:
        labels = _decode(network, predict(item.image), item.image.shape, tuned)
        pairs.append((_truth(labels), _truth(item.labels)))
    scores = evaluate_pooled(pairs, thresholds=THRESHOLDS)
    return {
        "data": data,
        "network": name,
        "seed": seed,
        "channels": channels,
        "steps": steps,
        "accuracy": {f"{s.threshold:g}": round(s.accuracy, 4) for s in scores},
        "settings": json.loads(tuned.model_dump_json()),
        "train_s": round(trained, 1),
        "score_s": round(time.perf_counter() - start, 1),
    }


def _predictor(net: Any, device: str) -> Any:
    from napari_aprcnn.models.cards import ModelCard
    from napari_aprcnn.models.devices import resolve_device
    from napari_aprcnn.models.volume_network import VolumeNetwork

    card = ModelCard(name="run", architecture="", title="", data="", licence="", volume=net.config, relative_error=0.1)
    return VolumeNetwork(net, card, device=resolve_device(device, threads=1)).predict


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
    return tuple(record[name] for name in ("data", "network", "seed", "channels", "steps"))


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
    for kind, channels in sorted({(r["data"], r["channels"]) for r in records}):
        data = f"{kind}, C = {channels}"
        own = [r for r in records if (r["data"], r["channels"]) == (kind, channels)]
        runs = {n: [_average(r) for r in own if r["network"] == n] for n in NETWORKS}
        spread = {n: stdev(v) if len(v) > 1 else None for n, v in runs.items()}
        gap = _gap(runs, "apr eta 3", "pixel")
        if gap is not None:
            word = "yes" if gap >= -0.02 else "no"
            lines.append(f"{data}: particles at most 0.02 below pixels on average: {word} ({gap:+.3f})")
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
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--jobs", type=int, default=1, help="runs beside one another (Linux)")
    parser.add_argument(
        "--keep", type=Path, help="folder of the trained weights; a run that is in there is not trained"
    )
    parser.add_argument(
        "--train-only", action="store_true", help="score later: the same command without this, and --keep"
    )
    options = parser.parse_args()
    if options.what == "run":
        _run_all(options)
    records = _read(options.results)
    print(table(records))
    print("\n".join(answers(records)))


def _run_all(options: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)  # a fork must not find other threads at work
    _SETS["simulation"] = _simulated()
    if options.bbbc050:
        _SETS["BBBC050"] = _bbbc050(*options.bbbc050)
    done = {_key(r) for r in _read(options.results)}
    wanted = [
        (data, name, seed, options.channels, options.steps)
        for seed in options.seeds
        for data in _SETS
        for name in options.networks
    ]
    wanted = [run for run in wanted if run not in done]
    if options.jobs == 1:
        for run in wanted:
            _note(options.results, _run(*run, options.device, options.keep, not options.train_only))
        return
    for seed in options.seeds:  # one kind of data at a time: crops of StarDist take 7 GB
        for data in _SETS:
            _run_beside([run for run in wanted if run[0] == data and run[2] == seed], options)


def _run_beside(wanted: list[tuple[Any, ...]], options: argparse.Namespace) -> None:
    """Do runs of one seed and kind of data beside one another; they share the crops."""
    fork = multiprocessing.get_context("fork")
    untrained = [run for run in wanted if options.keep is None or not _kept(options.keep, *run).exists()]
    keys = sorted({(data, seed, _targets_of(name)) for data, name, seed, *_ in untrained})
    parts = [(key, first) for key in keys for first in range(0, options.steps, 20)]
    _CROPS.clear()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=fork) as pool:
        for key in keys:
            _CROPS[key] = []
        made = [
            pool.submit(_make_crops, key, first, min(first + 20, options.steps), options.channels, options.steps)
            for key, first in parts
        ]
        for (key, _), future in zip(parts, made, strict=True):
            _CROPS[key] += pickle.loads(future.result())  # noqa: S301 - our own process wrote it
    del made  # and with the futures a second copy of everything
    print(f"{len(parts) * 20} crops", flush=True)
    wanted = sorted(wanted, key=lambda run: SLOWEST.index(run[1]))
    with ProcessPoolExecutor(options.jobs, mp_context=fork) as pool:
        runs = [pool.submit(_run, *run, options.device, options.keep, not options.train_only) for run in wanted]
        for future in as_completed(runs):
            _note(options.results, future.result())


def _note(results: Path, made: Record | None) -> None:
    if made is None:
        return
    _append(results, made)
    print(f"{made['data']} {made['network']} seed {made['seed']}: {_average(made):.3f}, trained in "
          f"{made['train_s']:.0f} s, scored in {made['score_s']:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
