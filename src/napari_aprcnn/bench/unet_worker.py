"""Measures U-Nets for volumes in a process of its own: ``python -m napari_aprcnn.bench.unet_worker JSON``."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tifffile
import torch

from napari_aprcnn.bench.mask_worker import peak_bytes
from napari_aprcnn.bench.trees import synthetic_tree
from napari_aprcnn.io.read import open_image
from napari_aprcnn.io.write import write_labels
from napari_aprcnn.models.forms import stage_rows
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.nn import Forest, ParticleTensor, Reconstruct
from napari_aprcnn.segment.pipeline import segment
from napari_aprcnn.train.simulation import CameraConfig, simulate_volume

__all__ = ["main", "measure"]

Record = dict[str, Any]


def _give_back() -> None:
    """Return what is free to the system: making an input takes more than the input."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if trim is not None:
            trim(0)


def _input(config: VolumeNetConfig, shape: tuple[int, int, int], prr: float) -> tuple[Any, float]:
    if config.hybrid == 0:
        x = torch.randn(1, config.in_channels, *shape)
        return x.contiguous(memory_format=torch.channels_last_3d), 1.0
    tree = synthetic_tree(shape[0], prr)
    return ParticleTensor(torch.randn(len(tree), config.in_channels), Forest(tree).stage(0)), tree.prr


def measure(
    *, network: Record, edge: int, prr: float, repeats: int, training: bool = False, index: bool = True,
    half: bool = False, once: bool = False,
) -> Record:  # fmt: skip
    """Seconds of a pass and peak memory of a network on edge^3 voxels.

    Parameters
    ----------
    network
        Fields of `VolumeNetConfig`.
    edge, prr
        Of the input.
    repeats
        The best of so many counts.
    training
        Forward with the graph and backward, too.
    index
        Whether the first pass, which builds the index tables, is told apart.
    half
        Whether features are kept in bfloat16.
    once
        Whether index tables are freed as the pass goes on, as `VolumeNetwork.predict` does it.

    Returns
    -------
    dict
        ``prr``, ``first_s`` (with index tables), ``forward_s``, ``backward_s``, ``peak_bytes`` (beyond the process
        before).
    """
    config = VolumeNetConfig(**network)
    before = peak_bytes()
    torch.manual_seed(0)
    net = VolumeNet(config).eval()
    if config.hybrid == 0:
        net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    x, found = _input(config, (edge, edge, edge), prr)
    made = peak_bytes()
    _give_back()
    record: Record = {"form": config.form, "edge": edge, "prr": found}
    if isinstance(x, ParticleTensor):
        record["rows"] = stage_rows(x.stage.forest.trees[0], config.depth)
    times: list[float] = []
    backs: list[float] = []
    for _ in range(repeats + int(index)):
        if training:
            start = time.perf_counter()
            out = net(x)
            middle = time.perf_counter()
            (out.features if isinstance(out, ParticleTensor) else out).square().mean().backward()
            backs.append(time.perf_counter() - middle)
            times.append(middle - start)
            net.zero_grad()
            continue
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            start = time.perf_counter()
            out = net(x, once=once)
            if isinstance(out, ParticleTensor):
                Reconstruct()(out)  # the pixel form gives voxels, too
            times.append(time.perf_counter() - start)
        del out
    record |= {"first_s": times[0], "forward_s": min(times), "backward_s": min(backs) if backs else None}
    record |= {"peak_bytes": max(0, peak_bytes() - before), "input_bytes": max(0, made - before)}
    return record


def from_file(*, model: str, edge: int, nuclei: int) -> Record:
    """Seconds from a TIFF of simulated nuclei to a TIFF of labels."""
    made = simulate_volume(
        seed=1, shape=(edge, edge, edge), scene="scattered", nuclei=(nuclei, nuclei), diameter_px=(18.0, 18.0),
        z_scale=(0.6, 0.6), camera=CameraConfig(photons=(100.0, 100.0), contrast_grey=(1000.0, 1000.0)),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nuclei.tif"
        tifffile.imwrite(path, made.image)
        start = time.perf_counter()
        source = open_image(path)
        result = segment(source.data, model=model)
        middle = time.perf_counter()
        write_labels(result.labels, Path(folder) / "labels.tif", axes=result.axes)
        end = time.perf_counter()
    stages = result.readout.stages
    return {
        "prr": result.readout.prr,
        "objects": result.readout.n_objects,
        "seconds": end - start,
        "write": end - middle,
        **{name: stages.get(name, 0.0) for name in ("read", "network", "masks")},
    }


def main(order: Record) -> Record:
    """Do what is ordered."""
    torch.set_num_threads(order.pop("threads"))
    return from_file(**order) if "model" in order else measure(**order)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))  # noqa: T201 - what the caller reads
