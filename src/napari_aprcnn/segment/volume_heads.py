"""Labels from the heads of networks for volumes that are not flows: StarDist and three classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.segment.star_rays import StarRays, golden_spiral
from napari_aprcnn.segment.star_targets import cell_centres, particle_cells, voxel_cells
from napari_aprcnn.segment.stardist import StarDistSettings, stardist_instances
from napari_aprcnn.segment.three_class import ThreeClassSettings, three_class_instances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.models.volume_config import VolumeNetConfig
    from napari_aprcnn.models.volume_network import VolumeOutput

__all__ = [
    "StarPrediction",
    "class_labels",
    "class_logit",
    "decode_stardist",
    "decode_three_class",
    "rays_of",
    "settings_of",
    "star_cells",
    "star_labels",
    "star_logit",
    "star_prediction",
]

_LARGEST_LOGIT = 30.0


@cache
def _rays(number: int, spacing: tuple[float, float, float]) -> StarRays:
    return golden_spiral(number, spacing)


def rays_of(config: VolumeNetConfig) -> StarRays:
    """Directions of a StarDist head."""
    return _rays(config.rays, config.ray_spacing)


def star_cells(out: VolumeOutput, shape: tuple[int, int, int]) -> NDArray[np.int32]:
    """Cells of the rows of an output: of particles, or of the grid where the head worked on voxels."""
    grid = voxel_cells(shape, out.stage)
    if out.tree is None or len(out.features) == len(grid):
        return grid
    return particle_cells(out.tree, out.stage)


@dataclass(frozen=True, eq=False)
class StarPrediction:
    """Rows of a StarDist head that may become objects.

    Attributes
    ----------
    probability : (N,) float32
        Of an object.
    distances : (N, R) float32
        Voxels along the rays.
    points : (N, 3) float32
        z, y, x in voxels.
    floor
        Rows of lower probability are left out.
    shape
        (Z, Y, X) that the network saw.
    """

    probability: NDArray[np.float32]
    distances: NDArray[np.float32]
    points: NDArray[np.float32]
    floor: float
    shape: tuple[int, int, int]


def star_prediction(out: VolumeOutput, shape: tuple[int, int, int], *, floor: float = 0.0) -> StarPrediction:
    """Take what objects are made of from an output, without a reference to it."""
    logits = np.clip(out.features[:, 0], -_LARGEST_LOGIT, _LARGEST_LOGIT)
    probability = np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float32)
    rows = np.flatnonzero(~(probability < np.float32(floor)))  # what is no number is refused later
    points = cell_centres(star_cells(out, shape)[rows]).astype(np.float32)
    return StarPrediction(probability[rows], out.features[rows, 1:], points, floor, shape)


def star_labels(
    said: StarPrediction,
    config: VolumeNetConfig,
    settings: StarDistSettings,
    *,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.uint32]:
    """Star-convex objects of what was kept.

    Raises
    ------
    ConfigError
        If objects of lower probability are asked for than were kept.
    MissingDependencyError, CancelledError
        As `decode_stardist`.
    """
    if settings.probability_threshold < said.floor:
        raise ConfigError(
            f"the outline asks for objects of probability {settings.probability_threshold:.3g} on, but only those from "
            f"{said.floor:.3g} on were kept; run the network again, or take a higher outline"
        )
    rays = rays_of(config)
    return stardist_instances(
        said.probability, said.distances, said.points, said.shape, rays, settings, should_cancel=should_cancel
    )[0]


def star_logit(out: VolumeOutput, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Logit of the object probability on voxels, constant on cells; (Z, Y, X) float32."""
    coarse = out.dense[..., 0]
    for axis, n in enumerate(shape):
        coarse = np.repeat(coarse, 1 << out.stage, axis=axis).take(range(n), axis=axis)
    return np.ascontiguousarray(coarse)


def decode_stardist(
    out: VolumeOutput,
    config: VolumeNetConfig,
    shape: tuple[int, int, int],
    settings: StarDistSettings | None = None,
    *,
    should_cancel: Callable[[], bool] | None = None,
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Star-convex objects.

    Parameters
    ----------
    out
        Of a network with a StarDist head.
    config
        Of the network.
    shape
        (Z, Y, X) that the network saw.
    settings
        Thresholds.
    should_cancel
        Asked between the steps.

    Returns
    -------
    labels : (Z, Y, X) uint32
    probability : (Z, Y, X) float32
        Logit of the object probability, constant on cells.

    Raises
    ------
    MissingDependencyError
        Without the stardist package.
    CancelledError
        If `should_cancel` said yes.
    """
    said, settings = star_prediction(out, shape), settings or StarDistSettings()
    return star_labels(said, config, settings, should_cancel=should_cancel), star_logit(out, shape)


def class_labels(
    logits: NDArray[np.float32],
    settings: ThreeClassSettings | None = None,
    *,
    should_cancel: Callable[[], bool] | None = None,
) -> NDArray[np.uint32]:
    """Objects from the logits (Z, Y, X, 3) of background, interior and boundary."""
    shares = logits - logits.max(-1, keepdims=True)
    np.exp(shares, out=shares)
    shares /= shares.sum(-1, keepdims=True)
    return three_class_instances(np.moveaxis(shares, -1, 0), settings, should_cancel=should_cancel)


def class_logit(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logit of being inside, interior or boundary; (Z, Y, X) float32."""
    top = logits.max(-1)
    inside = np.exp(logits[..., 1] - top) + np.exp(logits[..., 2] - top)
    inside = np.log(np.maximum(inside, 1e-12, out=inside), out=inside)
    outside = np.exp(logits[..., 0] - top)
    inside -= np.log(np.maximum(outside, 1e-12, out=outside), out=outside)
    return np.asarray(inside, np.float32)


def decode_three_class(
    out: VolumeOutput, settings: ThreeClassSettings | None = None, *, should_cancel: Callable[[], bool] | None = None
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Objects from background, interior and boundary.

    Returns
    -------
    labels : (Z, Y, X) uint32
    probability : (Z, Y, X) float32
        Logit of being inside, interior or boundary.
    """
    return class_labels(out.dense, settings, should_cancel=should_cancel), class_logit(out.dense)


def settings_of(head: str, values: dict[str, float], *, outline: float = 0.5) -> Any:
    """Thresholds of a card as settings of its head.

    Parameters
    ----------
    head
        ``"stardist"`` or ``"three_class"``.
    values
        Settings by name, as a card holds them.
    outline
        As in `VolumeConfig`: the log-odds of it are added to those of the thresholds. StarDist: of objects; three
        classes: of interiors and of the foreground.

    Raises
    ------
    ConfigError
        If a name is unknown or a value out of range.
    """
    kinds: dict[str, Any] = {"stardist": StarDistSettings, "three_class": ThreeClassSettings}
    if head not in kinds:
        raise ConfigError(f"got settings for a {head} head, expected one of {', '.join(kinds)}")
    settings = kinds[head](**values)
    if outline == 0.5:
        return settings
    moved = ("probability_threshold",) if head == "stardist" else ("interior_threshold", "foreground_threshold")
    return settings.replace(**{name: _moved(getattr(settings, name), outline) for name in moved})


def _moved(threshold: float, outline: float) -> float:
    """Add the log-odds of two probabilities, of which the second is neither 0 nor 1."""
    yes, no = threshold * outline, (1.0 - threshold) * (1.0 - outline)
    return yes / (yes + no)
