"""Lengths of file formats in micrometres."""

from __future__ import annotations

import math

__all__ = ["in_um", "plausible_um"]

# OME's names, ImageJ's spellings, NGFF's long names; both micro signs (U+00B5 and U+03BC) occur in files.
_UM = {
    "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "micrometers": 1.0, "micrometres": 1.0, "u": 1.0, "µ": 1.0, "μ": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3, "nanometers": 1e-3, "nanometres": 1e-3,
    "pm": 1e-6, "picometer": 1e-6, "picometre": 1e-6, "å": 1e-4, "angstrom": 1e-4, "ångström": 1e-4,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "millimeters": 1e3, "millimetres": 1e3,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4, "centimeters": 1e4, "centimetres": 1e4,
    "dm": 1e5, "m": 1e6, "meter": 1e6, "metre": 1e6, "meters": 1e6, "metres": 1e6,
    "inch": 25400.0, "inches": 25400.0, "in": 25400.0, '"': 25400.0,
    "mil": 25.4, "thou": 25.4,
}  # fmt: skip

_LARGEST_VOXEL_UM = 1e4
_SMALLEST_VOXEL_UM = 1e-6


def in_um(value: float | str | None, unit: str | None, *, default: str | None = None) -> float | None:
    r"""Convert a length to micrometres.

    Parameters
    ----------
    value
        The length, in `unit`; text is parsed.
    unit
        Name of the unit in any common spelling, or the escaped form that ImageJ writes (``\u00B5m``).
    default
        Unit where `unit` is missing.

    Returns
    -------
    float or None
        Micrometres; ``None`` where the value is no positive finite number, or the unit is unknown or none
        (``pixel``, ``reference frame``).

    Examples
    --------
    >>> in_um(250, "nm"), in_um("0.5", r"\u00B5m"), in_um(1, "pixel")
    (0.25, 0.5, None)
    """
    factor = _factor(unit or default)
    if value is None or factor is None:
        return None
    try:
        number = float(value) * factor
    except (TypeError, ValueError):
        return None
    return number if plausible_um(number) else None


def plausible_um(value: float) -> bool:
    """Whether a number can be the edge of a voxel, in micrometres.

    Examples
    --------
    >>> plausible_um(0.2), plausible_um(float("nan")), plausible_um(0.0)
    (True, False, False)
    """
    return math.isfinite(value) and _SMALLEST_VOXEL_UM <= value <= _LARGEST_VOXEL_UM


def _factor(unit: str | None) -> float | None:
    if not unit:
        return None
    text = str(unit).strip().strip("\x00")
    if "\\u" in text:
        try:
            text = text.encode("latin-1", "ignore").decode("unicode_escape")
        except UnicodeDecodeError:
            return None
    if text == "Å":
        return _UM["å"]
    return _UM.get(text) or _UM.get(text.lower())
