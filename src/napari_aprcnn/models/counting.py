"""Parameters and multiply-accumulates of the family, under the rules of the thesis's two counters and as they are.

The thesis's Table 3.5 mixes thop and calflops, which disagree. The counters here apply the rules of each by name, and
`true` counts what convolutions and linear layers really compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from napari_aprcnn.models.configs import FAMILY, FamilyConfig, family_config
from napari_aprcnn.models.family import CellposeFamily, unmerged

__all__ = ["Counter", "FamilyRow", "count_macs", "count_parameters", "family_row", "family_table", "unused_parameters"]

Counter = Literal["true", "thop", "calflops"]
COUNTERS: tuple[Counter, ...] = ("true", "thop", "calflops")
TABLE_SHAPE = (1, 2, 1024, 1024)


def _convolution_macs(layer: nn.Conv2d, output: Tensor) -> int:
    return output.numel() * (layer.in_channels // layer.groups) * math.prod(layer.kernel_size)


def _layer_macs(layer: nn.Module, x: Tensor, output: Tensor, counter: Counter) -> int:
    if isinstance(layer, nn.Conv2d):
        return _convolution_macs(layer, output)
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    if isinstance(layer, nn.ConvTranspose2d):
        per_input = layer.out_channels // layer.groups * math.prod(layer.kernel_size)
        if counter == "calflops" and layer.groups > 1:
            return 0
        # thop multiplies by the output's pixels as if every output pixel saw the whole kernel.
        pixels = output[0, 0].numel() if counter == "thop" else x[0, 0].numel()
        return x.shape[0] * pixels * layer.in_channels * per_input
    if counter == "thop" and isinstance(layer, nn.BatchNorm2d):
        return 4 * x.numel()
    if counter == "thop" and isinstance(layer, nn.Upsample):
        return output.numel()
    return 0


def _meta_network(config: FamilyConfig | str) -> CellposeFamily:
    with torch.device("meta"):
        return CellposeFamily(config).eval()


def _all_macs(network: CellposeFamily, shape: tuple[int, int, int, int]) -> dict[Counter, int]:
    """Run a network on torch's meta device - no arithmetic, no memory - and count by every rule."""
    totals: dict[Counter, int] = dict.fromkeys(COUNTERS, 0)

    def add(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for counter in COUNTERS:
            totals[counter] += _layer_macs(layer, inputs[0], output, counter)

    leaves = [layer for layer in network.modules() if not any(layer.children())]
    hooks = [layer.register_forward_hook(add) for layer in leaves]
    with torch.no_grad(), unmerged(network):
        network(torch.empty(shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return totals


def count_macs(
    config: FamilyConfig | str, *, shape: tuple[int, int, int, int] = TABLE_SHAPE, counter: Counter = "true"
) -> int:
    """Count the multiply-accumulates of one run of a network.

    Parameters
    ----------
    config
        A configuration, or the name of one.
    shape
        Shape (N, 2, H, W) of the input.
    counter
        ``true``: convolutions and linear layers, each weight once for each pixel that it meets. ``thop``: those, with
        transposed convolutions four times over, 4 for each element of a batch norm and 1 for each output element of
        nearest upsampling. ``calflops``: convolutions and linear layers, depthwise transposed convolutions at nothing.

    Examples
    --------
    >>> count_macs("faster_v3")
    4971329536
    """
    return _all_macs(_meta_network(config), shape)[counter]


def _trained(network: CellposeFamily, prefixes: str | tuple[str, ...] = "") -> int:
    chosen = (p for name, p in network.named_parameters() if name.startswith(prefixes))
    return sum(p.numel() for p in chosen if p.requires_grad)


def count_parameters(config: FamilyConfig | str) -> int:
    """Count the trainable parameters of a network, never-executed layers included, the frozen diameters not.

    Examples
    --------
    >>> count_parameters("faster_v3")
    115967
    """
    return _trained(_meta_network(config))


def unused_parameters(config: FamilyConfig | str) -> int:
    """Count the parameters of layers that are registered but never executed.

    Examples
    --------
    >>> unused_parameters("faster_v3")
    11366
    """
    network = _meta_network(config)
    return _trained(network, network.never_executed())


@dataclass(frozen=True, kw_only=True)
class FamilyRow:
    """One line of the table of the family: what the thesis prints, and what is true.

    Attributes
    ----------
    name, title
        Name of the architecture, and in the thesis.
    published_parameters, published_macs, published_counter
        As in the thesis's Table 3.5, and the tool whose rules give its MACs (1 x 2 x 1024 x 1024).
    parameters, unused_parameters
        Trainable parameters, and how many of them are never executed.
    thop_macs, calflops_macs, macs
        MACs for the same input by the rules of both tools, and the true ones of convolutions and linear layers.
    """

    name: str
    title: str
    published_parameters: int
    parameters: int
    unused_parameters: int
    published_macs: int
    published_counter: str
    thop_macs: int
    calflops_macs: int
    macs: int


def family_row(name: str) -> FamilyRow:
    """Count one network of the family."""
    config = family_config(name)
    network = _meta_network(config)
    macs = _all_macs(network, TABLE_SHAPE)
    return FamilyRow(
        name=name,
        title=config.title,
        published_parameters=config.published_parameters,
        parameters=_trained(network),
        unused_parameters=_trained(network, network.never_executed()),
        published_macs=config.published_macs,
        published_counter=config.published_counter,
        thop_macs=macs["thop"],
        calflops_macs=macs["calflops"],
        macs=macs["true"],
    )


def family_table() -> list[FamilyRow]:
    """Return the ten rows of the thesis's Table 3.5 with the true figures beside the published ones.

    Examples
    --------
    >>> [(row.name, row.parameters, row.macs) for row in family_table()][-1]
    ('faster_v3', 115967, 4971329536)
    """
    return [family_row(name) for name in FAMILY]
