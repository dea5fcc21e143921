"""The same networks for inference on a CPU: less arithmetic, and far fewer passes over memory.

What is done, all of it exact but for rounding:

- Layers that are registered but never executed are dropped.
- A batch norm after a convolution is folded into it, also through the sum with skip and style; so is one before a
  1 x 1 projection. One before a padded 3 x 3 convolution cannot be folded (the padding must stay zero).
- Projections run before nearest upsampling instead of after it, on a quarter of the pixels.
- A transposed convolution (kernel 2, stride 2) is a 1 x 1 convolution to four times the channels whose result is
  written shuffled, in the same pass as the sum with the skip. Where a pointwise convolution comes before it, the two
  are one matrix.
- Each block runs on bands of rows that fit the cache. Only the style needs the whole image: it lies between encoder
  and decoder. A band is computed with as many rows around it as its convolutions see, which are then dropped.
- Dense 3 x 3 convolutions of float32 take minimal filtering in a kernel of our own, with the norm before them and the
  sum and ReLU behind them in the same pass; rows that no later convolution sees are not computed.

See `docs/decisions/0004-inference-in-bands.md` and `0018-dense-planes.md`. Separable networks run in kernels of our own
instead (`models.fused`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn

from napari_aprcnn._kernels import planes
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.models.banded_blocks import Drop, Encoder, Head, PlainDecoder, ResidualDecoder
from napari_aprcnn.models.bands import bands, run_all
from napari_aprcnn.models.family import CellposeFamily, check_input
from napari_aprcnn.models.folding import Conv, Shuffle
from napari_aprcnn.models.fused import FusedFamily, can_fuse
from napari_aprcnn.models.layers import DeconvDecoderBlock, EncoderBlock, ResidualDecoderBlock, style_vector

__all__ = ["BandedFamily", "for_inference", "in_bands"]

BAND_BYTES = 1 << 20
"""Size of a band's widest tensor: a few of them fit the second and third level of cache."""
MIN_ROWS, DENSE_ROWS = 16, 64
"""Fewer rows would be mostly halo; dense 3 x 3 weights go through the cache at each call, which many rows pay for."""


class BandedFamily(nn.Module):
    """A network of the family rewritten for inference on a CPU; made by `for_inference`."""

    def __init__(self, network: CellposeFamily, dtype: torch.dtype) -> None:
        super().__init__()
        config = network.config
        self.config, self.dtype = config, dtype
        down = [cast("EncoderBlock", block) for block in network.downsample.down]
        self.encoders = nn.ModuleList(Encoder(block, pools=scale > 0) for scale, block in enumerate(down))
        decoders: dict[int, nn.Module] = {}
        for scale in (3, 2, 1, 0):
            block = network.upsample.up[scale]
            if isinstance(block, DeconvDecoderBlock):
                before = cast("PlainDecoder | None", decoders.get(scale + 1))
                decoders[scale] = PlainDecoder(block, before, last=scale == 0, style=config.style)
            else:
                transposed = config.decoder == "residual2" and scale == 1
                deconv = network.upsample.deconv[2] if transposed else None
                decoders[scale] = ResidualDecoder(
                    cast("ResidualDecoderBlock", block),
                    deconv,
                    doubles=scale < 3 and not transposed,
                    style=config.style,
                )
        self.head = Head(network.output, decoders[0])
        self.decoders = nn.ModuleList(decoders[scale] for scale in range(4))
        self._finish(dtype)

    def _finish(self, dtype: torch.dtype) -> None:
        for name, buffer in list(self.named_buffers()):
            owner = self.get_submodule(name.rpartition(".")[0])
            final = buffer.detach().to(dtype)
            if final.ndim == 4:
                final = final.contiguous(memory_format=torch.channels_last)
            setattr(owner, name.rpartition(".")[2], final)
        for module in self.modules():
            if isinstance(module, Conv):
                module.prepare_filters()
            elif isinstance(module, Shuffle):
                module.prepare_rows()

    def _rows(self, channels: int, height: int, width: int) -> int:
        """Rows of a band: as many as fit the cache, and two bands at least, whatever the number of threads.

        Were it to follow the threads, results would differ between machines in the last bit.
        """
        least = MIN_ROWS if self.config.separable else DENSE_ROWS
        fitting = BAND_BYTES // (channels * width * self.dtype.itemsize) // 2 * 2
        return max(min(max(least, fitting), -(-height // 4) * 2), MIN_ROWS)

    def _in_bands(
        self,
        step: Callable[[int, int, Drop, Tensor], Tensor],
        like: tuple[int, int, int],
        halo: int,
        check: Callable[[], None] | None,
    ) -> Tensor:
        """Run ``step(low, high, drop, out)`` on bands of rows, and put the rows that count together: (1, C, H, W).

        A step computes rows low..high without those to drop at both ends, and may write them to ``out``.
        """
        channels, height, width = like
        result = torch.empty((1, channels, height, width), dtype=self.dtype, memory_format=torch.channels_last)

        def task(start: int, stop: int, low: int, high: int) -> None:
            mine = result[:, :, start:stop]
            made = step(low, high, (start - low, high - stop), mine)
            if made.data_ptr() != mine.data_ptr():
                mine.copy_(made)

        rows = self._rows(channels, height, width)
        run_all([partial(task, *band) for band in bands(height, rows, halo)], check=check)
        return result

    def _finish_in_bands(self, y: Tensor, skip: Tensor, style: Tensor, check: Callable[[], None] | None) -> Tensor:
        """Run the finest scale of the decoder and the head: (1, 3, H, W), plane by plane."""
        _, _, height, width = skip.shape
        result = torch.empty((1, 3, height, width), dtype=self.dtype)
        decoder = cast("PlainDecoder | ResidualDecoder", self.decoders[0])
        shifts = decoder.style_shifts(style)

        def task(start: int, stop: int, low: int, high: int) -> None:
            below, drop = y[:, :, low // 2 : high // 2], (start - low, high - stop)
            self.head(decoder(below, skip[:, :, low:high], shifts, drop), result, start)

        rows = self._rows(3, height, width)
        run_all([partial(task, *band) for band in bands(height, rows, decoder.halo)], check=check)
        return result

    def _one(self, x: Tensor, check: Callable[[], None] | None) -> tuple[Tensor, Tensor]:
        """Run one plane (1, 2, H, W)."""
        sizes = [(width, x.shape[2] >> scale, x.shape[3] >> scale) for scale, width in enumerate(self.config.widths)]
        skips: list[Tensor] = []
        for encoder, like in zip(self.encoders, sizes, strict=True):
            source, k = (skips[-1], 2) if skips else (x, 1)

            def encode(
                a: int, b: int, drop: Drop, out: Tensor, block: nn.Module = encoder, source: Tensor = source, k: int = k
            ) -> Tensor:
                return cast("Tensor", block(source[:, :, a * k : b * k], drop, out))

            skips.append(self._in_bands(encode, like, cast("Encoder", encoder).halo, check))
        style = style_vector(skips[3])
        y = skips[3]
        for scale in (3, 2, 1):
            decoder = cast("PlainDecoder | ResidualDecoder", self.decoders[scale])
            shifts = decoder.style_shifts(style.to(self.dtype))
            k = 1 if scale == 3 else 2

            def decode(
                a: int, b: int, drop: Drop, out: Tensor, y: Tensor = y, i: int = scale, k: int = k,
                shifts: list[Tensor] = shifts,
            ) -> Tensor:  # fmt: skip
                below, skip = y[:, :, a // k : b // k], skips[i][:, :, a:b]
                return cast("Tensor", self.decoders[i](below, skip, shifts, drop, out))

            y = self._in_bands(decode, sizes[scale], decoder.halo, check)
            skips[scale] = skips[scale][:0]  # free it
        return self._finish_in_bands(y, skips[0], style.to(self.dtype), check).float(), style

    def forward(self, x: Tensor, *, check: Callable[[], None] | None = None) -> tuple[Tensor, Tensor]:
        """Run the network: as `CellposeFamily.forward`, for inference only.

        Parameters
        ----------
        x : (N, 2, H, W) Tensor
            On the CPU; H and W are multiples of 8.
        check
            Called before each band of rows, in the thread that computes it; may raise to stop the network there.

        Returns
        -------
        y : (N, 3, H, W) Tensor, float32
        style : (N, widths[3]) Tensor, float32

        Raises
        ------
        ImageError
            If x has another shape.
        """
        check_input(x)
        with torch.inference_mode():
            x = x.to(self.dtype)
            parts = [self._one(x[number : number + 1], check) for number in range(x.shape[0])]
            return torch.cat([y for y, _ in parts]), torch.cat([style for _, style in parts])


def for_inference(
    module: CellposeFamily,
    *,
    precision: Literal["float32", "bfloat16", "int8"] = "float32",
    spans: Mapping[str, tuple[float, float]] | None = None,
) -> BandedFamily | FusedFamily:
    """Rewrite a network for inference on a CPU.

    A separable network runs in compiled kernels where they are there, in bfloat16 where the processor multiplies that;
    any other in bands through torch.

    Parameters
    ----------
    module
        A trained network; it is left as it is.
    precision
        ``float32``: equal to the network in eval mode to 1e-5 of its output's spread. ``bfloat16``: half the memory
        traffic, about three digits. ``int8``: about two digits, for separable networks where the processor has
        AVX512-VNNI.
    spans
        For ``int8``: ranges that `FusedFamily.measure_spans` found.

    Returns
    -------
    BandedFamily or FusedFamily
        Takes and gives what `CellposeFamily` does.

    Raises
    ------
    ConfigError
        If the network, the processor or a missing range stands in the way of ``int8``.

    Examples
    --------
    >>> network = CellposeFamily("faster_v3").eval()
    >>> x = torch.rand(1, 2, 64, 64)
    >>> with torch.no_grad():
    ...     torch.allclose(for_inference(network)(x)[0], network(x)[0], atol=1e-5)
    True
    """
    if precision == "int8":
        return FusedFamily(module, spans=_spans_for(module, spans)).eval()
    half = precision == "bfloat16"
    if can_fuse(module) and (not half or planes.can_halve()):
        return FusedFamily(module, half=half).eval()
    return in_bands(module, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def _spans_for(
    module: CellposeFamily, spans: Mapping[str, tuple[float, float]] | None
) -> Mapping[str, tuple[float, float]]:
    """The ranges, where they and everything else for products of 8 bits are there."""
    if not can_fuse(module):
        raise ConfigError(
            f"got precision int8 for {module.config.name}; products of 8 bits are for separable networks "
            "(FasterCellpose v1 to v3, wide) in compiled kernels: take float32 or bfloat16"
        )
    if not planes.can_quantise():
        raise ConfigError("got precision int8, but this processor has no AVX512-VNNI; take float32 or bfloat16")
    if not spans:
        raise ConfigError(
            "got precision int8, but nobody has measured the ranges of this model; take float32 or bfloat16, or "
            "measure them: python benchmarks/calibrate_int8.py MODEL.safetensors --data IMAGES.zip --write"
        )
    return spans


def in_bands(module: CellposeFamily, dtype: torch.dtype = torch.float32) -> BandedFamily:
    """Rewrite a network for torch alone, on bands of rows."""
    with torch.no_grad():
        return BandedFamily(copy.deepcopy(module).cpu().double().eval(), dtype).eval()
