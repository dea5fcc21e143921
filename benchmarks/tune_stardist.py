"""Choose the thresholds of a StarDist network on simulated volumes it was not trained on, and note them in its card.

python benchmarks/tune_stardist.py MODEL [--number 12] [--outline 0.14] [--write]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from napari_aprcnn.models.volume_network import VolumeNetwork
from napari_aprcnn.models.zoo import WEIGHTS_FOLDER, load_model, save_model
from napari_aprcnn.segment.star_targets import cell_centres
from napari_aprcnn.segment.volume_heads import rays_of, star_cells
from napari_aprcnn.train.simulation import SimulationConfig, simulate_volume
from napari_aprcnn.train.tune import StarPrediction, tune_stardist

FIRST_SEED = 9_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--number", type=int, default=12)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    parser.add_argument("--outline", type=float, default=0.14)
    parser.add_argument("--write", action="store_true", help="put the settings into the card")
    options = parser.parse_args()
    network = load_model(options.model, device="cpu")
    if not isinstance(network, VolumeNetwork) or network.module.config.head != "stardist":
        parser.error(f"{options.model} is no StarDist network for volumes")
    config = SimulationConfig(shape=tuple(options.shape), outline_level=options.outline, outline_common=1.0)
    predictions, truths = [], []
    for number in range(options.number):
        made = simulate_volume(config, seed=FIRST_SEED + number)
        out = network.predict(made.image)
        probability = 1 / (1 + np.exp(-np.clip(out.features[:, 0], -30, 30)))
        points = cell_centres(star_cells(out, made.image.shape)).astype(np.float32)
        predictions.append(StarPrediction(probability, out.features[:, 1:], points, made.image.shape))
        truths.append(made.labels)
    tuned = tune_stardist(predictions, truths, rays_of(network.module.config))
    for settings, accuracy in tuned.tried:
        print(f"{settings.probability_threshold:.1f} {settings.overlap_threshold:.1f} {accuracy:.4f}")
    best = tuned.settings
    print(f"best: probability {best.probability_threshold}, overlap {best.overlap_threshold}: {tuned.accuracy:.4f}")
    if options.write:
        path = Path(options.model)
        path = path if path.suffix else WEIGHTS_FOLDER / f"{options.model}.safetensors"
        card = network.card.model_copy(update={"settings": best.model_dump(mode="json", exclude_defaults=True)})
        save_model(network.module, path, card)


if __name__ == "__main__":
    main()
