"""Separable networks of the family for inference on a CPU, in compiled kernels.

A block's norm, ReLU, depthwise and pointwise convolutions, skip, style and residual are one pass over strips of rows in
cache; the decoder of FasterCellpose v3 runs through all four scales and writes nothing between skips and output. The
rewrites are those of `models.optimise`. See `docs/decisions/0011-fused-planes.md`.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from napari_aprcnn._kernels import instruction_set, planes
from napari_aprcnn.models.family import IN_CHANNELS, check_input
from napari_aprcnn.models.folding import Conv, Shuffle, affine
from napari_aprcnn.models.fused_weights import Pair, Style, as_array, norm_of, projection_of, style_of
from napari_aprcnn.models.layers import DeconvDecoderBlock, StyleUnit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.models.family import CellposeFamily
    from napari_aprcnn.models.layers import ResidualDecoderBlock

__all__ = ["FusedFamily", "Spans", "can_fuse"]

Check = Callable[[], None]
Spans = Mapping[str, tuple[float, float]]
SLAB_FLOATS = 1 << 24
"""Values of a block's result between two questions whether to go on: some hundredths of a second."""


def can_fuse(network: CellposeFamily) -> bool:
    """Whether the kernels run this network: they are there, and its convolutions are separable."""
    config = network.config
    return planes.can_run() and config.separable and all(width % 16 == 0 for width in config.widths)


def _rows(shuffle: Shuffle, rows: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights and bias of these rows of its matrix."""
    return as_array(shuffle.weight[rows, :, 0, 0]), as_array(shuffle.bias[rows])


class FusedFamily(nn.Module):
    """A separable network of the family in compiled kernels; made by `for_inference`.

    With `half`, what pointwise convolutions multiply is rounded to bfloat16; everything else, sums too, stays float32.
    With `spans`, the ranges of what they multiply, those are products of 8 bits; `measure_spans` finds them.

    Weights are packed for the instruction set in use, anew when another one is chosen. Buffers are kept from call to
    call, as fresh memory costs more than the arithmetic on it; `release` frees them.
    """

    def __init__(self, network: CellposeFamily, *, half: bool = False, spans: Spans | None = None) -> None:
        super().__init__()
        self.config = network.config
        self.spans = spans
        self.halved = half or spans is not None
        self._seen: dict[str, NDArray[np.float32]] | None = None
        # In float64: what is folded is rounded once.
        network = copy.deepcopy(network).cpu().double().eval()
        self._decoder: Callable[[list[Any], NDArray[np.float32], int, Any, Check | None], None]
        with torch.no_grad():
            self._read_encoder(network)
            if self.config.plain_decoder:
                self._read_plain(network)
                self._decoder = self._run_plain
            else:
                self._read_residual(network)
                self._decoder = self._run_residual
        self._packed: dict[tuple[str, int], Any] = {}
        self._kept: dict[str, NDArray[np.float32]] = {}
        self._busy = threading.Lock()

    # --- weights --------------------------------------------------------------------------------------------
    def _read_encoder(self, network: CellposeFamily) -> None:
        self._encoders: list[list[Pair]] = []
        self._encoder_projections: list[Any] = []
        for scale, found in enumerate(network.downsample.down):
            block, width = cast("Any", found), self.config.widths[scale]
            units, wide = list(block.conv), self.config.widths[scale - 1] if scale else IN_CHANNELS
            pairs = [Pair(units[0], units[1], channels=wide)]
            pairs += [Pair(units[i], units[i + 1], channels=width) for i in range(2, len(units), 2)]
            self._encoders.append(pairs)
            self._encoder_projections.append(projection_of(block.proj) if block.residual else None)

    def _read_plain(self, network: CellposeFamily) -> None:
        self._plain: list[Any] = []
        before: Conv | None = None
        for scale in (3, 2, 1, 0):
            block = cast("DeconvDecoderBlock", network.upsample.up[scale])
            unit = cast("StyleUnit", block.conv[-1])
            factor, _ = affine(unit.conv[0])
            shuffle = None if before is None else Shuffle(block.conv[0], before=before, scale=factor)
            before = Conv(unit.conv[2], merge_tiny=False)
            taps = as_array(cast("Tensor", before.depthwise)[:, 0].flatten(1).t())
            # At the coarsest scale x is the skip: their sum is twice the skip. Elsewhere two pixels lie side by side.
            times = 2 * as_array(factor) if scale == 3 else np.tile(as_array(factor), 2)
            self._plain.insert(0, (Style(unit, enabled=self.config.style), times, taps, shuffle))
        factor, shift = affine(network.output[0])
        last = cast("Conv", before)
        self._last = as_array(last.weight[:, :, 0, 0] * factor[:, None]), as_array(last.bias * factor + shift)
        head = Conv(network.output[2])
        self._head = as_array(head.weight[:, :, 0, 0]), as_array(head.bias)

    def _read_residual(self, network: CellposeFamily) -> None:
        self._residual: list[Any] = []
        for scale in range(4):
            block = cast("ResidualDecoderBlock", network.upsample.up[scale])
            units, width = list(block.conv), self.config.widths[scale]
            transposed = self.config.decoder == "residual2" and scale == 1
            wide = self.config.widths[min(3, scale + 1)]
            shuffle = Shuffle(network.upsample.deconv[2]) if transposed else None
            pairs = [Pair(units[0], units[1], channels=wide)]
            pairs += [Pair(units[2], units[3], channels=width)] if len(units) == 4 else []
            styles = [Style(cast("StyleUnit", unit), enabled=self.config.style) for unit in units[1:]]
            self._residual.append((pairs, styles, projection_of(block.proj), shuffle))
        head = Conv(network.output[2])
        self._head = as_array(head.weight[:, :, 0, 0]), as_array(head.bias)
        self._head_norm = norm_of(network.output[0])

    def _packed_for(self, key: str) -> Any:
        """Weights that are packed already, else ``None``."""
        return self._packed.get((key, planes.lanes()))

    def _pack(self, key: str, parts: tuple[Any, Any], *, reads: str | None = None) -> Any:
        """Pack weights, once; reads: the key of what they multiply, where others multiply it, too."""
        found = self._packed_for(key)
        if found is None:
            found = self._packed[key, planes.lanes()] = planes.pack(*parts, **self._range_of(reads or key))
        return found

    def _range_of(self, key: str) -> dict[str, Any]:
        if key == "head":
            return {}  # a few planes: float32 all the way
        if self._seen is not None:
            return {"seen": self._seen.setdefault(key, np.zeros(2, np.float32))}
        # A card that knows not all of them leaves the others as they are.
        return {} if self.spans is None or key not in self.spans else {"span": self.spans[key]}

    def measure_spans(self, inputs: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
        """Smallest and largest value that each pointwise convolution multiplies, for products of 8 bits.

        Parameters
        ----------
        inputs
            What `forward` takes: many images of the kind that the network is for.

        Returns
        -------
        dict
            (low, high) around 0, by the name of the convolution: the means over the images, as what a single bright
            speck reaches would cost all the others their steps.

        Raises
        ------
        ValueError
            If the network is not of float32, or there is no image.
        """
        if self.halved:
            raise ValueError(f"got a network of fewer bits ({self.extra_repr()}), expected one of float32")
        before = torch.get_num_threads()
        self._packed.clear()
        self._seen = {}
        found: list[dict[str, NDArray[np.float32]]] = []
        torch.set_num_threads(1)  # all threads would write to one place
        try:
            for x in inputs:
                for seen in self._seen.values():
                    seen[:] = 0
                self(x)
                found.append({key: seen.copy() for key, seen in self._seen.items()})
        finally:
            torch.set_num_threads(before)
            self._seen = None
            self._packed.clear()
        if not found:
            raise ValueError("got no image to measure ranges on, expected many")
        means = {key: np.mean([one[key] for one in found], axis=0) for key in found[0]}
        return {key: (float(low), float(high)) for key, (low, high) in means.items()}

    def _rows_of(self, key: str, shuffle: Shuffle, shift: NDArray[np.float32] | None) -> tuple[Any, Any]:
        """The upper and the lower row of 2 x 2 pixels as pointwise convolutions."""
        half = 2 * shuffle.channels
        rows = [
            self._packed_for(f"{key}.{i}")
            or self._pack(f"{key}.{i}", _rows(shuffle, slice(i * half, i * half + half)), reads=key)
            for i in (0, 1)
        ]
        if shift is None:
            return rows[0], rows[1]
        both = np.concatenate([shift, shift])
        upper, lower = ((weights, bias + both, *rest) for weights, bias, *rest in rows)
        return upper, lower

    def _doubled(self, key: str, shuffle: Shuffle, shift: NDArray[np.float32]) -> Any:
        """One of four equal pixels as a pointwise convolution."""
        found = self._packed_for(key) or self._pack(key, _rows(shuffle, slice(0, shuffle.channels)))
        weights, bias, *rest = found
        return weights, bias + shift, *rest

    # --- memory ---------------------------------------------------------------------------------------------
    def release(self) -> None:
        """Free the buffers."""
        with self._busy:
            self._kept.clear()

    # --- the network ----------------------------------------------------------------------------------------
    def forward(self, x: Tensor, *, check: Check | None = None) -> tuple[Tensor, Tensor]:
        """Run the network: as `CellposeFamily.forward`, for inference only.

        Parameters
        ----------
        x : (N, 2, H, W) Tensor
            On the CPU; H and W are multiples of 8.
        check
            Called between blocks, and within large ones; may raise to stop the network there.

        Returns
        -------
        y : (N, 3, H, W) Tensor, float32
        style : (N, widths[3]) Tensor, float32

        Raises
        ------
        ImageError
            If x has another shape.
        RuntimeError
            If the kernels were switched off after the network was made.
        """
        check_input(x)
        if not planes.can_run():
            raise RuntimeError(
                f"got kernels {instruction_set()!r}, expected compiled kernels as when the network was made; "
                f"make it again, or call use_kernels()"
            )
        mine = self._busy.acquire(blocking=False)
        buffers = self._kept if mine else {}
        try:
            n, _, height, width = x.shape
            y = planes.aligned(n, 3, height, width)
            styles = [self._one(x[i], y[i], buffers, check) for i in range(n)]
        finally:
            if mine:
                self._busy.release()
        return torch.from_numpy(y), torch.from_numpy(np.stack(styles))

    def _one(
        self, x: Tensor, y: NDArray[np.float32], buffers: dict[str, Any], check: Check | None
    ) -> NDArray[np.float32]:
        def room(name: str, *shape: int) -> NDArray[np.float32]:
            size = math.prod(shape)
            if name not in buffers or buffers[name].size < size:
                buffers[name] = planes.aligned(size)
            return cast("NDArray[np.float32]", buffers[name][:size].reshape(shape))

        height, width = x.shape[1:]
        skips: list[Any] = []
        out = x.detach().float().contiguous().numpy()
        for scale, pairs in enumerate(self._encoders):
            like = (height >> scale, width >> scale, self.config.widths[scale])
            for number, one in enumerate(pairs):
                begins = number == 0
                ends = number == len(pairs) - 1
                source, out = out, room(f"skip {scale}" if ends else f"work {scale}", *like)
                kept = self._encoder_projections[scale]
                projection = self._pack(f"p{scale}", kept) if begins and kept is not None else None
                how = planes.PLANES if begins and not scale else planes.DIRECT
                # Pooled while it is in the cache: the next scale does not read the whole result again.
                smaller = (height >> scale + 1, width >> scale + 1, like[2])
                pooled = room(f"pooled {scale}", *smaller) if ends and scale < 3 else None
                self._pair(
                    f"e{scale}.{number}", one, source, how, out, check,
                    projection=projection, identity=not begins, pooled=pooled,
                )  # fmt: skip
            skips.append(out)
            if pooled is not None:
                out = pooled
        style = style_of(skips[3])
        self._decoder(skips, style, 0, (y, room), check)
        return style

    def _pair(
        self,
        key: str,
        of: Pair,
        x: NDArray[np.float32],
        source: int,
        out: NDArray[np.float32],
        check: Check | None,
        *,
        norm_shift: NDArray[np.float32] | None = None,
        shift: NDArray[np.float32] | None = None,
        **more: Any,
    ) -> None:
        packed = self._packed_for(key)
        if packed is None:
            # The first convolution of all reads planes of few channels, and stays as it is.
            ranges = [{} if source == planes.PLANES and i == 0 else self._range_of(f"{key}.{i}") for i in (0, 1)]
            packed = self._packed[key, planes.lanes()] = (of.first.packed(**ranges[0]), of.second.packed(**ranges[1]))
        first, second = packed
        if shift is not None:
            taps, dilation, (weights, bias, *rest) = first
            first = taps, dilation, (weights, bias + shift, *rest)
        norm = of.norm if norm_shift is None else (of.norm[0], norm_shift)
        height, row = (out.shape[1], out.shape[2] * 16) if "head" in more else (out.shape[0], out[0].size)
        step = max(64, SLAB_FLOATS // row // 2 * 2)
        for low in range(0, height, step):
            if check is not None:
                check()
            planes.pair(
                x, source, norm, first, second, out, rows=(low, min(height, low + step)), half=self.halved, **more
            )

    def _run_residual(
        self, skips: list[Any], style: NDArray[np.float32], _start: int, target: Any, check: Check | None
    ) -> None:
        y, room = target
        x = skips[3]
        for scale in (3, 2, 1, 0):
            pairs, styles, projection, shuffle = self._residual[scale]
            shifts = [one.of(style) for one in styles]
            like = skips[scale].shape
            source = planes.DIRECT if scale == 3 else planes.DOUBLED
            if shuffle is not None:
                raised = room("raised", 2 * x.shape[0], 2 * x.shape[1], shuffle.channels)
                planes.up(x, *self._rows_of(f"u{scale}", shuffle, None), raised, half=self.halved)
                x, source = raised, planes.DIRECT
            for number, one in enumerate(pairs):
                ends = scale == 0 and number == len(pairs) - 1
                out = y if ends else room(f"work {scale}" if number == 0 else f"out {scale}", *like)
                more: dict[str, Any] = {"head": (self._pack("head", self._head), *self._head_norm)} if ends else {}
                if number == 0:
                    more |= {"add": (skips[scale], one.skip_scale), "projection": self._pack(f"d{scale}", projection)}
                    self._pair(f"d{scale}.0", one, x, source, out, check, shift=shifts[0], **more)
                else:
                    self._pair(
                        f"d{scale}.1", one, x, planes.DIRECT, out, check, norm_shift=shifts[1], shift=shifts[2],
                        identity=True, **more,
                    )  # fmt: skip
                x = out

    def _run_plain(
        self, skips: list[Any], style: NDArray[np.float32], _start: int, target: Any, check: Check | None
    ) -> None:
        y, _ = target
        scales, doubles = [], self.config.decoder == "doubled"
        for scale, (shift, times, taps, _) in enumerate(self._plain):
            rows: tuple[Any, Any] = (None, None)
            if scale:
                finer = self._plain[scale - 1]
                key, shuffle, moved = f"u{scale}", finer[3], finer[0].of(style)
                rows = (self._doubled(key, shuffle, moved), None) if doubles else self._rows_of(key, shuffle, moved)
            scales.append((skips[scale], times, shift.of(style) if scale == 3 else None, taps, *rows))
        height, width = y.shape[1:]
        step = max(256, SLAB_FLOATS // (width * 16) // 16 * 16)
        for low in range(0, height, step):
            if check is not None:
                check()
            ends, rows = (
                (self._pack("last", self._last), self._pack("head", self._head)),
                (low, min(height, low + step)),
            )
            planes.plain_decoder(tuple(scales), *ends, y, doubled=doubles, rows=rows, half=self.halved)

    def extra_repr(self) -> str:
        """Name and instruction set."""
        bits = ", int8" if self.spans is not None else ", bfloat16" if self.halved else ""
        return f"{self.config.name}, {instruction_set()}{bits}"
