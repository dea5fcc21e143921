"""Distil a teacher into the networks of the family and compare them: accuracy, size, time, memory.

    python benchmarks/compare_students.py run TEACHER DATA... --test TEST.zip ... --output runs/students [--steps 2600]
    python benchmarks/compare_students.py run ... --objectives teacher labels both --device cuda --jobs 6 --workers 1
    python benchmarks/compare_students.py run ... --start dilated=TEACHER faster_v3=fastercellpose-v3
    python benchmarks/compare_students.py shipped fastercellpose-v3 ... --test TEST.zip ...
    python benchmarks/compare_students.py table [--threads 2] [--size 1024]

A run is a network with an objective: what the teacher says, the labels alone on the same patches, or half of each. It
starts from random weights, or from those that --start names: of the same network, or of one to grow or inherit from.
`run` adds its scores to the results file and leaves out what is in there, so it goes on where it was stopped; weights,
cards and the teacher's patches lie in the output folder. `shipped` scores models as they are shipped.
`table` also measures every network in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from napari_aprcnn.models.configs import NETWORKS

RESULTS = Path(__file__).parent.parent / "docs" / "experiments" / "students.json"
SHIPPED = "labels, as shipped"
OBJECTIVES = {"teacher": 0.0, "both": 0.5, "labels": 1.0}
Record = dict[str, Any]


def _config(options: argparse.Namespace, network: str, objective: str) -> Any:
    from napari_aprcnn.train.distil_settings import DistilConfig

    base = DistilConfig()
    training = base.training.replace(
        architecture=network, n_steps=options.steps, batch_size=options.batch_size, learning_rate=options.rate,
        seed=options.seed,
    )  # fmt: skip
    return base.replace(training=training, views=options.views, hard=OBJECTIVES[objective], validate_every=500)


def _starts(options: argparse.Namespace) -> dict[str, str]:
    return dict(item.split("=", 1) for item in options.start)


def _name(network: str, objective: str, options: argparse.Namespace) -> str:
    return f"{network}-{objective}-{options.steps}-{options.seed}"


def _run(options: argparse.Namespace, network: str, objective: str) -> Record:
    import torch

    from napari_aprcnn.models.zoo import load_model
    from napari_aprcnn.train.distil_command import distil

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    path, _ = distil(
        options.teacher, options.data, output=options.output, name=_name(network, objective, options),
        config=_config(options, network, objective), initial=_starts(options).get(network),
        device=options.device, workers=options.workers,
        command=f"benchmarks/compare_students.py run ... --networks {network} --objectives {objective}",
    )  # fmt: skip
    scored = {} if options.train_only else _scores(str(path), options.test)
    card = load_model(str(path), device="cpu").card
    return {"network": network, "objective": objective, "seed": options.seed, "steps": options.steps,
            "start": Path(_starts(options).get(network, "random")).stem,
            "iou": card.metrics["teacher"]["iou"], "scores": scored}  # fmt: skip


def _scores(model: str, tests: Sequence[Path]) -> Record:
    from napari_aprcnn.models.zoo import load_model
    from napari_aprcnn.train.score import score_archive

    network, found = load_model(model), {}
    for path in tests:
        score = score_archive(network, path)
        half = next(m for m in score.pooled if m.threshold == 0.5)
        found[score.name] = {
            "f1": {f"{m.threshold:.1f}": round(m.f1, 4) for m in score.pooled},
            "accuracy": {f"{m.threshold:.1f}": round(m.accuracy, 4) for m in score.pooled},
            "precision": round(half.precision, 4),
            "recall": round(half.recall, 4),
        }
    return found


def _read(path: Path) -> list[Record]:
    found: list[Record] = json.loads(path.read_text()) if path.exists() else []
    return found


def _key(record: Record) -> tuple[Any, ...]:
    return record["network"], record["objective"], record["seed"], record["steps"]


def _add(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    records = sorted([*(r for r in _read(path) if _key(r) != _key(record)), record], key=_key)
    beside = path.with_suffix(".part")
    beside.write_text("[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]\n")
    beside.replace(path)
    first = {name: s["f1"]["0.5"] for name, s in record["scores"].items()}
    print(f"{record['network']} by {record['objective']}: IoU with the teacher {record['iou']}, F1 {first}", flush=True)


def run(options: argparse.Namespace) -> None:
    """Every network with every objective that is not in the results yet; the teacher itself is scored, too."""
    done = {_key(r) for r in _read(options.results) if r["scores"] or options.train_only}
    if ("teacher", "-", options.seed, 0) not in done and not options.train_only:
        scores = _scores(str(options.teacher), options.test)
        _add(options.results, {"network": "teacher", "objective": "-", "seed": options.seed, "steps": 0, "start": "",
                               "iou": 1.0, "scores": scores})  # fmt: skip
    wanted = [
        (network, objective)
        for objective in options.objectives
        for network in options.networks
        if (network, objective, options.seed, options.steps) not in done
    ]
    if options.jobs == 1:
        for one in wanted:
            _add(options.results, _run(options, *one))
        return
    # The first run makes the patches; the others find them.
    _add(options.results, _run(options, *wanted[0]))
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_run, options, *one) for one in wanted[1:]]):
            _add(options.results, future.result())


def shipped(options: argparse.Namespace) -> None:
    """Scores of models as they are shipped, trained on labels."""
    from napari_aprcnn.models.zoo import load_model

    done = {_key(r) for r in _read(options.results)}
    for name in [options.teacher, *map(str, options.data)]:
        network = load_model(name).card.architecture
        if (network, SHIPPED, options.seed, 0) not in done:
            scores = _scores(name, options.test)
            _add(options.results, {"network": network, "objective": SHIPPED, "seed": options.seed, "steps": 0,
                                   "start": "", "iou": None, "scores": scores})  # fmt: skip


def accuracy_table(records: Sequence[Record]) -> str:
    """Markdown: precision and recall at IoU 0.5, TP / (TP + FP + FN) at 0.5 to 0.9."""
    sets = sorted({name for r in records for name in r["scores"]})
    what = "precision, recall; accuracy at .5, .6, .7, .8, .9"
    lines = ["| network | by | steps | " + " | ".join(f"{name}: {what}" for name in sets) + " |",
             "| --- | --- | ---: |" + " --- |" * len(sets)]  # fmt: skip
    for r in records:
        cells = [
            f"{s['precision']:.3f}, {s['recall']:.3f}; " + ", ".join(f"{a:.3f}" for a in s["accuracy"].values())
            if s
            else "-"
            for s in (r["scores"].get(one) for one in sets)
        ]
        lines.append(f"| {r['network']} | {r['objective']} | {r['steps']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table(records: Sequence[Record], threads: int, size: int) -> str:
    """Markdown: one row for each network and objective."""
    from napari_aprcnn.bench.worker import run_worker
    from napari_aprcnn.models.counting import count_macs, count_parameters

    sets = sorted({name for r in records for name in r["scores"]})
    lines = [
        "| network | by | from | steps | parameters | GMAC | ms | MB | IoU | "
        + " | ".join(f"{name}: F1 .5 / .7, precision, recall" for name in sets) + " |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |" + " --- |" * len(sets),
    ]  # fmt: skip
    times: dict[str, Record] = {}
    for r in records:
        name = "cellpose" if r["network"] == "teacher" else r["network"]
        if name not in times:
            way = "plain" if name == "cellpose" else "fused" if NETWORKS[name].separable else "bands"
            order = {"architecture": name, "way": way, "edge_px": size, "threads": threads, "repeats": 3}
            times[name] = run_worker(
                "napari_aprcnn.bench.network_worker", order, threads=threads, keeps=True, timeout_s=600
            )
        took = times[name]
        cells = [
            f"{s['f1']['0.5']:.3f} / {s['f1']['0.7']:.3f}, {s['precision']:.3f}, {s['recall']:.3f}" if s else "-"
            for s in (r["scores"].get(one) for one in sets)
        ]
        own, gmac = f"{count_parameters(name):,}", f"{count_macs(name) / 1e9:.1f}"
        lines.append(
            f"| {r['network']} | {r['objective']} | {r.get('start', 'random')} | {r['steps']} | {own} | {gmac} "
            f"| {1000 * took['seconds']:.0f} | {took['peak_bytes'] / 2**20:.0f} "
            f"| {'-' if r['iou'] is None else format(r['iou'], '.3f')} | " + " | ".join(cells) + " |"
        )  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "shipped", "table"])
    parser.add_argument("teacher", nargs="?", help="model or weights file; an official Cellpose checkpoint serves, too")
    parser.add_argument("data", nargs="*", type=Path, help="zips or folders to distil on")
    parser.add_argument("--test", nargs="*", type=Path, default=[])
    parser.add_argument("--output", type=Path, default=Path("runs/students"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--networks", nargs="+", choices=list(NETWORKS), default=[n for n in NETWORKS if n != "cellpose"]
    )
    parser.add_argument("--objectives", nargs="+", choices=list(OBJECTIVES), default=["teacher"])
    parser.add_argument("--start", nargs="*", default=[], help="NETWORK=MODEL: weights to start from, a name or a file")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--train-only", action="store_true", help="score later: the same command without this")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args()
    if options.what == "run":
        if not options.teacher or not options.data:
            parser.error("run needs TEACHER and DATA")
        run(options)
    elif options.what == "shipped":
        shipped(options)
    else:
        records = _read(options.results)
        print(table(records, options.threads, options.size) + "\n\n" + accuracy_table(records))


if __name__ == "__main__":
    main()
