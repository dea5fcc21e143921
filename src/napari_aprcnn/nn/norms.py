"""Normalisation over particles. Batches are ragged, so no statistic ever sees padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_aprcnn.errors import ConfigError
from napari_aprcnn.nn.tensor import ParticleTensor

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm"]


class BatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm3d` on particles: statistics over all rows of the batch, one particle one vote."""

    def forward(self, x: ParticleTensor) -> ParticleTensor:  # type: ignore[override]
        """Normalise."""
        return x.with_features(super().forward(x.features))


class GroupNorm(nn.Module):
    """`torch.nn.GroupNorm` on particles: statistics over the rows of one tree and the channels of one group.

    Parameters
    ----------
    num_groups
        Number of groups; ``num_channels`` makes it an instance norm.
    num_channels
        Channels, a multiple of the groups.
    eps
        Added to the variance.
    affine
        Whether to learn a scale and a shift.
    device, dtype
        Of the parameters.

    Raises
    ------
    ConfigError
        If the channels are not a multiple of the groups.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ConfigError(f"got {num_channels} channels in {num_groups} groups, expected a multiple of the groups")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.weight: nn.Parameter | None
        self.bias: nn.Parameter | None
        if affine:
            self.weight = nn.Parameter(torch.empty(num_channels, device=device, dtype=dtype))
            self.bias = nn.Parameter(torch.empty(num_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("weight", None)
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale one, shift zero."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: ParticleTensor) -> ParticleTensor:
        """Normalise.

        Raises
        ------
        ConfigError
            If the features have other channels.
        """
        if x.channels != self.num_channels:
            raise ConfigError(f"got {x.channels} channels, expected {self.num_channels}")
        parts = [self._normalise(x.item(i)) for i in range(x.batch_size)]
        return x.with_features(parts[0] if len(parts) == 1 else torch.cat(parts))

    def _normalise(self, features: Tensor) -> Tensor:
        """Rows of one tree: scale and shift of every channel are found first, then applied in one pass."""
        rows, channels = features.shape
        width = channels // self.num_groups
        wide = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
        # Centred second moments of the channels, combined into those of the groups.
        spread, mean = torch.var_mean(wide, dim=0, correction=0)
        group_mean = mean.view(self.num_groups, width).mean(1, keepdim=True)
        within = spread.view(self.num_groups, width) + (mean.view(self.num_groups, width) - group_mean) ** 2
        scale = torch.rsqrt(within.mean(1, keepdim=True) + self.eps).expand(-1, width).reshape(channels)
        shift = -group_mean.expand(-1, width).reshape(channels) * scale
        if self.weight is not None and self.bias is not None:
            weight = self.weight.to(scale.dtype)
            scale, shift = scale * weight, shift * weight + self.bias.to(scale.dtype)
        return torch.addcmul(shift, wide, scale).to(features.dtype)

    def extra_repr(self) -> str:
        """Parameters, as torch prints them."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class InstanceNorm(GroupNorm):
    """`torch.nn.InstanceNorm3d` on particles: every channel of every tree by itself, without running statistics.

    Parameters
    ----------
    num_features
        Channels.
    eps
        Added to the variance.
    affine
        Whether to learn a scale and a shift; off by default, as torch has it.
    device, dtype
        Of the parameters.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, num_features, eps, affine, device, dtype)
