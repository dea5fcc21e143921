"""What quantisation and pruning do to a separable network: F1, weights, memory (the thesis' future work).

    python benchmarks/compress_weights.py [MODEL] --calibrate dsb2018_fluo_train.zip --test dsb2018_fluo_test.zip ...

Quantisation is simulated in float32, which is exact but slow: 8 bits for weights (one scale a channel) and for what
every convolution reads (one range a layer, from calibration images). bfloat16 and int8, where pointwise convolutions
alone multiply bytes, are the real thing. Pruning sets the
smallest weights of pointwise convolutions to zero (unstructured), or removes whole middle channels of the encoder's
pairs, those with the smallest share in what follows (structured), without training afterwards.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_aprcnn._kernels.planes import can_quantise
from napari_aprcnn.bench.table import BenchTable
from napari_aprcnn.models.inputs import network_input
from napari_aprcnn.models.layers import SeparableConv, SeparableDeconv
from napari_aprcnn.models.network import Network
from napari_aprcnn.models.zoo import load_model
from napari_aprcnn.train.data import normalise_percentiles, read_training_data
from napari_aprcnn.train.score import score_archive

Convolution = nn.Conv2d | nn.ConvTranspose2d
LEVELS = 255
QUANTILE = 0.9999


class Plain(nn.Module):
    """A module where a network expects its fast form."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, check: Callable[[], None] | None = None) -> Any:
        """Run it; `check` is asked once."""
        if check is not None:
            check()
        return self.module(x)


def convolutions(module: nn.Module) -> Iterator[tuple[str, Convolution]]:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            yield name, layer


def separate(module: nn.Module) -> nn.Module:
    """A copy that runs both parts of every separable layer, so that each can be hooked."""
    module = copy.deepcopy(module).eval()
    for layer in module.modules():
        if isinstance(layer, SeparableConv | SeparableDeconv):
            layer.merged = False
    return module


@contextmanager
def watching(module: nn.Module) -> Iterator[dict[str, list[float]]]:
    """Ranges of what convolutions read."""
    ranges: dict[str, list[float]] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].flatten()
            values = values[:: max(1, values.numel() // 100_000)]
            low, high = (float(torch.quantile(values, q)) for q in (1 - QUANTILE, QUANTILE))
            before = ranges.get(name, [low, high])
            ranges[name] = [min(before[0], low, 0.0), max(before[1], high, 0.0)]

        return hook

    handles = [layer.register_forward_pre_hook(look(name)) for name, layer in convolutions(module)]
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()


def quantised(network: Network, planes: list[Tensor], *, activations: bool) -> nn.Module:
    """8 bits: weights with a scale for each output channel, inputs with a range for each layer."""
    module = separate(network.module)
    if activations:
        with watching(module) as ranges, torch.inference_mode():
            for plane in planes:
                module(network_input(plane[None], second_channel=network.card.second_channel))
    with torch.no_grad():
        for name, layer in convolutions(module):
            axis = 1 if isinstance(layer, nn.ConvTranspose2d) and layer.groups == 1 else 0
            others = [d for d in range(4) if d != axis]
            scale = layer.weight.abs().amax(others, keepdim=True).clamp_min(1e-12) / (LEVELS // 2)
            layer.weight.copy_((layer.weight / scale).round() * scale)
            if activations and name in ranges:
                layer.register_forward_pre_hook(_rounding(*ranges[name]))
    return module


def _rounding(low: float, high: float) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    step = max(high - low, 1e-12) / LEVELS
    zero = round(-low / step)

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return ((((inputs[0] / step).round() + zero).clamp(0, LEVELS) - zero) * step,)

    return hook


def pruned(module: nn.Module, share: float) -> nn.Module:
    """The smallest weights of all pointwise convolutions set to zero, so large a share of them."""
    module = separate(module)
    layers = [layer for _, layer in convolutions(module) if layer.groups == 1]
    every = torch.cat([layer.weight.detach().abs().flatten() for layer in layers])
    limit = torch.quantile(every, share)
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(layer.weight.abs() > limit)
    return module


def without_channels(module: nn.Module, share: float) -> tuple[nn.Module, float]:
    """Middle channels of the encoder's pairs silenced; the share of all pointwise products that this saves."""
    module = separate(module)
    saved = 0.0
    with torch.no_grad():
        for scale, block in enumerate(module.downsample.down):  # type: ignore[arg-type, union-attr]
            first, second = block.conv[0][2][1], block.conv[1][2]
            reach = second[1].weight.abs().sum((0, 2, 3)) * second[0].weight.abs().sum((1, 2, 3))
            reach = reach * block.conv[1][0].weight.abs()
            gone = reach.argsort()[: int(share * len(reach))]
            second[0].weight[gone] = 0
            saved += len(gone) * (first.in_channels + second[1].out_channels) / 4**scale
    total = sum(
        layer.in_channels * layer.out_channels / 4 ** _scale(name)
        for name, layer in convolutions(module)
        if layer.groups == 1 and "proj" not in name
    )
    return module, saved / total


def _scale(name: str) -> int:
    digits = [part.rsplit("_", 1)[-1] for part in name.split(".") if "_down_" in part or "_up_" in part]
    return int(digits[0]) if digits else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fastercellpose-v3")
    parser.add_argument(
        "--calibrate", type=Path, required=True, help="zip of training images; labels are not looked at"
    )
    parser.add_argument("--images", type=int, default=16, help="of the calibration")
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--limit", type=int, help="only every k-th test image, so that so many are left")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    network = load_model(options.model, device="cpu")
    assert isinstance(network, Network), "a network for planes"
    images = read_training_data(options.calibrate)
    chosen = images[:: max(1, len(images) // options.images)]
    planes = [_plane(item.image) for item in chosen]
    weights = sum(p.numel() for p in network.module.parameters())

    rows: list[tuple[Any, ...]] = []

    def add(words: str, form: Network | nn.Module, note: str, megabytes: float) -> None:
        run = copy.copy(form) if isinstance(form, Network) else copy.copy(network)
        if not isinstance(form, Network):
            run._fast = Plain(form)
        found = [score_archive(run, path, limit=options.limit).summary() for path in options.test]
        rows.append((words, megabytes, *(x for f in found for x in (f["f1@0.5"], f["f1@0.7"])), note))
        print(rows[-1], flush=True)

    full = weights * 4 / 1e6
    add("float32", network, "", full)
    half = load_model(options.model, device="cpu", precision="bfloat16")
    add("bfloat16 (real)", half, "products 2 bytes", full / 2)
    if network.card.int8_spans and can_quantise():
        add("int8 (real)", load_model(options.model, device="cpu", precision="int8"), "products 1 byte", full / 4)
    add("int8 weights", quantised(network, planes, activations=False), "a scale a channel", full / 4)
    add("int8 weights and features", quantised(network, planes, activations=True), "features a quarter, too", full / 4)
    for share in (0.3, 0.5, 0.7):
        add(f"{share:.0%} of the weights zero", pruned(network.module, share), "no faster in dense kernels", full)
    for share in (0.125, 0.25, 0.5):
        module, saved = without_channels(network.module, share)
        add(f"{share:.0%} of the encoder's middle channels", module, f"{saved:.0%} fewer products", full)
    names = [path.stem for path in options.test]
    columns = ("form", "weights MB", *(f"{name} F1 {t}" for name in names for t in (".5", ".7")), "note")
    table = BenchTable(
        title=f"{options.model}, quantised and pruned, not trained afterwards", columns=columns, rows=tuple(rows)
    )
    print(table.text())
    if options.out is not None:
        table.write(options.out, "compression")


def _plane(image: Any) -> Tensor:
    plane = np.asarray(image, np.float32)
    plane = plane[plane.shape[0] // 2] if plane.ndim == 3 else plane
    plane = normalise_percentiles(plane)[: plane.shape[0] // 8 * 8, : plane.shape[1] // 8 * 8]
    return torch.from_numpy(np.ascontiguousarray(plane[:512, :512], np.float32))


if __name__ == "__main__":
    main()
