"""The Cellpose family: Cellpose, FastCellpose and FasterCellpose as one class driven by a configuration.

FasterCellpose thesis, section 3.3 and Table 3.5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_aprcnn.errors import ImageError
from napari_aprcnn.models.configs import FAMILY, FamilyConfig, family_config
from napari_aprcnn.models.layers import (
    DeconvDecoderBlock,
    EncoderBlock,
    ResidualDecoderBlock,
    deconv,
    merge_separable_deconv,
    style_vector,
    unit,
    unmerged,
)

__all__ = [
    "FAMILY",
    "CellposeFamily",
    "FamilyConfig",
    "check_input",
    "family_config",
    "merge_separable_deconv",
    "unmerged",
]

IN_CHANNELS = 2
OUT_CHANNELS = 3
STRIDE = 8
"""Height and width must be multiples of this: three times a pooling by two."""


class _Encoder(nn.Module):
    def __init__(self, config: FamilyConfig) -> None:
        super().__init__()
        self.down = nn.Sequential()
        self.maxpool = nn.MaxPool2d(2, stride=2)
        name = "conv_down" if config.encoder == "plain2" else "res_down"
        c_in = IN_CHANNELS
        for scale, c_out in enumerate(config.widths):
            self.down.add_module(f"{name}_{scale}", EncoderBlock(config, c_in, c_out))
            c_in = c_out

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        for block in self.down:
            x = block(self.maxpool(outputs[-1]) if outputs else x)
            outputs.append(x)
        return outputs


class _Decoder(nn.Module):
    def __init__(self, config: FamilyConfig) -> None:
        super().__init__()
        self.config = config
        self.upsampling = nn.Upsample(scale_factor=2, mode="nearest")
        self.up = nn.Sequential()
        widths = config.widths
        for scale, c_out in enumerate(widths):
            c_in = widths[min(scale + 1, 3)]
            if config.plain_decoder:
                plain = DeconvDecoderBlock(config, c_in, c_out, upsamples=scale < 3)
                self.up.add_module(f"conv_up_{scale}", plain)
            else:
                self.up.add_module(f"res_up_{scale}", ResidualDecoderBlock(config, c_in, c_out))
        if config.decoder == "residual2":
            # One for each width, as the thesis counts them; only the one on scale 2's output is ever run.
            self.deconv = nn.ModuleList([deconv(config, width, width) for width in widths])

    def forward(self, encoded: list[Tensor], style: Tensor) -> Tensor:
        x = encoded[3]
        for scale in (3, 2, 1, 0):
            if scale < 3 and not self.config.plain_decoder:
                step = self.deconv[2] if self.config.decoder == "residual2" and scale == 1 else self.upsampling
                x = step(x)
            x = self.up[scale](x, encoded[scale], style)
        return x


def check_input(x: Tensor) -> None:
    """Refuse what no network of the family takes.

    Raises
    ------
    ImageError
        If x is not (N, 2, H, W) with H and W positive multiples of 8.
    """
    if x.ndim != 4 or x.shape[1] != IN_CHANNELS or x.shape[2] % STRIDE or x.shape[3] % STRIDE or not x.numel():
        raise ImageError(
            f"got an input of shape {tuple(x.shape)}, expected (N, {IN_CHANNELS}, H, W) with H and W positive "
            f"multiples of {STRIDE}; pad it, or use Network.predict, which does"
        )


class CellposeFamily(nn.Module):
    """A network of the Cellpose family.

    Parameters
    ----------
    config
        A configuration, or the name of one of `FAMILY`.

    Raises
    ------
    ConfigError
        If the family has no network of that name.

    Notes
    -----
    Keys, order and shapes of ``state_dict`` are those of official Cellpose 2 and 3 checkpoints for ``cellpose``, and
    those of the FastCellpose authors for ``fastcellpose``. The two frozen scalars ``diam_mean`` and ``diam_labels``
    are part of both.

    Examples
    --------
    >>> network = CellposeFamily("faster_v3").eval()
    >>> flows, style = network(torch.rand(1, 2, 32, 48))
    >>> tuple(flows.shape), tuple(style.shape)
    ((1, 3, 32, 48), (1, 128))
    """

    def __init__(self, config: FamilyConfig | str) -> None:
        super().__init__()
        self.config = family_config(config) if isinstance(config, str) else config
        self.downsample = _Encoder(self.config)
        self.upsample = _Decoder(self.config)
        self.output = unit(self.config, self.config.widths[0], OUT_CHANNELS, kernel=1)
        self.diam_mean = nn.Parameter(torch.full((1,), 30.0), requires_grad=False)
        self.diam_labels = nn.Parameter(torch.full((1,), 30.0), requires_grad=False)

    def never_executed(self) -> tuple[str, ...]:
        """Name the layers that are registered, for the published counts and checkpoints, but never run.

        Returns
        -------
        tuple of str
            Prefixes of their keys in ``state_dict``.
        """
        names = [f"downsample.down.conv_down_{scale}.proj." for scale in range(4) if self.config.unused_projection]
        if self.config.decoder == "residual2":
            names += [f"upsample.deconv.{scale}." for scale in (0, 1, 3)]
        return tuple(names)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Parameters
        ----------
        x : (N, 2, H, W) Tensor
            H and W are multiples of 8.

        Returns
        -------
        y : (N, 3, H, W) Tensor
            Flow along y, flow along x (5 x pixels per step) and the logit of the cell probability.
        style : (N, widths[3]) Tensor, float32

        Raises
        ------
        ImageError
            If the input has another rank, number of channels, or a size that is no multiple of 8.
        """
        check_input(x)
        encoded = self.downsample(x)
        style = style_vector(encoded[3])
        y: Tensor = self.output(self.upsample(encoded, style if self.config.style else torch.zeros_like(style)))
        return y, style
