"""Options that the chosen model does not look at, so that nobody thinks they did something."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
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
    """Head of a model for volumes, by its card or the one in the file's header; ``None``: a model for planes."""
    from napari_aprcnn.models.zoo import card_of

    try:
        card = card_of(model)
    except WeightsError:
        volume = _header(Path(model).expanduser()).get("volume")
        return str(volume.get("head", "flows")) if isinstance(volume, dict) else None
    return None if card.volume is None else card.volume.head


def _header(path: Path) -> dict[str, object]:
    """Return the card in the header of a safetensors file, without a look at its weights."""
    from safetensors import SafetensorError, safe_open

    with suppress(SafetensorError, OSError, ValueError), safe_open(path, framework="numpy") as file:
        card = json.loads((file.metadata() or {}).get("card", "{}"))
        return card if isinstance(card, dict) else {}
    return {}
