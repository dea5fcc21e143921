"""The kernels: compiled where the extension is there, numpy otherwise. Numpy arrays in, numpy arrays out.

``APRCNN_KERNELS=reference`` in the environment forces the numpy reference; ``plain``, ``avx2``, ``avx512`` and
``neon`` force an instruction set. Every choice and every number of threads gives the same bits.
"""

from __future__ import annotations

from napari_aprcnn._kernels.dispatch import (
    Stopped,
    compiled,
    instruction_set,
    instruction_sets,
    use_kernels,
)
from napari_aprcnn._kernels.flows import compact_labels, flow_errors, flows_from_labels
from napari_aprcnn._kernels.masks import MOST_VOXELS, clean_labels, follow_flows, group_ends, relabel

__all__ = [
    "MOST_VOXELS",
    "Stopped",
    "clean_labels",
    "compact_labels",
    "compiled",
    "flow_errors",
    "flows_from_labels",
    "follow_flows",
    "group_ends",
    "instruction_set",
    "instruction_sets",
    "relabel",
    "use_kernels",
]
