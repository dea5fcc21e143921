"""Mode compatible against what pyapr 1.0.7 made of the same images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import conversion_tools as tools
from napari_aprcnn import _kernels
from napari_aprcnn.apr.convert import level_grid, sample_values
from napari_aprcnn.config import ConversionConfig

VECTORS = Path(__file__).parents[1] / "data" / "conversion_pyapr.npz"
ORACLE = Path(__file__).resolve().parents[3] / "shared" / "oracle" / "conversion"
NAMES = sorted({name.split("/")[0] for name in np.load(VECTORS).files})


def config_of(parameters):
    """pyapr's parameters (its x is our y) as ours."""
    get = {
        "dx": 1.0, "dy": 1.0, "dz": 1.0, "psfx": 2.0, "gradient_smoothing": 3.0, "rel_error": 0.1, "Ip_th": 0.0,
        "sigma_th": 0.0, "sigma_th_max": 0.0, "grad_th": 0.0, "auto_parameters": False,
        "neighborhood_optimization": True,
    } | parameters  # fmt: skip
    return ConversionConfig(
        mode="compatible",
        relative_error=get["rel_error"],
        smoothing=get["gradient_smoothing"],
        intensity_threshold=get["Ip_th"],
        sigma_threshold=get["sigma_th"],
        sigma_threshold_max=get["sigma_th_max"],
        gradient_threshold=get["grad_th"],
        auto_thresholds=get["auto_parameters"],
        spacing=(get["dz"], get["dx"], get["dy"]),
        psf=get["psfx"],
        neighbourhood_optimisation=get["neighborhood_optimization"],
    )


def require_agreement(image, config, levels, values):
    grid = level_grid(image, config)
    got = tools.levels_of_voxels(grid.levels, grid.shape)
    assert (got == levels).mean() >= 0.999
    assert grid.particles == pytest.approx(len(values), rel=1e-3)
    if (got == levels).all():
        volume = image.reshape(grid.shape)
        rows = tools.rows_of(grid.levels, grid.shape, grid.level_max)
        np.testing.assert_array_equal(sample_values(volume, *rows, level_max=grid.level_max, repeated=True), values)
    return (got == levels).all()


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_small_images(name, kernels):
    with np.load(VECTORS) as vectors:
        image, levels, values = (vectors[f"{name}/{part}"] for part in ("image", "levels", "values"))
        parameters = json.loads(str(vectors[f"{name}/parameters"]))
    before = _kernels.use_kernels(kernels)
    try:
        assert require_agreement(image, config_of(parameters), levels, values)
    finally:
        _kernels.use_kernels(before)


@pytest.mark.shared
@pytest.mark.parametrize("path", sorted(ORACLE.glob("*.npz")) or [None], ids=lambda path: getattr(path, "stem", "none"))
def test_the_oracle(path):
    if path is None:
        pytest.skip("the oracle vectors are not here")
    with np.load(path) as vectors:
        if "meta" not in vectors.files:
            cases = {name.split("_")[0] for name in vectors.files}
            for case in sorted(cases):
                shape, wanted = tuple(vectors[f"{case}_shape"].tolist()), vectors[f"{case}_L"]
                top = max(1, int(max(shape) - 1).bit_length()) - 1
                for optimise in (0, 1):
                    wanted_levels = np.clip(wanted, 1, top).astype(np.uint8)
                    got = _kernels.conversion.pull(wanted_levels, top, optimise=bool(optimise))
                    expected = vectors[f"{case}_opt{optimise}_level_map"]
                    assert (tools.levels_of_voxels(got, shape) == expected).all()
            return
        image, levels, values = vectors["image"], vectors["level_map"], vectors["parts"]
        meta = json.loads(str(vectors["meta"]))
    if image.ndim == 1:
        image = image[None]
    config = config_of({name: meta[name] for name in meta if name in known_names()})
    require_agreement(image, config, levels, values)


def known_names():
    return {
        "dx", "dy", "dz", "psfx", "gradient_smoothing", "rel_error", "Ip_th", "sigma_th", "sigma_th_max", "grad_th",
        "auto_parameters", "neighborhood_optimization",
    }  # fmt: skip
