"""The operators of the particle layers on a GPU, with the names and signatures of ``torch.ops.napari_aprcnn``.

Importing it imports triton: go through `choice.on_gpu`.
"""

from __future__ import annotations

from napari_aprcnn._kernels.triton.cells import cell_sums, reconstruct
from napari_aprcnn._kernels.triton.conv import column_sums, gather_conv, gather_conv_input, gather_conv_weight
from napari_aprcnn._kernels.triton.filters import restrict_filters, restrict_filters_back
from napari_aprcnn._kernels.triton.rows import (
    fill_tree,
    fill_tree_back,
    pool,
    pool_back,
    upsample,
    upsample_back,
)

__all__ = [
    "cell_sums",
    "column_sums",
    "fill_tree",
    "fill_tree_back",
    "gather_conv",
    "gather_conv_input",
    "gather_conv_weight",
    "pool",
    "pool_back",
    "reconstruct",
    "restrict_filters",
    "restrict_filters_back",
    "upsample",
    "upsample_back",
]
