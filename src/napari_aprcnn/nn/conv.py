"""`APRConv`: convolution over particles."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from napari_aprcnn._kernels.operators import compiled_for, compiled_for_features
from napari_aprcnn._kernels.particle_layer import particle_conv, patch_conv, patch_conv_over
from napari_aprcnn._kernels.particles import gather_conv, restrict_filters
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.nn.pooling import SkipPair
from napari_aprcnn.nn.tensor import ParticleTensor

__all__ = ["APRConv"]

FILTERED_CHANNELS = 16  # in and out: with fewer, patches are not filtered (fits_blocks of cpu/conv_blocks.cpp)
KERNELS = ((1, 1, 1), (1, 3, 3), (3, 3, 3), (5, 5, 5), (1, 5, 5))


class APRConv(nn.Module):
    """Convolution of particles with filters that fit their level (APR-CNN, section 3.2).

    A particle's patch is made of what lies around it on its own level: particles of that level, coarser particles that
    cover the place, the mean of finer ones; zero outside the image. The finest level uses bank 0, the next bank 1, ...;
    levels beyond the last bank use that bank, restricted to their spacing. At PRR 1 this is `torch.nn.Conv3d` with
    ``padding=kernel_size // 2``.

    Parameters
    ----------
    in_channels, out_channels
        Channels.
    kernel_size
        1, 3, 5, or (z, y, x): (1, 3, 3) and (1, 5, 5) for slices.
    filter_banks
        Number of learned banks (eta in the paper); may exceed the number of levels.
    bias
        Whether to add a learned bias.
    device, dtype
        Of the parameters.

    Attributes
    ----------
    weight : torch.nn.Parameter
        [filter_banks, out_channels, in_channels, kz, ky, kx].
    bias : torch.nn.Parameter or None
        [out_channels].

    Raises
    ------
    ConfigError
        For a kernel size or a number of banks that does not exist.

    Notes
    -----
    Initialised as `torch.nn.Conv3d`, every bank for itself: the fan-in counts one kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int] = 3,
        *,
        filter_banks: int = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kernel = (kernel_size,) * 3 if isinstance(kernel_size, int) else tuple(kernel_size)
        if kernel not in KERNELS:
            raise ConfigError(f"kernel_size: got {kernel_size}, expected one of {KERNELS}, or 1, 3, 5")
        if filter_banks < 1 or in_channels < 1 or out_channels < 1:
            raise ConfigError(
                f"got filter_banks={filter_banks}, in_channels={in_channels}, out_channels={out_channels}, "
                "expected 1 or more of each"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = (kernel[0], kernel[1], kernel[2])
        self.filter_banks = filter_banks
        shape = (filter_banks, out_channels, in_channels, *kernel)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias: nn.Parameter | None
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew: uniform within 1 / sqrt(fan-in), as Kaiming's rule with a = sqrt(5) gives."""
        bound = 1 / math.sqrt(math.prod(self.weight.shape[2:]))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: ParticleTensor | SkipPair, *, used_up: bool = False) -> ParticleTensor:
        """Convolve.

        Parameters
        ----------
        x
            [rows, in_channels]; or a pair that is to be concatenated, which costs nothing where nothing learns.
        used_up
            Whether nobody reads the features, of a pair the first ones, afterwards: where nothing learns and as many
            channels come out, they are written over.

        Returns
        -------
        ParticleTensor
            [rows, out_channels], of the same stage; in the autocast dtype under `torch.autocast`.
        """
        if self._by_patches(x):
            return self._infer(x, used_up)
        x = x.joined() if isinstance(x, SkipPair) else x
        stage, features = x.stage, x.features
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        kind = features.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            features = features.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        # Restricted in their own precision, then rounded once.
        kernels = restrict_filters(weight, stage.depths).to(features.dtype)
        cells = stage.cells(features.device) if kind == "cuda" else None
        table = stage.neighbours(self.kernel_size, features.device)
        tables = (table, stage.segments(), stage.slabs(self.kernel_size), cells)
        if self.kernel_size == (1, 1, 1):  # looks at nothing but the row itself
            outside = features.new_zeros((1, self.in_channels))
            out = gather_conv(features, outside, kernels, bias, *tables)
        else:
            children = stage.children(features.device)
            out, _ = particle_conv(features, kernels, bias, children, stage.node_ranges(), *tables)
        return x.with_features(out)

    def _by_patches(self, x: ParticleTensor | SkipPair) -> bool:
        """Whether the kernels for inference fit; a training keeps the sums that its gradient is of."""
        features = [p.features for p in ((x.fine, x.coarse) if isinstance(x, SkipPair) else (x,))]
        own: list[Tensor] = [self.weight] if self.bias is None else [self.weight, self.bias]
        learns = torch.is_grad_enabled() and any(t.requires_grad for t in features + own)
        dtype, kind = features[0].dtype, features[0].device.type
        if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) != torch.bfloat16:
            return False
        fits = self.kernel_size == (3, 3, 3)
        if dtype == torch.bfloat16:  # of fewer channels nothing is filtered, and products of bfloat16 are faster
            fits &= torch.is_autocast_enabled(kind) and min(self.in_channels, self.out_channels) >= FILTERED_CHANNELS
        return fits and not learns and None not in (compiled_for_features(*features), compiled_for(*own))

    def _infer(self, x: ParticleTensor | SkipPair, used_up: bool) -> ParticleTensor:
        fine = x.fine if isinstance(x, SkipPair) else x
        stage = fine.stage
        more: tuple[Tensor, ...] = ()
        if isinstance(x, SkipPair):
            coarse = x.coarse.stage
            more = (x.coarse.features, coarse.children(), coarse.node_ranges(), stage.places_in_coarser())
        kernels = restrict_filters(self.weight, stage.depths)
        # Under autocast features are kept in bfloat16; what is computed with them, weights and sums, stays float32.
        halves = torch.is_autocast_enabled(fine.device.type)
        few = min(self.in_channels, self.out_channels) < FILTERED_CHANNELS
        given = (fine.features, kernels, self.bias, *stage.patch_tables(), *more)
        same = fine.features.dtype == torch.bfloat16 or not halves
        out = patch_conv_over(*given) if used_up and same else patch_conv(*given, half=halves and few)
        return fine.with_features(out.bfloat16() if halves else out)

    def extra_repr(self) -> str:
        """Parameters, as torch prints them."""
        size = self.kernel_size[0] if len(set(self.kernel_size)) == 1 else self.kernel_size
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={size}, filter_banks={self.filter_banks}{bias}"
