"""Weights of one network of the family as a start for another.

A separable convolution has nothing between its two parts, so it is a dense convolution of low rank, and a network can
be widened without changing what it computes (Net2Net; Chen, Goodfellow and Shlens, 2016). FasterCellpose v1 therefore
is a `cellpose` of half width in all but its weights' shapes: trained in minutes, it grows into a Cellpose that already
segments. Where networks differ in more than width, the layers that they share are taken over and the others are new,
as in the FasterCellpose thesis, section 3.4.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.models.configs import FamilyConfig, family_config
from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.models.layers import SeparableConv, SeparableDeconv

__all__ = ["grown", "inherited", "start_from"]

UNEVENNESS = 0.5
"""How far the copies of a channel may share its weights unevenly; equal copies would learn the same for ever."""
LEAST_SHARED = 0.25
"""Share of a network's parameters that must be taken over for a start to be called one."""


def start_from(source: CellposeFamily, target: FamilyConfig | str, *, seed: int = 0) -> dict[str, Tensor]:
    """Return a state of `target` made from the weights of `source`.

    The same weights where both are the same network; `grown` ones where `target` is the same network wider or dense;
    otherwise the layers that both have (`inherited`).

    Parameters
    ----------
    source
        Trained network.
    target
        Network to start; a name or a configuration.
    seed
        Of what is random.

    Raises
    ------
    ConfigError
        If the two have too little in common.
    """
    config = family_config(target) if isinstance(target, str) else target
    if config == source.config:
        return source.state_dict()
    return grown(source, config, seed=seed) if _grows(source.config, config) else inherited(source, config, seed=seed)


def _grows(source: FamilyConfig, target: FamilyConfig) -> bool:
    same = all(getattr(source, f) == getattr(target, f) for f in ("encoder", "dilation", "decoder", "style"))
    # A separable target would have to be separable already.
    separable = source.separable or not target.separable
    biased = not target.separable or target.depthwise_bias or not source.depthwise_bias
    factors = {wide / narrow for wide, narrow in zip(target.widths, source.widths, strict=True)}
    whole = len(factors) == 1 and factors.pop().is_integer()
    projections = source.unused_projection == target.unused_projection or source.encoder != "plain2"
    return same and separable and biased and whole and projections


def grown(source: CellposeFamily, target: FamilyConfig | str, *, seed: int = 0) -> dict[str, Tensor]:
    """Return a state of a wider or dense form of a network that computes the same.

    Each channel is repeated; what reads a channel reads its copies with shares that sum to one and differ, so that
    training drives the copies apart.

    Parameters
    ----------
    source
        Trained network.
    target
        The same kind of encoder and decoder, widths that are one whole multiple of the source's, dense if the source
        is.
    seed
        Of the shares.

    Raises
    ------
    ConfigError
        If `target` is no such network.

    Examples
    --------
    >>> source = CellposeFamily("faster_v1").eval()
    >>> wide = CellposeFamily("cellpose").eval()
    >>> _ = wide.load_state_dict(grown(source, "cellpose"))
    >>> x = torch.rand(1, 2, 16, 16)
    >>> torch.allclose(wide(x)[0], source(x)[0], atol=1e-4)
    True
    """
    config = family_config(target) if isinstance(target, str) else target
    if not _grows(source.config, config):
        raise ConfigError(
            f"{source.config.name!r} cannot grow into {config.name!r}; expected the same kinds of blocks, widths that "
            "are one whole multiple, and no separable form of a dense network"
        )
    wide = CellposeFamily(config)
    generator = torch.Generator().manual_seed(seed)
    parts = dict(source.named_modules())
    with torch.no_grad():
        for name, layer in wide.named_modules():
            _fill(layer, parts.get(name), generator)
        wide.diam_mean.copy_(source.diam_mean)
        wide.diam_labels.copy_(source.diam_labels)
    return wide.state_dict()


def _fill(layer: nn.Module, old: nn.Module | None, generator: torch.Generator) -> None:
    if isinstance(layer, nn.BatchNorm2d) and isinstance(old, nn.BatchNorm2d):
        for key, value in layer.state_dict(keep_vars=True).items():
            before = old.state_dict()[key]
            value.data.copy_(before if before.ndim == 0 else _repeated(before, value.shape[0]))
    elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and old is not None:
        _fill_conv(layer, old, generator)
    elif isinstance(layer, nn.Linear) and isinstance(old, nn.Linear):
        # The style is divided by its norm, which r copies of each channel make sqrt(r) times longer.
        ratio = layer.in_features // old.in_features
        weight = _repeated(old.weight, layer.out_features)
        layer.weight.copy_(_shared(weight, layer.in_features, generator) * ratio**0.5)
        layer.bias.copy_(_repeated(old.bias, layer.out_features))


def _fill_conv(layer: nn.Conv2d | nn.ConvTranspose2d, old: nn.Module, generator: torch.Generator) -> None:
    transposed = isinstance(layer, nn.ConvTranspose2d)
    old_bias: Tensor | None
    if isinstance(old, SeparableConv | SeparableDeconv):
        weight, old_bias = _dense(old)
    elif isinstance(old, nn.Conv2d | nn.ConvTranspose2d):
        weight, old_bias = old.weight, old.bias
    else:
        return
    if layer.groups > 1:  # depthwise: every copy as it was
        layer.weight.copy_(_repeated(weight, layer.weight.shape[0]))
    else:
        weight = weight.transpose(0, 1) if transposed else weight
        wide = _shared(_repeated(weight, layer.out_channels), layer.in_channels, generator)
        layer.weight.copy_(wide.transpose(0, 1) if transposed else wide)
    if layer.bias is not None:
        layer.bias.copy_(torch.zeros_like(layer.bias) if old_bias is None else _repeated(old_bias, layer.out_channels))


def _dense(old: SeparableConv | SeparableDeconv) -> tuple[Tensor, Tensor]:
    """Weight and bias of the dense convolution that equals both parts; torch's layout of its kind."""
    depthwise, pointwise = old[0], old[1]
    pointwise = cast("nn.Conv2d", pointwise)
    depthwise = cast("nn.Conv2d | nn.ConvTranspose2d", depthwise)
    mix = pointwise.weight[:, :, 0, 0]  # (co, ci)
    bias = torch.zeros_like(mix[:, 0]) if pointwise.bias is None else pointwise.bias
    if depthwise.bias is not None:
        bias = bias + mix @ depthwise.bias
    if isinstance(depthwise, nn.ConvTranspose2d):
        return mix.t()[:, :, None, None] * depthwise.weight, bias  # (ci, co, k, k)
    return mix[:, :, None, None] * depthwise.weight[:, 0], bias


def _repeated(values: Tensor, size: int) -> Tensor:
    """Values along the first axis, again and again, `size` of them."""
    return values.repeat(size // values.shape[0], *[1] * (values.ndim - 1))


def _shared(weight: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """(co, ci, ...) weights spread over `size` inputs, the copies of each."""
    c_out, c_in = weight.shape[:2]
    copies = size // c_in
    if copies == 1:
        return weight
    shares = 1 + UNEVENNESS * (2 * torch.rand((copies, c_out, c_in), generator=generator) - 1)
    shares = shares / shares.sum(0)
    shares = shares.reshape(copies, c_out, c_in, *[1] * (weight.ndim - 2))
    return torch.cat(list(shares * weight), dim=1)


def inherited(source: CellposeFamily, target: FamilyConfig | str, *, seed: int = 0) -> dict[str, Tensor]:
    """Return a new state of `target` that has every layer of `source` with the same name and shape.

    Raises
    ------
    ConfigError
        If these hold less than a quarter of the parameters of `target`.

    Examples
    --------
    >>> teacher = CellposeFamily("cellpose")
    >>> state = inherited(teacher, "dilated")
    >>> key = "downsample.down.res_down_0.conv.conv_0.2.weight"
    >>> torch.equal(state[key], teacher.state_dict()[key])
    True
    """
    config = family_config(target) if isinstance(target, str) else target
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = CellposeFamily(config).state_dict()
    before = source.state_dict()
    taken = {key for key, value in state.items() if key in before and before[key].shape == value.shape}
    share = sum(state[key].numel() for key in taken) / sum(value.numel() for value in state.values())
    if share < LEAST_SHARED:
        raise ConfigError(
            f"{source.config.name!r} and {config.name!r} share {share:.0%} of the weights; expected a start that has "
            f"at least {LEAST_SHARED:.0%}: the same network, a narrower or separable form of it, or one with its blocks"
        )
    return {key: before[key].clone() if key in taken else value for key, value in state.items()}
