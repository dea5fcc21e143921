"""Score models for volumes on labelled 3D sets through the whole pipeline, and write the figures into their cards.

    python benchmarks/score_volumes.py MODEL... --test bbbc050_val.zip --spacing 1.75 0.8 0.8 [--set zoom=1.5]
        [--set 'precision="bfloat16"'] [--write]

Objects of fewer than `--min-voxels` voxels count for nothing, in the truth as in the result. Images are grouped by what
follows the last underscore of their name, for BBBC050 the time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from napari_aprcnn import segment
from napari_aprcnn.config import SegmentConfig, VolumeConfig
from napari_aprcnn.evaluate.matching import evaluate_pooled
from napari_aprcnn.models.zoo import WEIGHTS_FOLDER, load_model, save_model
from napari_aprcnn.train.volume_sources import read_volumes

THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8)


def without_fragments(labels: Any, smallest: int) -> Any:
    """The labels without those of fewer voxels."""
    sizes = np.bincount(labels.ravel())
    keep = sizes >= smallest
    keep[0] = False
    return np.where(keep[labels], labels, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names of shipped models, or weights files")
    parser.add_argument("--test", required=True, help="zip or folder of images and labels")
    parser.add_argument("--spacing", type=float, nargs=3, help="voxel size z y x, in micrometres")
    parser.add_argument("--min-voxels", type=int, default=50)
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE of VolumeConfig, or of SegmentConfig")
    parser.add_argument("--limit", type=int, default=10_000, help="only every k-th image, so that so many are left")
    parser.add_argument("--write", action="store_true", help="put the figures into the cards")
    options = parser.parse_args()
    changes = {name: json.loads(value) for name, value in (item.split("=") for item in options.set)}
    volume = VolumeConfig(**{k: v for k, v in changes.items() if k in VolumeConfig.model_fields})
    others = {k: v for k, v in changes.items() if k not in VolumeConfig.model_fields}
    config = SegmentConfig(volume=volume, spacing_um=options.spacing, **others)
    items = read_volumes([options.test])
    items = items[:: max(1, len(items) // options.limit)]
    for name in options.models:
        network = load_model(name, precision=config.precision)
        groups: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        start = time.perf_counter()
        for item in items:
            labels = segment(item.image, config=config, model=network).labels
            pair = without_fragments(labels, options.min_voxels), without_fragments(item.labels, options.min_voxels)
            groups[item.name.rsplit("_", 1)[-1]].append(pair)
        seconds = time.perf_counter() - start
        print(f"{network.name} {json.dumps(changes)} {seconds:.0f} s")
        for group, pairs in sorted(groups.items()) if len(groups) > 1 else ():
            print(f"  {group}: " + _words(evaluate_pooled(pairs, thresholds=THRESHOLDS)))
        pooled = evaluate_pooled([p for pairs in groups.values() for p in pairs], thresholds=THRESHOLDS)
        print("  all: " + _words(pooled), flush=True)
        if options.write:
            path = Path(name) if Path(name).suffix else WEIGHTS_FOLDER / f"{name}.safetensors"
            metrics = {
                **network.card.metrics,
                Path(options.test).stem: {f"f1@{m.threshold:g}": round(m.f1, 4) for m in pooled},
            }
            save_model(network.module, path, network.card.replace(metrics=metrics), half=True)


def _words(scores: Any) -> str:
    return (
        ", ".join(f"F1@{m.threshold:g} {m.f1:.3f}" for m in scores)
        + f"  ({scores[0].true_positives + scores[0].false_negatives} nuclei)"
    )


if __name__ == "__main__":
    main()
