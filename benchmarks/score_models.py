"""Score models on labelled test sets through the whole pipeline, nothing told, and write the figures into their cards.

    python benchmarks/score_models.py MODEL... --test dsb2018_fluo_test.zip --test bbbc039_test.zip [--write]

A change of the pipeline changes the figures of models that were not trained anew: run this after it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from napari_aprcnn.config import TileConfig
from napari_aprcnn.models.zoo import WEIGHTS_FOLDER, load_model, save_model
from napari_aprcnn.train.score import score_archive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names of shipped models, or weights files")
    parser.add_argument("--test", action="append", required=True, help="zip or folder of images and labels")
    parser.add_argument("--diameter", choices=["estimated", "known"], default="estimated")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "int8"], default="float32")
    parser.add_argument("--augment", action="store_true", help="average mirror images")
    parser.add_argument("--write", action="store_true", help="put the figures into the cards")
    options = parser.parse_args()
    tiles = TileConfig(augment=options.augment)
    for name in options.models:
        network = load_model(name, precision=options.precision)
        metrics: dict[str, dict[str, float]] = {}
        for path in options.test:
            score = score_archive(network, path, diameter=options.diameter, tiles=tiles)
            metrics[score.name] = score.summary()
            print(f"{network.name} {score.name} " + json.dumps(score.summary()), flush=True)
        if options.write:
            path = Path(name) if Path(name).suffix else WEIGHTS_FOLDER / f"{name}.safetensors"
            save_model(network.module, path, network.card.model_copy(update={"metrics": metrics}))


if __name__ == "__main__":
    main()
