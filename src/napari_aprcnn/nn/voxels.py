"""From particles to voxels and back, inside a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_aprcnn._kernels.particle_stages import cell_means, reconstruct
from napari_aprcnn.errors import StageError
from napari_aprcnn.nn.stage import Stage
from napari_aprcnn.nn.tensor import ParticleTensor

__all__ = ["Reconstruct", "Sample"]


def _item_cells(cells: Tensor, rows: slice) -> Tensor:
    """Cells of one tree. Those of an only tree stay the same tensor, for which a GPU keeps what it derives."""
    return cells if rows == slice(0, len(cells)) else cells[rows]


def dense_items(x: ParticleTensor) -> list[Tensor]:
    """Piecewise constant image of every tree, [1, channels, z, y, x] each; channels lie last in memory."""
    starts, cells = x.stage.starts, x.stage.cells(x.device)
    out = []
    for item in range(x.batch_size):
        rows = slice(starts[item], starts[item + 1])
        dense = reconstruct(x.features[rows], _item_cells(cells, rows), list(x.stage.grid_shape(item)))
        # The batch axis comes first: added after the permutation its stride would be the number of channels, and
        # torch's BatchNorm3d gives wrong gradients for such strides (torch 2.13, CPU).
        out.append(dense[None].permute(0, 4, 1, 2, 3))
    return out


class Reconstruct(nn.Module):
    """Piecewise constant image on the grid of the stage: shape ceil(image / 2^depth) (APR-CNN, hybrid networks).

    ``forward`` gives [batch, channels, z, y, x] in channels-last memory, ready for pixel layers; trees of different
    shape do not fit one tensor and raise `StageError` (`napari_aprcnn.nn.voxels.dense_items` gives a list).
    """

    def forward(self, x: ParticleTensor) -> Tensor:
        """Reconstruct."""
        parts = dense_items(x)
        shapes = {part.shape for part in parts}
        if len(shapes) > 1:
            raise StageError(
                f"got trees of shapes {sorted(tuple(s[2:]) for s in shapes)}, expected one shape for one tensor"
            )
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class Sample(nn.Module):
    """Mean of a pixel image over the cell of every row; the way back from pixel layers to particles."""

    def forward(self, dense: Tensor, stage: Stage) -> ParticleTensor:
        """Sample.

        Parameters
        ----------
        dense
            [batch, channels, z, y, x] on the grid of the stage.
        stage
            Which rows to fill.

        Raises
        ------
        StageError
            If the grid is not that of the stage.
        """
        starts, cells = stage.starts, stage.cells(dense.device)
        if dense.ndim != 5 or dense.shape[0] != len(stage.forest):
            raise StageError(
                f"got an image of shape {tuple(dense.shape)}, expected [{len(stage.forest)}, channels, z, y, x]"
            )
        parts = []
        for item in range(len(stage.forest)):
            if tuple(dense.shape[2:]) != stage.grid_shape(item):
                raise StageError(
                    f"got a grid of {tuple(dense.shape[2:])}, expected {stage.grid_shape(item)} at {stage}"
                )
            rows = slice(starts[item], starts[item + 1])
            parts.append(cell_means(dense[item].permute(1, 2, 3, 0).contiguous(), _item_cells(cells, rows)))
        return ParticleTensor(parts[0] if len(parts) == 1 else torch.cat(parts), stage)
