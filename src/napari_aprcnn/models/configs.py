"""The networks of the Cellpose family as data: one frozen row for each line of the thesis's Table 3.5, and our own.

Nothing here imports torch, so that the command line can list models quickly.
"""

from __future__ import annotations

from typing import Literal

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.frozen import Frozen

__all__ = ["FAMILY", "NETWORKS", "OWN", "FamilyConfig", "family_config"]

FULL_WIDTHS = (32, 64, 128, 256)
HALF_WIDTHS = (16, 32, 64, 128)


class FamilyConfig(Frozen):
    """One network of the family (FasterCellpose thesis, section 3.3 and Table 3.5).

    Attributes
    ----------
    name
        Name of the architecture, as weight files carry it.
    title
        Name in the thesis.
    widths
        Channels at resolution 1, 1/2, 1/4 and 1/8.
    encoder
        ``residual4``: two residual pairs of convolutions a scale (Cellpose); ``residual2``: one pair;
        ``plain2``: one pair without projection and sum (FastCellpose).
    dilation
        Dilation of an encoder pair's second convolution.
    decoder
        ``residual4``; ``residual2``: one pair, one of the three upsamplings transposed; ``deconv``: a transposed
        convolution and one convolution a scale (FastCellpose); ``doubled``: the same with a pointwise convolution
        before nearest upsampling instead, a quarter of the work.
    separable
        Every convolution is depthwise followed by pointwise.
    depthwise_bias
        The depthwise parts carry a bias. A separable transposed convolution always does.
    unused_projection
        Projections that are registered, and counted in the thesis, but never executed.
    style
        Add the style vector in the decoder. The authors of FastCellpose switch it off.
    published_parameters, published_macs, published_counter
        What the thesis prints (MACs for 1 x 2 x 1024 x 1024), and the tool that fits its figure; of our own networks 0.
    counted_scalars
        How many of the two frozen diameter scalars the published parameter count includes.
    """

    name: str
    title: str
    widths: tuple[int, int, int, int]
    encoder: Literal["residual4", "residual2", "plain2"]
    dilation: Literal[1, 2] = 1
    decoder: Literal["residual4", "residual2", "deconv", "doubled"]
    separable: bool = False
    depthwise_bias: bool = True
    unused_projection: bool = False
    style: bool = True
    published_parameters: int = 0
    published_macs: int = 0
    published_counter: Literal["thop", "calflops", ""] = ""
    counted_scalars: Literal[0, 1, 2] = 0

    @property
    def plain_decoder(self) -> bool:
        """One way up and one unit a scale, no residuals."""
        return self.decoder in ("deconv", "doubled")


_ROWS = (
    FamilyConfig(
        name="cellpose",
        title="Cellpose",
        widths=FULL_WIDTHS,
        encoder="residual4",
        decoder="residual4",
        published_parameters=6_600_843,
        published_macs=326_837_313_536,
        published_counter="thop",
    ),
    FamilyConfig(
        name="dilated",
        title="Dilated Cellpose",
        widths=FULL_WIDTHS,
        encoder="residual2",
        dilation=2,
        decoder="residual4",
        published_parameters=5_031_244,
        published_macs=246_658_998_272,
        published_counter="calflops",
        counted_scalars=1,
    ),
    FamilyConfig(
        name="upsample",
        title="Upsample Cellpose",
        widths=FULL_WIDTHS,
        encoder="residual4",
        decoder="residual2",
        published_parameters=5_133_164,
        published_macs=250_953_719_808,
        published_counter="calflops",
        counted_scalars=1,
    ),
    FamilyConfig(
        name="compressed",
        title="Compressed Cellpose",
        widths=FULL_WIDTHS,
        encoder="residual2",
        dilation=2,
        decoder="residual2",
        published_parameters=3_563_565,
        published_macs=173_644_308_480,
        published_counter="calflops",
        counted_scalars=2,
    ),
    FamilyConfig(
        name="cellpose_dsc",
        title="Cellpose with depthwise separable convolutions",
        widths=FULL_WIDTHS,
        encoder="residual4",
        decoder="residual4",
        separable=True,
        published_parameters=1_250_019,
        published_macs=51_942_629_376,
        published_counter="thop",
    ),
    FamilyConfig(
        name="compressed_dsc",
        title="Compressed Cellpose with depthwise separable convolutions",
        widths=FULL_WIDTHS,
        encoder="residual2",
        dilation=2,
        decoder="residual2",
        separable=True,
        published_parameters=720_100,
        published_macs=33_923_653_632,
        published_counter="calflops",
        counted_scalars=1,
    ),
    FamilyConfig(
        name="fastcellpose",
        title="FastCellpose",
        widths=HALF_WIDTHS,
        encoder="plain2",
        decoder="deconv",
        published_parameters=564_807,
        published_macs=30_102_550_528,
        published_counter="thop",
    ),
    FamilyConfig(
        name="faster_v1",
        title="FasterCellpose v1",
        widths=HALF_WIDTHS,
        encoder="residual4",
        decoder="residual4",
        separable=True,
        published_parameters=326_531,
        published_macs=14_984_243_200,
        published_counter="thop",
    ),
    FamilyConfig(
        name="faster_v2",
        title="FasterCellpose v2",
        widths=HALF_WIDTHS,
        encoder="residual2",
        dilation=2,
        decoder="residual2",
        separable=True,
        depthwise_bias=False,
        published_parameters=186_865,
        published_macs=9_187_653_632,
        published_counter="calflops",
        counted_scalars=2,
    ),
    FamilyConfig(
        name="faster_v3",
        title="FasterCellpose v3",
        widths=HALF_WIDTHS,
        encoder="plain2",
        dilation=2,
        decoder="deconv",
        separable=True,
        depthwise_bias=False,
        unused_projection=True,
        published_parameters=115_969,
        published_macs=4_912_609_280,
        published_counter="calflops",
        counted_scalars=2,
    ),
)

FAMILY: dict[str, FamilyConfig] = {row.name: row for row in _ROWS}
"""The ten of the thesis."""

OWN: dict[str, FamilyConfig] = {
    row.name: row
    for row in (
        FamilyConfig(
            name="faster_wide",
            title="FasterCellpose wide (ours)",
            widths=(16, 32, 64, 192),
            encoder="plain2",
            dilation=2,
            decoder="doubled",
            separable=True,
            depthwise_bias=False,
        ),
    )
}
"""Designs of this package."""

NETWORKS: dict[str, FamilyConfig] = FAMILY | OWN


def family_config(name: str) -> FamilyConfig:
    """Return the configuration of a network of the family.

    Raises
    ------
    ConfigError
        If the family has no network of that name.

    Examples
    --------
    >>> family_config("faster_v3").widths
    (16, 32, 64, 128)
    """
    try:
        return NETWORKS[name]
    except KeyError:
        raise ConfigError(f"got architecture {name!r}, expected one of {', '.join(NETWORKS)}") from None
