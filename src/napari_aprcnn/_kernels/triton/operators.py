"""All operators of the particle layers on a GPU, tensors in, tensors out, on the device of the features.

Import it only after `guard.why_not` said None: it imports triton.
"""

from __future__ import annotations

from napari_aprcnn._kernels.triton.cells import (
    cell_means,
    cell_means_backward,
    cell_sums,
    reconstruct,
    reconstruct_backward,
)
from napari_aprcnn._kernels.triton.conv import (
    gather_conv,
    gather_conv_backward_bias,
    gather_conv_backward_input,
    gather_conv_backward_weight,
    tables_of,
)
from napari_aprcnn._kernels.triton.filters import restrict_filters, restrict_filters_backward
from napari_aprcnn._kernels.triton.rows import (
    fill_tree,
    fill_tree_backward,
    pool,
    pool_backward,
    upsample,
    upsample_backward,
)

__all__ = [
    "cell_means",
    "cell_means_backward",
    "cell_sums",
    "fill_tree",
    "fill_tree_backward",
    "gather_conv",
    "gather_conv_backward_bias",
    "gather_conv_backward_input",
    "gather_conv_backward_weight",
    "pool",
    "pool_backward",
    "reconstruct",
    "reconstruct_backward",
    "restrict_filters",
    "restrict_filters_backward",
    "tables_of",
    "upsample",
    "upsample_backward",
]
