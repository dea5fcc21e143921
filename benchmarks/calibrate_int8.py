"""Measure the ranges that products of 8 bits need, on images of the kind that a model is for; write them into its card.

    python benchmarks/calibrate_int8.py MODEL... --data dsb2018_fluo_train.zip --data bbbc039_train.zip [--write]

`aprcnn train` and `aprcnn distil` do this at their end; this is for older models, and for other images. A range is
the mean over images of the smallest and the largest value that a convolution multiplies. Use images that the model was
trained on, not those that it is tested on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import cast

from napari_aprcnn.models.network import Network
from napari_aprcnn.models.zoo import WEIGHTS_FOLDER, load_model, save_model
from napari_aprcnn.train.ranges import at_network_scale, int8_spans
from napari_aprcnn.train.sets import read_sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names of shipped models, or weights files")
    parser.add_argument("--data", action="append", required=True, help="zip or folder of images and labels")
    parser.add_argument("--write", action="store_true", help="put the ranges into the cards")
    options = parser.parse_args()
    images = read_sets([Path(path) for path in options.data])
    for name in options.models:
        network = cast("Network", load_model(name, device="cpu"))
        card = network.card
        planes = at_network_scale(images, diameter_px=card.diameter_px)
        spans = int8_spans(network.module, planes, second_channel=card.second_channel)
        words = json.dumps({key: [round(value, 3) for value in span] for key, span in spans.items()})
        print(f"{network.name} {words}", flush=True)
        if options.write:
            path = Path(name) if Path(name).suffix else WEIGHTS_FOLDER / f"{name}.safetensors"
            save_model(network.module, path, card.replace(int8_spans=spans))


if __name__ == "__main__":
    main()
