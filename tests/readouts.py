"""Readouts of runs that never were."""

from __future__ import annotations

from typing import Any

from napari_aprcnn.segment.readout import Readout


def make_readout(**values: Any) -> Readout:
    """Return a readout with some figures replaced."""
    known: dict[str, Any] = {
        "model": "fastercellpose-v3", "model_sha256": "0" * 64, "precision": "float32", "device": "CPU", "threads": 2,
        "instruction_set": "avx2", "axes": "YX", "shape": (512, 512), "dimensionality": "2d", "n_objects": 40,
        "diameter_px": 25.0, "diameter_given": True, "zoom": 1.0, "seconds": 1.0,
        "stages": {"network": 0.6, "masks": 0.3}, "voxels": 512 * 512, "voxels_per_s": 262144.0,
        "peak_memory_bytes": 10**9, "memory_added_bytes": 10**8, "memory_estimate_bytes": 10**8, "tile_px": 512,
        "n_tiles": 1, "n_blocks": 1, "versions": {"python": "3"},
    }  # fmt: skip
    return Readout(**{**known, **values})
