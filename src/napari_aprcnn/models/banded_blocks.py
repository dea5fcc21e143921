"""Blocks of the family for inference on bands of rows: what `models.optimise` makes of those of a trained network."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from napari_aprcnn._kernels import planes
from napari_aprcnn.models.folding import (
    Conv,
    Norm,
    Shuffle,
    StyleShift,
    affine,
    doubled,
    fold_projection,
    is_whole,
    plane_of,
    pooled,
    without,
)
from napari_aprcnn.models.layers import DeconvDecoderBlock, EncoderBlock, ResidualDecoderBlock, StyleUnit

__all__ = ["Drop", "Encoder", "Head", "PlainDecoder", "ResidualDecoder"]

Drop = tuple[int, int]
"""Rows that a band has more at the top and at the bottom than are wanted."""


def _reach(*convs: nn.Module) -> int:
    """Rows that convolutions, one after the other, see on each side."""
    return sum(cast("Conv", conv).radius for conv in convs)


def _shrink(drop: Drop, ahead: int) -> tuple[Drop, Drop]:
    """What a convolution leaves out at once, as those behind it see only `ahead` rows further, and what is left."""
    now = max(0, drop[0] - ahead), max(0, drop[1] - ahead)
    return now, (drop[0] - now[0], drop[1] - now[1])


class Encoder(nn.Module):
    """One scale of the encoder, its pooling included."""

    def __init__(self, block: EncoderBlock, *, pools: bool) -> None:
        super().__init__()
        self.pools = pools
        self.proj = fold_projection(block.proj) if block.residual else None
        units = [cast("nn.Sequential", unit) for unit in block.conv]
        self.norms, self.firsts, self.seconds = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for first, second in zip(units[::2], units[1::2], strict=True):
            scale, shift = affine(second[0])
            self.norms.append(Norm(first[0]))
            self.firsts.append(Conv(first[2], scale=scale, shift=shift))
            self.seconds.append(Conv(second[2]))
        self.halo = _reach(*self.firsts, *self.seconds)

    def forward(self, x: Tensor, drop: Drop, out: Tensor | None = None) -> Tensor:
        """Encode rows (1, C, h, w) without those to drop; `out` may be written."""
        if self.pools:
            x = pooled(x)
        pairs, ahead = len(self.norms), _reach(*self.firsts, *self.seconds)
        for number, (norm, first, second) in enumerate(zip(self.norms, self.firsts, self.seconds, strict=True)):
            before, drop = _shrink(drop, ahead := ahead - _reach(first))
            inner = first(x, norm=norm, relu=True, drop=before)
            after, drop = _shrink(drop, ahead := ahead - _reach(second))
            outer = without(x, (before[0] + after[0], before[1] + after[1]))
            added = None if self.proj is None else self.proj(outer) if number == 0 else outer
            x = second(inner, add=added, drop=after, out=out if number == pairs - 1 else None)
        return x


class ResidualDecoder(nn.Module):
    """One scale of a decoder with residual pairs, the upsampling before it included."""

    def __init__(
        self, block: ResidualDecoderBlock, upsampling: nn.Module | None, *, doubles: bool, style: bool
    ) -> None:
        super().__init__()
        self.doubles = doubles
        self.shuffle = Shuffle(upsampling) if upsampling is not None else None
        self.proj = fold_projection(block.proj)
        head = cast("nn.Sequential", block.conv[0])
        styled = [cast("StyleUnit", unit) for unit in list(block.conv)[1:]]
        self.shifts = nn.ModuleList(StyleShift(unit, enabled=style) for unit in styled)
        scale, _ = affine(styled[0].conv[0])
        self.register_buffer("skip_scale", scale)
        self.norm, self.first, self.second = Norm(head[0]), Conv(head[2], scale=scale), Conv(styled[0].conv[2])
        self.tail = nn.ModuleList()
        if len(styled) == 3:
            scale, _ = affine(styled[2].conv[0])
            self.tail = nn.ModuleList(
                [Norm(styled[1].conv[0]), Conv(styled[1].conv[2], scale=scale), Conv(styled[2].conv[2])]
            )
        self.halo = _reach(self.first, self.second, *list(self.tail)[1:])

    def style_shifts(self, style: Tensor) -> list[Tensor]:
        """Return what the style (1, C) adds in each unit."""
        return [shift(style) for shift in self.shifts]

    def forward(self, x: Tensor, skip: Tensor, shifts: list[Tensor], drop: Drop, out: Tensor | None = None) -> Tensor:
        """Decode rows of the coarser scale and of the skip, without those to drop; `out` may be written."""
        if self.shuffle is not None:
            x = self.shuffle(x)
        outer = self.proj(x)
        if self.doubles:
            x, outer = doubled(x), doubled(outer)
        scale, ends = cast("Tensor", self.skip_scale), not len(self.tail)
        behind = [self.second, *list(self.tail)[1:]]
        before, drop = _shrink(drop, _reach(*behind))
        inner = self.first(
            x, shifts[0], norm=self.norm, add=without(skip, before), add_scale=scale, relu=True, drop=before
        )
        after, drop = _shrink(drop, _reach(*behind[1:]))
        added = without(outer, (before[0] + after[0], before[1] + after[1]))
        x = self.second(inner, add=added, drop=after, out=out if ends else None)
        if ends:
            return x
        norm, first, second = self.tail
        before, drop = _shrink(drop, _reach(second))
        inner = first(x, shifts[2], norm=norm, norm_shift=shifts[1], relu=True, drop=before)
        after, _ = _shrink(drop, 0)
        added = without(x, (before[0] + after[0], before[1] + after[1]))
        return cast("Tensor", second(inner, add=added, drop=after, out=out))


class PlainDecoder(nn.Module):
    """One scale of a FastCellpose decoder.

    A pointwise convolution at the end (`delegated`) is left to the next scale's transposed convolution.
    """

    def __init__(self, block: DeconvDecoderBlock, before: PlainDecoder | None, *, last: bool, style: bool) -> None:
        super().__init__()
        unit = cast("StyleUnit", block.conv[-1])
        scale, _ = affine(unit.conv[0])
        self.shifts = nn.ModuleList([StyleShift(unit, enabled=style)])
        self.register_buffer("skip_scale", scale)
        self.conv = Conv(unit.conv[2])
        self.delegated = not last and self.conv.depthwise is not None
        self.halo = self.conv.radius
        self.shuffle = None
        if before is not None:
            self.shuffle = Shuffle(block.conv[0], before=before.conv if before.delegated else None, scale=scale)
        else:  # x is the skip: their sum is twice the skip
            self.norm = Norm(unit.conv[0], times=2.0)
        self.ends = last  # the norm of the head is folded, its ReLU is not

    def style_shifts(self, style: Tensor) -> list[Tensor]:
        """Return what the style (1, C) adds in each unit."""
        return [shift(style) for shift in self.shifts]

    def forward(self, x: Tensor, skip: Tensor, shifts: list[Tensor], drop: Drop, out: Tensor | None = None) -> Tensor:
        """Decode rows of the coarser scale and of the skip, without those to drop; `out` may be written."""
        norm = None
        if self.shuffle is not None:
            x = self.shuffle(x, shift=shifts[0], add=(skip, cast("Tensor", self.skip_scale)), relu=True)
        elif self.delegated:
            x = self.norm(x, shifts[0])
        else:
            norm = self.norm
        if self.delegated:
            return without(self.conv.spatial(x), drop)
        shift = None if norm is None else shifts[0]
        return cast("Tensor", self.conv(x, norm=norm, norm_shift=shift, relu=self.ends, drop=drop, out=out))


class Head(nn.Module):
    """The output unit. Its batch norm is folded into the convolution before it where that is alone (`absorb`)."""

    def __init__(self, unit: nn.Sequential, last: nn.Module) -> None:
        super().__init__()
        scale, shift = affine(unit[0])
        self.norm = None
        if isinstance(last, PlainDecoder):
            conv = last.conv
            conv.weight, conv.bias = conv.weight * scale[:, None, None, None], conv.bias * scale + shift
        else:
            self.norm = Norm(unit[0])
        self.conv = Conv(unit[2])

        self._packed: dict[int, Any] = {}

    def forward(self, x: Tensor, out: Tensor, first: int) -> None:
        """Write the planes of rows (1, C, h, W) into (1, 3, H, W), from row `first` on."""
        if self.norm is not None:
            x = self.norm(x)
        rows, weight = x.shape[2], self.conv.weight
        if self.conv.depthwise is None and is_whole(x):
            width = planes.lanes()
            if width not in self._packed:
                self._packed[width] = planes.pack(weight[:, :, 0, 0].numpy(), self.conv.bias.numpy())
            planes.heads(plane_of(x), self._packed[width], out[0].numpy(), first=first)
        else:
            out[:, :, first : first + rows].copy_(self.conv(x))
