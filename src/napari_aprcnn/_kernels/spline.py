"""Constants of the cubic smoothing spline that images are smoothed with before conversion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEAST_SMOOTHING", "SplineConstants", "spline_constants"]

LEAST_SMOOTHING = 1.0 / 24.0
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class SplineConstants:
    """One recursive filter: ``y[i] = x[i] + b1 y[i-1] + b2 y[i-2]`` forwards, then backwards, times ``gain``.

    Attributes
    ----------
    b1, b2, gain
        Exact float32 numbers.
    weights : (4, K) float32
        Boundary sums: first and second value of the forward, last and last but one of the backward recursion.
    """

    b1: float
    b2: float
    gain: float
    weights: NDArray[np.float32]

    @property
    def taps(self) -> int:
        """Number of samples that a boundary sum sees."""
        return int(self.weights.shape[1])


def _single(value: float) -> float:
    """Round to float32: the reference evaluates most of this in single precision."""
    return float(np.float32(value))


def spline_constants(smoothing: float) -> SplineConstants:
    """Evaluate the smoothing spline (Unser et al., IEEE Trans. Signal Processing 41, 834 (1993)) at one strength.

    Every step is a double-precision function rounded to float32, so that constants do not depend on the maths library.

    Parameters
    ----------
    smoothing
        The spline's lambda, above 1/24: below, the filter has no complex poles.

    Raises
    ------
    ValueError
        If the smoothing is too weak.
    """
    if not (math.isfinite(smoothing) and smoothing > LEAST_SMOOTHING):
        raise ValueError(f"got a smoothing of {smoothing}, expected more than 1/24")
    lam = _single(smoothing)
    root = _single(_single(24 * lam) * _single(math.sqrt(_single(3 + _single(144 * lam)))))
    xi = _single(_single(1 - _single(96 * lam)) + root)
    first = _single(_single(_single(_single(24 * lam) - 1) - _single(math.sqrt(xi))) / _single(24 * lam))
    rho = _single(first * _single(math.sqrt(_single(_single(_single(48 * lam) + root) / xi))))
    w = _single(math.atan(_single(math.sqrt(_single(_single(_single(144 * lam) - 1) / xi)))))
    if not 0 < rho < 1:
        raise ValueError(f"got a smoothing of {smoothing}, too close to 1/24 or too strong for single precision")
    square = rho * rho
    cosine = math.cos(w)
    b1 = _single(_single(2 * rho) * _single(cosine))
    middle = 1 - 2 * rho * cosine + square
    gain = _single(middle**2)
    c0 = _single((1 + square) / (1 - square) * middle / (1 + 2 * rho * cosine + square))
    gamma = _single((1 - square) / (1 + square) / math.tan(w))
    taps = math.ceil(abs(_single(_single(math.log(_single(_TOLERANCE))) / _single(math.log(rho)))))

    def power(k: int) -> float:
        return _single(rho**k)

    def causal(k: int) -> float:
        return _single(_single(power(k) * _single(math.sin(_single((k + 1) * w)))) / _single(math.sin(w)))

    def both(k: int) -> float:
        angle = _single(w * k)
        wave = _single(_single(math.cos(angle)) + _single(gamma * _single(math.sin(angle))))
        return _single(_single(_single(c0 * power(k)) * wave) / gain)

    f = np.array([causal(k) for k in range(taps + 3)], np.float32)
    q = np.array([both(k) for k in range(taps + 3)], np.float32)
    weights = np.empty((4, taps), np.float32)
    weights[0] = f[:taps]
    weights[1] = f[1 : taps + 1]
    if taps > 1:
        weights[1, 1] += f[0]
    weights[2] = np.float32(2) * q[:taps]
    weights[2, 0] = q[0]
    weights[3, 0] = q[1]
    weights[3, 1:] = q[: taps - 1] + q[2 : taps + 1]
    return SplineConstants(b1=b1, b2=_single(-square), gain=gain, weights=weights)
