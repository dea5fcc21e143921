"""Labels from the heads of networks for volumes that are not flows: StarDist and three classes."""

from __future__ import annotations

from collections.abc import Callable
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

__all__ = ["decode_stardist", "decode_three_class", "rays_of", "settings_of", "star_cells"]

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
    logits = np.clip(out.features[:, 0], -_LARGEST_LOGIT, _LARGEST_LOGIT)
    labels, _ = stardist_instances(
        1.0 / (1.0 + np.exp(-logits)),
        out.features[:, 1:],
        cell_centres(star_cells(out, shape)).astype(np.float32),
        shape,
        rays_of(config),
        settings,
        should_cancel=should_cancel,
    )
    coarse = out.dense[..., 0]
    for axis, n in enumerate(shape):
        coarse = np.repeat(coarse, 1 << out.stage, axis=axis).take(range(n), axis=axis)
    return labels, np.ascontiguousarray(coarse)


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
    logits = np.moveaxis(out.dense, -1, 0)
    top = logits.max(0)
    weights = np.exp(logits - top)
    total = weights.sum(0)
    labels = three_class_instances(weights / total, settings, should_cancel=should_cancel)
    inside = np.log(np.maximum(weights[1] + weights[2], 1e-12)) - np.log(np.maximum(weights[0], 1e-12))
    return labels, np.ascontiguousarray(inside, np.float32)


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
