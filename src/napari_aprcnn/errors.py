"""The typed errors. Each also inherits the built-in error that a caller would catch anyway.

A message says what was got, what was expected and what to do.
"""

from __future__ import annotations

__all__ = [
    "AprcnnError",
    "AxesError",
    "CancelledError",
    "ConfigError",
    "ConversionError",
    "DeviceError",
    "FileFormatError",
    "ImageDtypeError",
    "ImageError",
    "ImageValueError",
    "MissingDependencyError",
    "ModelNotFoundError",
    "NotEnoughMemoryError",
    "OutputError",
    "ParticleTreeError",
    "StageError",
    "TrainingDataError",
    "TrainingError",
    "WeightsError",
]


class AprcnnError(Exception):
    """Every error that this package raises on purpose."""


class ImageError(AprcnnError, ValueError):
    """An image that cannot be segmented: empty, of a wrong rank, ..."""


class AxesError(ImageError):
    """Axes that do not fit the shape of the image."""


class ImageDtypeError(AprcnnError, TypeError):
    """A voxel type that is not a real number: complex, object, text."""


class ImageValueError(ImageError):
    """Voxels that are not finite."""


class ConfigError(AprcnnError, ValueError):
    """A parameter out of its range, or a run file that cannot be replayed."""


class ConversionError(AprcnnError, RuntimeError):
    """A converter of another package that failed, crashed or took too long."""


class FileFormatError(AprcnnError, ValueError):
    """A file that cannot be read: truncated, of another format, of an absurd declared size."""


class OutputError(AprcnnError, OSError):
    """A result that cannot be written: no permission, disk full, folder missing."""


class ModelNotFoundError(AprcnnError, LookupError):
    """No model of that name and no file at that path."""


class WeightsError(AprcnnError, ValueError):
    """Weights of another architecture or shape, or a file that is no weights file."""


class DeviceError(AprcnnError, RuntimeError):
    """A device that was asked for by name and cannot be used."""


class NotEnoughMemoryError(AprcnnError, MemoryError):
    """Not even the smallest tiles fit the memory budget."""


class MissingDependencyError(AprcnnError, ImportError):
    """An optional package that this function needs is not installed."""


class TrainingDataError(AprcnnError, ValueError):
    """Image and label pairs that cannot be trained on."""


class TrainingError(AprcnnError, RuntimeError):
    """A training whose process has ended before it was done."""


class CancelledError(AprcnnError, RuntimeError):
    """The caller's ``should_cancel`` said yes. Nothing was written."""


class ParticleTreeError(AprcnnError, ValueError):
    """Cells that are no particle tree: holes, overlaps, a jump of more than one level between neighbours."""


class StageError(AprcnnError, ValueError):
    """A pooling stage that a tree does not have, or features that do not belong to it."""
