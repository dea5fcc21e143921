"""Which form of a network is fastest for an image: how many of its stages should work on particles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from napari_aprcnn.models.volume_config import VolumeNetConfig, describe

if TYPE_CHECKING:
    from napari_aprcnn.apr.tree import ParticleTree

__all__ = ["choose_form", "choose_form_for", "expected_seconds", "stage_rows"]

# Seconds on two threads, measured (docs/volumes.md): of a multiply-add, and of an output value that is normalised,
# rectified and carried along.
_PARTICLES = (1.05e-11, 1.1e-9)
_FILTERED = (3.6e-12, 3e-10)  # kernels 3 x 3 x 3 of 16 channels and more (decisions 13 and 15)
_VOXELS = (1.0e-11, 2.2e-9)


def stage_rows(tree: ParticleTree, depth: int) -> list[int]:
    """Feature rows of the stages 0 .. depth of a tree.

    Raises
    ------
    StageError
        If the tree has fewer levels.
    """
    from napari_aprcnn.nn import Forest

    stage = Forest(tree).stage(0)
    rows = [stage.rows]
    for _ in range(depth):
        stage = stage.coarser()
        rows.append(stage.rows)
    return rows


def expected_seconds(config: VolumeNetConfig, shape: Sequence[int], rows: Sequence[int]) -> float:
    """Time of a pass on two threads, roughly.

    Parameters
    ----------
    config
        The network in the form that is asked about.
    shape
        (Z, Y, X) of the image.
    rows
        Of every stage, as `stage_rows` gives them.
    """
    seconds = 0.0
    for spec in describe(config):
        cells = 1
        for n in shape:
            cells *= -(-n // (1 << spec.stage))
        count, cost = (rows[spec.stage], _PARTICLES) if spec.particles else (cells, _VOXELS)
        if spec.particles and spec.taps == 27 and min(spec.inside, spec.outside) >= 16 and spec.inside % 8 == 0:
            cost = _FILTERED
        product, value = cost
        seconds += count * spec.outside * (spec.taps * spec.inside * product + value)
    return seconds


def choose_form(config: VolumeNetConfig, shape: Sequence[int], rows: Sequence[int]) -> int:
    """Number of particle stages that is expected to be fastest: 0 voxels alone, depth + 1 particles alone.

    Parameters
    ----------
    config
        The network, in any form.
    shape, rows
        As `expected_seconds` takes them.

    Examples
    --------
    >>> config = VolumeNetConfig()
    >>> choose_form(config, (64, 64, 64), [9_000, 3_000, 900, 250]) > 0
    True
    """
    forms = range(config.depth + 2)
    return min(forms, key=lambda k: expected_seconds(config.replace(particle_stages=k), shape, rows))


def choose_form_for(config: VolumeNetConfig, trees: Iterable[ParticleTree]) -> int:
    """Return what `choose_form` does, for several images together.

    Raises
    ------
    StageError
        If a tree has fewer levels than the network has poolings.
    """
    forms = [config.replace(particle_stages=k) for k in range(config.depth + 2)]
    seconds = [0.0] * len(forms)
    for tree in trees:
        rows = stage_rows(tree, config.depth)
        for index, form in enumerate(forms):
            seconds[index] += expected_seconds(form, tree.shape, rows)
    return min(range(len(forms)), key=lambda k: seconds[k])
