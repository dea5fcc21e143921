"""Max pooling and upsampling between stages."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from napari_aprcnn._kernels.particle_stages import pool, upsample
from napari_aprcnn.errors import StageError
from napari_aprcnn.nn.tensor import ParticleTensor, concatenate

__all__ = ["APRMaxPool", "APRUpsample", "SkipPair"]


class APRMaxPool(nn.Module):
    """Max pooling by two: the finest level is reduced into its parents, coarser particles stay (APR-CNN, section 3.3).

    At PRR 1 this is ``torch.nn.MaxPool3d(2, ceil_mode=True)``.
    """

    def forward(self, x: ParticleTensor) -> ParticleTensor:
        """Pool.

        Returns
        -------
        ParticleTensor
            Of the next coarser stage.

        Raises
        ------
        StageError
            If there is no coarser stage.
        """
        coarse = x.stage.coarser()
        out, _ = pool(x.features, x.stage.pool_children(x.device), x.stage.pool_ranges(), coarse.rows)
        return ParticleTensor(out, coarse)


class APRUpsample(nn.Module):
    """Upsampling by two: every cell of the finer stage's finest level takes its parent's features; the rest is copied.

    At PRR 1 this is ``torch.nn.Upsample(scale_factor=2)``, cut to the finer grid.
    """

    def forward(self, x: ParticleTensor) -> ParticleTensor:
        """Upsample.

        Returns
        -------
        ParticleTensor
            Of the next finer stage.

        Raises
        ------
        StageError
            At stage 0.
        """
        if x.stage.depth == 0:
            raise StageError("got features of stage 0, which has no finer one; expected them after a pooling")
        fine = x.stage.finer()
        return ParticleTensor(upsample(x.features, fine.pool_children(x.device), fine.pool_ranges(), fine.rows), fine)


@dataclass(frozen=True, eq=False)
class SkipPair:
    """A skip connection that is not made yet: features, and those of the next coarser stage to be upsampled to them.

    What `APRConv` takes for their concatenation. For inference it needs neither copy.

    Attributes
    ----------
    fine, coarse
        The first channels and the last ones.

    Raises
    ------
    StageError
        If `coarse` is not of the stage after `fine`.
    """

    fine: ParticleTensor
    coarse: ParticleTensor

    def __post_init__(self) -> None:
        if self.fine.stage.coarser() is not self.coarse.stage:
            raise StageError(
                f"got features of {self.fine.stage} and {self.coarse.stage}, expected a stage and the next coarser one "
                "of the same trees"
            )

    @property
    def channels(self) -> int:
        """Channels of both."""
        return self.fine.channels + self.coarse.channels

    def joined(self) -> ParticleTensor:
        """Upsample and concatenate."""
        return concatenate([self.fine, APRUpsample()(self.coarse)])
