"""Options that the chosen model does not look at, so that nobody thinks they did something."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import ModelNotFoundError, WeightsError

__all__ = ["OPTIONS", "ignored_options"]

_OF_PLANES = ("diameter", "normalise", "stitch_iou", "tile", "augment")
_OF_VOLUMES = ("apr_error", "particle_stages", "zoom", "outline", "grow")
_OF_FLOWS = ("probability_threshold", "flow_threshold", "min_size", "steps", "resize")
OPTIONS = (*_OF_PLANES, *_OF_VOLUMES, *_OF_FLOWS)
"""Options that not every model looks at, as parameters of the command are called."""


def ignored_options(given: Collection[str], config: SegmentConfig) -> list[str]:
    """Return a note for each option that will have no effect.

    Parameters
    ----------
    given
        Names of the options that were given, out of `OPTIONS`.
    config
        Its model and mode are looked at.

    Examples
    --------
    >>> ignored_options(["zoom", "steps"], SegmentConfig(model="fastercellpose-v3"))
    ['--zoom is ignored: fastercellpose-v3 is a model for planes']
    """
    try:
        head = _head_of(config.model)
    except (ModelNotFoundError, WeightsError):
        return []  # the run will say what is wrong with it
    reasons: dict[str, str] = {}
    name = Path(config.model).name
    if head is None:
        reasons |= dict.fromkeys(_OF_VOLUMES, f"{name} is a model for planes")
        if config.dimensionality != "stitch":
            reasons["stitch_iou"] = "only --mode stitch joins the masks of planes"
    else:
        reasons |= dict.fromkeys(_OF_PLANES, f"{name} is a model for volumes")
        if head != "flows":
            reasons |= dict.fromkeys(_OF_FLOWS, f"{name} has no flows")
    return [f"--{option.replace('_', '-')} is ignored: {reasons[option]}" for option in given if option in reasons]


def _head_of(model: str) -> str | None:
    """Head of a model for volumes; ``None``: a model for planes, as is a file without a card."""
    from napari_aprcnn.models.zoo import card_of

    try:
        card = card_of(model)
    except WeightsError:
        return None
    return None if card.volume is None else card.volume.head
