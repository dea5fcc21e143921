"""Tell cystic, compact and cauliflower organoids apart: graph of nuclei against one ellipsoid, cross-validated.

python benchmarks/phenotypes.py                                  # the table
python benchmarks/phenotypes.py --write src/napari_aprcnn/graph/phenotypes.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from napari_aprcnn.graph.build import nuclei_graph
from napari_aprcnn.graph.descriptors import describe
from napari_aprcnn.graph.logistic import LogisticModel, cross_validate, fit_logistic
from napari_aprcnn.graph.phenotypes import (
    ELLIPSOID_FEATURES,
    ENVELOPE_FEATURES,
    FEWEST_NUCLEI,
    GRAPH_FEATURES,
    PHENOTYPES,
    PhenotypeCard,
    ellipsoid_features,
    phenotype_features,
)
from napari_aprcnn.io.atomic import write_text
from napari_aprcnn.train.simulation import SimulationConfig, simulate_volume

# Whole organoids with enough nuclei to have a shape; all else varies as in training data.
WHOLE: dict[str, Any] = {"diameter_px": (8.0, 12.0), "extent": (0.75, 1.0)}
# Organoids that the volume cuts, with larger nuclei: what the classifier was not made for.
CUT: dict[str, Any] = {"diameter_px": (8.0, 16.0), "extent": (1.0, 1.5)}
SETS = {
    "one ellipsoid": ("ellipsoid", ELLIPSOID_FEATURES),
    "graph": ("graph", GRAPH_FEATURES),
    "graph and envelope": ("graph", (*GRAPH_FEATURES, *ENVELOPE_FEATURES)),
}
REPEATS = 5


def samples(config: dict[str, Any], number: int, seed: int) -> tuple[dict[str, list[dict[str, float]]], np.ndarray]:
    """Simulate organoids; return their features by kind, and their classes."""
    found: dict[str, list[dict[str, float]]] = {"ellipsoid": [], "graph": []}
    classes = []
    for index, phenotype in enumerate(PHENOTYPES):
        at, made = seed, 0
        while made < number:
            volume = simulate_volume(SimulationConfig(scene=phenotype, **config), seed=at)
            at += 1
            graph = nuclei_graph(volume.labels, spacing_um=volume.spacing_um, edges="delaunay", surface_distance=False)
            if len(graph) < FEWEST_NUCLEI:
                continue
            found["ellipsoid"].append(ellipsoid_features(graph))
            found["graph"].append(phenotype_features(describe(graph, volume.labels)))
            classes.append(index)
            made += 1
        print(f"{phenotype}: seeds {seed} .. {at - 1}", file=sys.stderr)
    return found, np.array(classes)


def matrix(rows: list[dict[str, float]], names: tuple[str, ...]) -> np.ndarray:
    """Features as an array (n, F)."""
    return np.array([[row[name] for name in names] for row in rows])


def main() -> int:
    """Print the table; with --write, store the classifier."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=100, help="organoids of each phenotype")
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--l2", type=float, default=0.02)
    parser.add_argument("--write", type=Path, help="store the classifier of graph and envelope as JSON")
    parser.add_argument("--keep", type=Path, help="keep the features in this file, or take them from it")
    options = parser.parse_args()

    start = time.monotonic()
    if options.keep and options.keep.exists():
        kept = json.loads(options.keep.read_text())
    else:
        whole, y = samples(WHOLE, options.number, options.seed)
        cut, y_cut = samples(CUT, min(options.number, 30), options.seed + 100_000)
        kept = {"whole": whole, "y": y.tolist(), "cut": cut, "y_cut": y_cut.tolist()}
        if options.keep:
            options.keep.write_text(json.dumps(kept))
    if "new" not in kept:
        new, y_new = samples(WHOLE, min(options.number, 40), options.seed + 50_000)
        kept |= {"new": new, "y_new": y_new.tolist()}
        if options.keep:
            options.keep.write_text(json.dumps(kept))
    y, y_cut, y_new = np.array(kept["y"]), np.array(kept["y_cut"]), np.array(kept["y_new"])
    print(f"{len(y)} whole, {len(y_new)} new whole and {len(y_cut)} cut organoids, {time.monotonic() - start:.0f} s\n")
    print("| features | number | accuracy, % | cystic | compact | cauliflower | new | cut by the volume |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    accuracy: dict[str, float] = {}
    models: dict[str, LogisticModel] = {}
    for name, (kind, features) in SETS.items():
        x = matrix(kept["whole"][kind], features)
        more = {"classes": PHENOTYPES, "features": features, "l2": options.l2}
        guesses = [cross_validate(x, y, n_folds=options.folds, seed=s, **more) for s in range(REPEATS)]
        right = 100 * np.array([guess == y for guess in guesses])
        recall = [right[:, y == index].mean() for index in range(3)]
        models[name] = fit_logistic(x, y, **more)
        others = [
            models[name].probabilities(matrix(kept[part][kind], features)).argmax(axis=1) == truth
            for part, truth in (("new", y_new), ("cut", y_cut))
        ]
        accuracy[name] = round(float(right.mean()) / 100, 4)
        spread = right.mean(axis=1).std()
        cells = [f"{right.mean():.1f} ± {spread:.1f}", *(f"{share:.0f}" for share in recall)]
        cells += [f"{100 * other.mean():.0f}" for other in others]
        print(f"| {name} | {len(features)} | " + " | ".join(cells) + " |")
    if options.write:
        card = PhenotypeCard(
            model=_rounded(models["graph and envelope"]),
            baseline=_rounded(models["one ellipsoid"]),
            data=f"{options.number} simulated organoids of each phenotype, 64 x 96 x 96 voxels, true labels, "
            f"diameter {WHOLE['diameter_px']} px, extent {WHOLE['extent']}",
            command=f"python benchmarks/phenotypes.py --number {options.number} --seed {options.seed} "
            f"--l2 {options.l2} --write phenotypes.json",
            seed=options.seed,
            edges="delaunay",
            accuracy=accuracy,
        )
        write_text(card.model_dump_json(indent=1) + "\n", options.write, overwrite=True)
    return 0


def _rounded(model: LogisticModel) -> LogisticModel:
    short = lambda row: tuple(float(f"{value:.7g}") for value in row)  # noqa: E731
    return model.replace(
        mean=short(model.mean),
        scale=short(model.scale),
        weights=tuple(short(row) for row in model.weights),
        bias=short(model.bias),
    )


if __name__ == "__main__":
    sys.exit(main())
