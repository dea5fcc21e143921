"""Skips on their way from the encoder to the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_aprcnn._kernels.waiting import leave_out_zeros, put_back_zeros

if TYPE_CHECKING:
    from napari_aprcnn.nn.stage import Stage
    from napari_aprcnn.nn.tensor import ParticleTensor

__all__ = ["Waiting"]


class Waiting:
    """Features that nobody looks at until `back`.

    Parameters
    ----------
    x
        What a ReLU gave.
    lean
        Whether large ones lie without their zeros meanwhile, where memory goes back to the system
        (`napari_aprcnn._kernels.waiting.leave_out_zeros`): the tensor holds nothing of use until `back`.
    """

    def __init__(self, x: ParticleTensor, *, lean: bool) -> None:
        self._x = x
        self._marks = leave_out_zeros(x.features) if lean else None

    @property
    def stage(self) -> Stage:
        """Where the features belong."""
        return self._x.stage

    def back(self) -> ParticleTensor:
        """Give the features, as they were."""
        if self._marks is not None:
            put_back_zeros(self._x.features, self._marks)
            self._marks = None
        return self._x
