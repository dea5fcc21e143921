"""What is known of a set of weights: one JSON card beside each weights file. No torch here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from napari_aprcnn.errors import ConfigError, WeightsError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.models.volume_config import VolumeNetConfig

__all__ = ["ModelCard", "read_card"]


class ModelCard(Frozen):
    """A set of weights: what it is, what made it and what it reached.

    Attributes
    ----------
    name
        Name in the zoo, for example ``fastercellpose-v3``.
    architecture
        Network of the family, for example ``faster_v3``.
    title
        One line for people.
    data
        What it was trained on.
    licence
        Of the weights.
    seed, command
        What repeats the training.
    metrics
        Measured figures, by name.
    sha256
        Of the weights file, 64 hexadecimal digits; empty until saved.
    diameter_px
        Diameter of nuclei that it was trained at, in pixels: images are rescaled to it.
    second_channel
        What the second input channel holds.
    border_px
        Zeros to add around an image before the network.
    volume
        Layers of a network for volumes; ``None`` for networks of planes.
    relative_error
        Of the conversion to particles that networks for volumes were trained with.
    settings
        Thresholds that were tuned for a StarDist or three-class head, by their names.
    int8_spans
        Ranges (low, high) of what the pointwise convolutions of a separable network multiply, for products of 8 bits;
        empty: not measured.
    date
        Day of the training, YYYY-MM-DD.
    """

    name: str = Field(min_length=1, max_length=200)
    architecture: str
    title: str
    data: str
    licence: str
    seed: int | None = None
    command: str = ""
    metrics: dict[str, Any] = Field(default_factory=dict)
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    diameter_px: float = Field(default=25.0, gt=0, le=10_000)
    second_channel: Literal["zero", "asinh"] = "zero"
    border_px: int = Field(default=24, ge=0, le=256)
    volume: VolumeNetConfig | None = None
    relative_error: float = Field(default=0.1, gt=0, le=1)
    settings: dict[str, float] = Field(default_factory=dict)
    int8_spans: dict[str, tuple[float, float]] = Field(default_factory=dict)
    date: str = ""

    def to_json(self) -> str:
        """Return the card as indented JSON."""
        return self.model_dump_json(indent=2) + "\n"


def read_card(path: Path) -> ModelCard:
    """Read a card.

    Raises
    ------
    WeightsError
        If there is no card, or it is no JSON object with the fields of a card.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"the model card {path} is missing; it belongs beside the weights file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"the model card {path} cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise WeightsError(f"the model card {path} holds a {type(values).__name__}, expected a JSON object")
    try:
        return ModelCard(**values)
    except (ConfigError, TypeError) as error:
        raise WeightsError(f"the model card {path} is not valid: {error}") from error
