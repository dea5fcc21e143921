"""One network in a process of its own: ``python -m napari_aprcnn.bench.network_worker JSON`` writes JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from napari_aprcnn.bench.mask_worker import peak_bytes
from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.models.fused import FusedFamily
from napari_aprcnn.models.optimise import for_inference, in_bands

__all__ = ["run"]


def _network(architecture: str) -> CellposeFamily:
    """Random weights whose norms are not the identity, so that folding them wrongly would show."""
    torch.manual_seed(0)
    network = CellposeFamily(architecture)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for scale in (layer.weight, cast("Tensor", layer.running_var)):
                nn.init.uniform_(scale, 0.5, 1.5)
            for offset in (layer.bias, cast("Tensor", layer.running_mean)):
                nn.init.normal_(offset, std=0.3)
    return network.eval()


def _forget_peak() -> None:
    """Let the peak start from what is resident now (Linux): that of importing torch would hide a small network's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def run(*, architecture: str, way: str, edge_px: int, threads: int, repeats: int) -> dict[str, Any]:
    """Measure one network run one way.

    Parameters
    ----------
    architecture
        Name in the family.
    way
        ``plain``, ``bands``, ``bands bfloat16``, ``fused``, ``fused bfloat16`` or ``fused int8``, whose ranges are
        those of the input.
    edge_px
        The input is 1 x 2 x edge x edge.
    threads, repeats
        Torch's threads; how many runs, of which the shortest counts.

    Returns
    -------
    dict
        ``seconds`` and ``cpu_seconds`` of a run, ``peak_bytes`` that it adds, ``deviation`` (rms over the spread of
        the plain output), ``torch`` (version).
    """
    torch.set_num_threads(threads)
    network = _network(architecture)
    x = torch.rand(1, 2, edge_px, edge_px)
    forward: Callable[[Tensor], tuple[Tensor, Tensor]]
    if way == "plain":
        forward = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.contiguous(memory_format=torch.channels_last)
    elif way == "fused int8":
        forward = for_inference(network, precision="int8", spans=FusedFamily(network).measure_spans([x]))
    elif way.startswith("fused"):
        forward = for_inference(network, precision="bfloat16" if way.endswith("bfloat16") else "float32")
    else:
        forward = in_bands(network, torch.bfloat16 if way.endswith("bfloat16") else torch.float32)
    wall, cpu = [], []
    with torch.inference_mode():
        forward(torch.rand(1, 2, 16, 16))
        _forget_peak()
        before = peak_bytes()
        y, _ = forward(x)
        for _ in range(repeats):
            start, start_cpu = time.perf_counter(), time.process_time()
            forward(x)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
        # The kernel's count is kept by processor and added up now and then: a small run may seem to free memory.
        peak = max(0, peak_bytes() - before)
        expected = y if way == "plain" else network(x)[0]
        deviation = float((y - expected).square().mean().sqrt() / expected.std())
    return {
        "seconds": min(wall),
        "cpu_seconds": min(cpu),
        "peak_bytes": peak,
        "deviation": deviation,
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(**json.loads(sys.argv[1]))) + "\n")
