"""`ParticleTensor`: features, and the stage that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from napari_aprcnn.apr.tree import ParticleTree
from napari_aprcnn.errors import StageError
from napari_aprcnn.nn.stage import Forest, Stage

__all__ = ["ParticleTensor", "concatenate"]


@dataclass(frozen=True, eq=False)
class ParticleTensor:
    """Features of the particles of a batch, channels last; what particle layers take and give.

    Attributes
    ----------
    features
        [rows, channels]; the rows of all trees one after the other.
    stage
        Which rows they are.

    Raises
    ------
    StageError
        If the features have not one row for each row of the stage.
    """

    features: Tensor
    stage: Stage

    def __post_init__(self) -> None:
        shape = self.features.shape
        if len(shape) != 2 or shape[0] != self.stage.rows:
            raise StageError(f"got features of shape {tuple(shape)}, expected [{self.stage.rows}, channels]")

    @classmethod
    def from_trees(
        cls,
        trees: ParticleTree | Iterable[ParticleTree] | Forest,
        values: Tensor | Sequence[Tensor] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Self:
        """Features of whole trees.

        Parameters
        ----------
        trees
            One tree or several.
        values
            One tensor [N] or [N, channels] for each tree (or one for all, concatenated); by default the intensities.
        dtype, device
            Of the features.

        Raises
        ------
        StageError
            If a tree has neither intensities nor values.
        """
        forest = trees if isinstance(trees, Forest) else Forest(trees)
        if values is None:
            missing = [i for i, tree in enumerate(forest.trees) if tree.intensities is None]
            if missing:
                raise StageError(
                    f"got trees {missing} without intensities, expected values; give them, or convert an image"
                )
            # uint16 is no torch dtype that converts everywhere.
            values = [torch.from_numpy(np.asarray(tree.intensities, np.float32)) for tree in forest.trees]
        parts = [values] if isinstance(values, Tensor) else list(values)
        columns = [part if part.ndim == 2 else part[:, None] for part in parts]
        return cls(torch.cat(columns).to(device=device, dtype=dtype), forest.stage(0))

    # --- what it is -----------------------------------------------------------------------------------------
    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.features.shape[1]

    @property
    def batch_size(self) -> int:
        """Number of trees."""
        return len(self.stage.forest)

    @property
    def dtype(self) -> torch.dtype:
        """Of the features."""
        return self.features.dtype

    @property
    def device(self) -> torch.device:
        """Of the features."""
        return self.features.device

    def item(self, index: int) -> Tensor:
        """Features of one tree; a view [its rows, channels]."""
        starts = self.stage.starts
        return self.features[starts[index] : starts[index + 1]]

    # --- changed copies -------------------------------------------------------------------------------------
    def with_features(self, features: Tensor) -> Self:
        """Give the same stage other features."""
        return type(self)(features, self.stage)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As `torch.Tensor.to`; tables follow when a layer needs them."""
        return self.with_features(self.features.to(*args, **kwargs))

    def detach(self) -> Self:
        """As `torch.Tensor.detach`."""
        return self.with_features(self.features.detach())

    def __repr__(self) -> str:
        return f"ParticleTensor({tuple(self.features.shape)}, {self.dtype}, {self.device}, {self.stage})"


def concatenate(tensors: Sequence[ParticleTensor]) -> ParticleTensor:
    """Join along the channels, as a skip connection does.

    Raises
    ------
    StageError
        If they are not of one stage.
    """
    first = tensors[0]
    if any(other.stage is not first.stage for other in tensors):
        raise StageError(f"got features of {[str(t.stage) for t in tensors]}, expected one and the same stage")
    return first.with_features(torch.cat([t.features for t in tensors], dim=1))
