"""The process in which pyapr converts an image: ``python -m napari_aprcnn.apr.pyapr_child FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from napari_aprcnn.apr.children import save_result
from napari_aprcnn.apr.hdf5_parse import parse
from napari_aprcnn.errors import FileFormatError

__all__ = ["main"]

_PARTICLES = {"uint8": "ByteParticles", "uint16": "ShortParticles", "float32": "FloatParticles"}
# Names of `PyaprConfig` and of LibAPR's parameters.
_NAMES = {
    "relative_error": "rel_error",
    "auto_thresholds": "auto_parameters",
    "smoothing": "gradient_smoothing",
    "intensity_threshold": "Ip_th",
    "scale_threshold": "sigma_th",
    "scale_cutoff": "sigma_th_max",
    "gradient_threshold": "grad_th",
}


def main(folder: Path) -> None:
    """Convert ``image.raw`` as ``job.json`` says; answer with rows and values."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    image = np.memmap(folder / "image.raw", np.dtype(job["dtype"]), "c", shape=tuple(job["shape"]))
    try:
        save_result(folder, *_convert(np.asarray(image), job["config"], folder / "tree.apr"))
    except FileFormatError as error:
        save_result(folder, {"error": f"what it made is no particle tree ({error})"})
    except (RuntimeError, ValueError, IndexError, MemoryError) as error:
        # C++ exceptions of every kind arrive as these.
        save_result(folder, {"error": f"{type(error).__name__}: {error}"[:500]})


def _convert(image: np.ndarray[Any, Any], config: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    # The compiled part alone: the package around it imports PyQt5 and pyqtgraph.
    from _pyaprwrapper.converter import FloatConverter
    from _pyaprwrapper.data_containers import APR, APRParameters

    parameters = APRParameters()
    for ours, theirs in _NAMES.items():
        setattr(parameters, theirs, config[ours])
    parameters.dz, parameters.dx, parameters.dy = config["spacing_um"]
    converter = FloatConverter()
    converter.set_parameters(parameters)
    converter.verbose = False
    apr = APR()
    if converter.get_apr(apr, image) is False or apr.total_number_particles() == 0:
        return {"error": "it gave no particles"}, {}
    values = particle_class(image.dtype.name)()
    values.sample_image(apr, image)
    write_structure(apr, path)
    parsed = parse(path, most_bytes=1 << 62)
    used = apr.get_parameters()
    # The thresholds that pyapr settled on, which it may have chosen itself.
    conversion = {"converter": "pyapr"} | config
    conversion |= {"scale_threshold": float(used.sigma_th), "gradient_threshold": float(used.grad_th)}
    arrays = {"x": parsed.x, "offsets": parsed.offsets, "intensities": np.array(values, dtype=image.dtype)}
    if parsed.node_x is not None and parsed.node_offsets is not None:
        arrays |= {"node_x": parsed.node_x, "node_offsets": parsed.node_offsets}
    return {"shape": parsed.shape, "conversion": conversion}, arrays


def particle_class(dtype: str) -> Any:
    """Return pyapr's class for values of a type."""
    from _pyaprwrapper import data_containers

    return getattr(data_containers, _PARTICLES[dtype])


def write_structure(apr: Any, path: Path) -> None:
    """Write a pyapr structure to a file, rows and interior nodes."""
    from _pyaprwrapper.io import APRFile

    file = APRFile()
    file.set_write_linear_flag(True)
    file.open(str(path), "WRITE")
    written = file.write_apr(apr)
    file.close()
    if written is False:
        raise RuntimeError(f"pyapr could not write {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
