"""What the options mean: parameters of the run, and results to write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_aprcnn.cli.channels import choose_channel
from napari_aprcnn.cli.ignored import OPTIONS, ignored_options
from napari_aprcnn.config import AxisMapping, SegmentConfig
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.io.source import ImageSource

__all__ = ["Outputs", "Settings", "model_path", "parse_spacing"]

_TOP = {
    "model": "model", "device": "device", "precision": "precision", "mode": "dimensionality", "diameter": "diameter_px",
    "threads": "threads", "seed": "seed", "stitch_iou": "stitch_iou",
}  # fmt: skip
_FLOWS = {
    "probability_threshold": "probability_threshold", "min_size": "min_size_vox", "steps": "n_steps",
    "resize": "resize_factor",
}  # fmt: skip
_VOLUME = {
    "apr_error": "relative_error", "particle_stages": "particle_stages", "zoom": "zoom", "outline": "outline",
    "grow": "grow_vox",
}  # fmt: skip
_TILES = {"tile": "tile_px", "augment": "augment", "memory_gb": "memory_gb"}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Results to write.

    Attributes
    ----------
    folder_or_file
        What ``-o`` gave.
    format
        ``tif``, ``ome-tif`` or ``zarr``.
    rois, geojson, csv, overlay, probability, flows, particles
        Whether to write each; particles as ``.apr``.
    overwrite
        Replace results that exist.
    """

    folder_or_file: Path | None = None
    format: str = "tif"
    rois: bool = False
    geojson: bool = False
    csv: bool = False
    overlay: bool = False
    probability: bool = False
    flows: bool = False
    particles: bool = False
    overwrite: bool = False

    @property
    def suffix(self) -> str:
        """Suffix of label images."""
        return {"tif": ".tif", "ome-tif": ".ome.tif", "zarr": ".zarr"}[self.format]

    def names(self, stem: str) -> dict[str, str]:
        """Return the file name of each result of an image."""
        wanted = {
            "labels": f"{stem}_labels{self.suffix}",
            "run": f"{stem}_run.json",
            "rois": f"{stem}_rois.zip" if self.rois else "",
            "geojson": f"{stem}_outlines.geojson" if self.geojson else "",
            "csv": f"{stem}_measurements.csv" if self.csv else "",
            "overlay": f"{stem}_overlay.png" if self.overlay else "",
            "probability": f"{stem}_probability{self.suffix}" if self.probability else "",
            "flows": f"{stem}_flows{self.suffix}" if self.flows else "",
            "particles": f"{stem}_particles.apr" if self.particles else "",
        }
        return {kind: name for kind, name in wanted.items() if name}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Parameters of a run before an image is known.

    Attributes
    ----------
    base
        The configuration file, or the defaults.
    has_file
        Whether there was a configuration file.
    changes
        Fields that options override.
    axes, channel, spacing_um
        What the options say of the image; ``None``: as the file or the configuration say.
    series
        Image of a file with several.
    options
        Names of the options given that not every model looks at.
    """

    base: SegmentConfig = field(default_factory=SegmentConfig)
    has_file: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    axes: str | None = None
    channel: int | None = None
    spacing_um: tuple[float, float, float] | None = None
    series: int = 0
    options: tuple[str, ...] = ()

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> Settings:
        """Take the options of the command line.

        Raises
        ------
        ConfigError
            If the configuration file cannot be read, or a value is out of its range.
        """
        values = {name: getattr(value, "value", value) for name, value in given.items() if value is not None}
        path = values.get("config")
        base = SegmentConfig()
        if path is not None:
            base = SegmentConfig.from_file(path)
            base = base.replace(model=model_path(base.model, beside=Path(path).absolute().parent))
        changes: dict[str, Any] = {target: values[name] for name, target in _TOP.items() if name in values}
        if "model" in changes:
            changes["model"] = model_path(changes["model"])
        flows = {target: values[name] for name, target in _FLOWS.items() if name in values}
        if "flow_threshold" in values:
            # One option for 2D and 3D: whoever sets it means the image at hand.
            flows |= {"flow_threshold": values["flow_threshold"], "flow_threshold_3d": values["flow_threshold"]}
        tiles = {target: values[name] for name, target in _TILES.items() if name in values}
        volume = {target: values[name] for name, target in _VOLUME.items() if name in values}
        if volume:
            changes["volume"] = base.volume.replace(**volume)
        if flows:
            changes["flows"] = base.flows.replace(**flows)
        if tiles:
            changes["tiles"] = base.tiles.replace(**tiles)
        if "normalise" in values:
            changes["normalise"] = base.normalise.replace(mode=values["normalise"])
        if "probability" in values or "flows" in values:
            changes["keep_flows"] = bool(values.get("probability") or values.get("flows"))
        base.replace(**changes)
        return cls(
            base=base,
            has_file=path is not None,
            changes=changes,
            axes=AxisMapping(order=values["axes"]).order if "axes" in values else None,
            channel=values.get("channel"),
            spacing_um=parse_spacing(values["spacing"]) if "spacing" in values else None,
            series=int(values.get("series", 0)),
            options=tuple(name for name in OPTIONS if name in values),
        )

    def ignored(self) -> list[str]:
        """Return a note for each option that the model does not look at."""
        return ignored_options(self.options, self.base.replace(**self.changes)) if self.options else []

    def config_for(self, source: ImageSource) -> tuple[SegmentConfig, list[str]]:
        """Return the configuration for an image, with axes and voxel size spelled out, and notes on what was taken.

        Options come before the configuration file, that before the image file.
        """
        notes = list(source.notes)
        recorded = self.base.axes
        if self.axes is not None:
            order = self.axes
        elif recorded is not None and len(recorded.order) == source.data.ndim:
            order = recorded.order
        else:
            order = source.axes
            if not source.axes_known:
                notes.append(f"the file does not name its axes; {order} is taken: set --axes if that is wrong")
        channel = self.channel
        if channel is None and recorded is not None and "C" in recorded.order:
            channel = recorded.channel
        elif channel is None:
            channel, note = choose_channel(source, order)
            notes += [] if note is None else [note]
        spacing = self.spacing_um or self.base.spacing_um or source.spacing_um
        if self.spacing_um is None and self.base.spacing_um and source.spacing_um:
            ratios = [ours / theirs for ours, theirs in zip(self.base.spacing_um, source.spacing_um, strict=True)]
            if max(ratios) > 1.01 or min(ratios) < 0.99:
                notes.append(
                    f"the voxel size of the configuration {self.base.spacing_um} is used, not that of the file"
                )
        mapping = AxisMapping(order=order, channel=channel if "C" in order or self.channel is not None else 0)
        return self.base.replace(**{**self.changes, "axes": mapping, "spacing_um": spacing}), notes


def model_path(model: str, *, beside: Path | None = None) -> str:
    """Return the absolute path of a weights file, so that a record of it holds in any folder; names stay names.

    Parameters
    ----------
    model
        Name of a model, or path of a weights file.
    beside
        Folder where a file that is not at its path is looked for.
    """
    from napari_aprcnn.models import zoo

    if any(weights.stem == model for weights in zoo.WEIGHTS_FOLDER.glob("*.safetensors")):
        return model
    with suppress(OSError, ValueError):  # a name too long for a path, or with a null byte: loading it says so
        path = Path(model).expanduser()
        for place in (path, beside / path.name) if beside is not None else (path,):
            if place.is_file():
                return str(place.absolute())
    return model


def parse_spacing(text: str) -> tuple[float, float, float]:
    """Read a voxel size: ``z,y,x``, ``y,x`` or one number, in micrometres.

    Raises
    ------
    ConfigError
        If it is none of these.

    Examples
    --------
    >>> parse_spacing("0.5,0.2,0.2"), parse_spacing("0.3")
    ((0.5, 0.2, 0.2), (0.3, 0.3, 0.3))
    """
    parts = [part for part in re.split(r"[,\sx]+", text.strip()) if part]
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or not all(0 < number < float("inf") for number in numbers):
        raise ConfigError(
            f"got --spacing {text!r}, expected positive um as z,y,x or y,x or one number: for example 0.5,0.2,0.2"
        )
    if len(numbers) == 2:
        numbers = [numbers[0], *numbers]
    z, y, x = numbers * 3 if len(numbers) == 1 else numbers
    return z, y, x
