"""A small labelled volume, a network of two channels and a training of seconds."""

from __future__ import annotations

import numpy as np
import tifffile
from scipy import ndimage

from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.train.simulation import SimulationConfig
from napari_aprcnn.train.volume_settings import VolumeTrainConfig
from napari_aprcnn.train.volume_sources import LabelledVolume

NET = VolumeNetConfig(channels=2, depth=2, head="flows", in_channels=2)
SIMULATION = SimulationConfig(shape=(16, 32, 32), diameter_px=(10, 12), scene="compact")


def balls(shape=(14, 32, 32), *, source="own", seed=0) -> LabelledVolume:
    """Two balls in noise."""
    grid = np.indices(shape)
    labels = np.zeros(shape, np.uint16)
    for number, share in enumerate((0.3, 0.7), 1):
        distance = sum((axis - share * n) ** 2 for axis, n in zip(grid, shape, strict=True))
        labels[distance < (0.2 * max(shape)) ** 2] = number
    rng = np.random.default_rng(seed)
    image = 100 + 400 * ndimage.gaussian_filter((labels > 0).astype(float), 1) + rng.normal(0, 5, shape)
    return LabelledVolume("balls", source, image.astype(np.uint16), labels)


def training(**changes) -> VolumeTrainConfig:
    """Two epochs of two steps on labelled crops, made in this process."""
    values = {"network": NET, "epochs": 2, "steps_per_epoch": 2, "crop": (12, 24, 24), "simulated": 0.0, "workers": 0}
    return VolumeTrainConfig(**{**values, "simulated_volumes": 1, "warmup_steps": 0, "elastic": 0.0, **changes})


def written(folder, volume):
    """The folder with a volume in it, as trainings read it."""
    for part, array in (("images", volume.image), ("labels", volume.labels)):
        (folder / part).mkdir(parents=True)
        tifffile.imwrite(folder / part / f"{volume.name}.tif", array)
    return folder
