"""Augmentation of labelled volumes: crops, rotations by 90 degrees, flips, rescaling, elastic deformation, grey values.

APR-CNN, section 5.3. Geometry and noise are MONAI's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import MissingDependencyError
from napari_aprcnn.models.network import using_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.train.volume_settings import VolumeTrainConfig

    Pair = tuple[NDArray[Any], NDArray[Any]]
    Window = Callable[[NDArray[Any], tuple[int, int, int], np.random.Generator], tuple[slice, ...]]

__all__ = ["augment", "turn"]

_EXACT = 1 << 24  # integers beyond are not all numbers in float32, in which MONAI moves labels


def turn(image: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator) -> Pair:
    """Flip along any axis and turn by 90 degrees in the plane: voxels may be longer along z.

    Planes that are longer along y or x are flipped alone: crops of one image have one shape.
    """
    for axis in range(3):
        if rng.random() < 0.5:
            image, labels = np.flip(image, axis), np.flip(labels, axis)
    quarter = int(rng.integers(4))
    if image.shape[1] == image.shape[2]:
        image, labels = (np.rot90(a, quarter, axes=(1, 2)) for a in (image, labels))
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def augment(
    image: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator, config: VolumeTrainConfig, window: Window
) -> Pair:
    """Augmented crop of a labelled image.

    Parameters
    ----------
    image, labels : (Z, Y, X)
    rng
        Decides everything.
    config
        How much.
    window
        Chooses the place of the crop.

    Returns
    -------
    image : float32, labels : as given
        Of at most the size of the crop; images that are smaller stay small.

    Raises
    ------
    MissingDependencyError
        Without MONAI.
    """
    part = window(labels, config.crop, rng)
    image, labels = np.asarray(image[part], np.float32), labels[part]
    if config.rescale > 1 or config.elastic > 0:
        with using_threads(1):  # as in worker processes: with more the sums of a filter are others in the last bits
            image, labels = _deform(image, labels, rng, config)
    image, labels = turn(image, labels, rng)
    low, high = np.percentile(image, [1, 99.8])
    contrast = max(float(high - low), 1e-6)
    if config.gamma > 1 and rng.random() < 0.5:
        exponent = np.exp(rng.uniform(-1, 1) * np.log(config.gamma))
        above = np.maximum((image - low) / contrast, 0)
        image = (low + contrast * above**exponent).astype(np.float32)
    if config.noise > 0 and rng.random() < 0.5:
        sd = rng.uniform(0, config.noise) * contrast
        image = image + rng.normal(0, sd, image.shape).astype(np.float32)
    return image, labels


def _deform(image: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator, config: VolumeTrainConfig) -> Pair:
    try:
        from monai.transforms import Affine, Rand3DElastic
    except ImportError as error:
        raise MissingDependencyError(
            "augmentation of labelled volumes needs MONAI; install it with: pip install 'napari-aprcnn[train]'"
        ) from error
    factor = np.log(config.rescale)
    scale = tuple(float(np.exp(v)) for v in rng.uniform(-factor, factor) + rng.normal(0, factor / 6, 3))
    if image.shape[0] == 1 or config.elastic == 0:
        affine = Affine(scale_params=[1 / s for s in scale], padding_mode="reflection", image_only=True)
        return _applied(image, labels, lambda array, mode: affine(array, mode=mode))
    sigma = min(max(min(image.shape) / 10.0, 2.0), 8.0)
    # What is left of uniform noise after the filter: 0.577 / (2 sqrt(pi) sigma)^(3/2) standard deviations.
    magnitude = (0.0, config.elastic * 11.6 * sigma**1.5)
    elastic = Rand3DElastic(
        sigma_range=(sigma, sigma),
        magnitude_range=magnitude,
        prob=1.0,
        scale_range=[(1 / s - 1, 1 / s - 1) for s in scale],
        padding_mode="reflection",
    )
    seed = int(rng.integers(2**31))

    def deform(array: NDArray[Any], mode: str) -> Any:
        elastic.set_random_state(seed=seed)
        return elastic(array, mode=mode)

    return _applied(image, labels, deform)


def _applied(image: NDArray[Any], labels: NDArray[Any], change: Callable[[NDArray[Any], str], Any]) -> Pair:
    if labels.size and max(abs(int(labels.min())), int(labels.max())) > _EXACT:
        ids, numbers = np.unique(labels, return_inverse=True)
        bent, moved = _applied(image, numbers.reshape(labels.shape), change)
        return bent, ids[moved]
    bent = np.asarray(change(image[None], "bilinear"))[0]
    moved = np.asarray(change(labels[None].astype(np.float32), "nearest"))[0]
    return bent.astype(np.float32), np.rint(moved).astype(labels.dtype)
