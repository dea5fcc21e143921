"""3D nuclei segmentation that is fast on the hardware people really have.

Examples
--------
>>> import napari_aprcnn as aprcnn
>>> [model.name for model in aprcnn.list_models()][:1]
['fastercellpose-v3']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_aprcnn.apr.files import read_apr, write_apr
    from napari_aprcnn.apr.to_apr import to_apr
    from napari_aprcnn.apr.tree import ParticleTree
    from napari_aprcnn.config import ConversionConfig, SegmentConfig
    from napari_aprcnn.evaluate.matching import evaluate
    from napari_aprcnn.graph.build import nuclei_graph
    from napari_aprcnn.models.zoo import list_models, load_model
    from napari_aprcnn.segment.pipeline import segment
    from napari_aprcnn.segment.result import SegmentationResult

__version__ = "0.1.0"
__all__ = [
    "ConversionConfig",
    "ParticleTree",
    "SegmentConfig",
    "SegmentationResult",
    "__version__",
    "evaluate",
    "list_models",
    "load_model",
    "nuclei_graph",
    "read_apr",
    "segment",
    "to_apr",
    "write_apr",
]

# Loaded at first use: `aprcnn --help` and napari's start must not wait for torch.
_HOMES = {
    "ConversionConfig": "napari_aprcnn.config",
    "ParticleTree": "napari_aprcnn.apr.tree",
    "SegmentConfig": "napari_aprcnn.config",
    "SegmentationResult": "napari_aprcnn.segment.result",
    "evaluate": "napari_aprcnn.evaluate.matching",
    "list_models": "napari_aprcnn.models.zoo",
    "load_model": "napari_aprcnn.models.zoo",
    "nuclei_graph": "napari_aprcnn.graph.build",
    "read_apr": "napari_aprcnn.apr.files",
    "segment": "napari_aprcnn.segment.pipeline",
    "to_apr": "napari_aprcnn.apr.to_apr",
    "write_apr": "napari_aprcnn.apr.files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # A submodule import would put the module itself under this name (`segment`), so the value is set last.
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
