"""Normalisation over particles. Batches are ragged, so no statistic ever sees padding.

Half-precision features are normalised in float32 at least and come back in their own dtype, also under autocast.
Results have the same bits for any number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_aprcnn._kernels.particle_norms import group_norm, group_norm_over, scale_shift, scale_shift_over
from napari_aprcnn.errors import ConfigError, StageError
from napari_aprcnn.nn.tensor import ParticleTensor

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm"]


def _check_channels(x: ParticleTensor, channels: int) -> None:
    if x.channels != channels:
        raise ConfigError(f"got {x.channels} channels, expected {channels}")


class BatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm3d` on particles: statistics over all rows of the batch, one particle one vote.

    Parameters
    ----------
    num_features
        Channels.
    eps, momentum, affine, track_running_stats, device, dtype
        As torch has them.
    relu
        Whether a rectifier follows; in the same pass, so that it costs nothing.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        relu: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.relu = relu

    def forward(self, x: ParticleTensor, *, used_up: bool = False) -> ParticleTensor:  # type: ignore[override]
        """Normalise.

        Parameters
        ----------
        x
            [rows, channels].
        used_up
            Whether nobody looks at `x` again: where nothing learns, its memory then takes the result.

        Raises
        ------
        ConfigError
            If the features have other channels.
        StageError
            If a single row is to give the statistics (a ``ValueError``, as torch raises).
        """
        _check_channels(x, self.num_features)
        if not self.training and self.running_mean is not None and self.running_var is not None:
            return x.with_features(self._with_running(x.features, self.running_mean, self.running_var, used_up))
        rows = x.features.shape[0]
        if rows == 1:
            raise StageError(
                f"Expected more than 1 value per channel when training, got input size {tuple(x.features.shape)}; "
                "use larger images or batches, or a GroupNorm"
            )
        starts = x.stage.item_starts(whole=True)
        settings = (self.num_features, self.weight, self.bias, self.eps, self.relu)
        out, mean, rstd = group_norm(x.features, starts, *settings)
        if self.training and self.track_running_stats and rows:
            with torch.no_grad():
                self._track(mean[0], rstd[0], rows)
        return x.with_features(out)

    def _with_running(self, features: Tensor, mean: Tensor, variance: Tensor, used_up: bool) -> Tensor:
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        shift = torch.zeros_like(scale) if self.bias is None else self.bias
        out: Tensor = (scale_shift_over if used_up else scale_shift)(features, mean, scale, shift, self.relu)
        return out

    def _track(self, mean: Tensor, rstd: Tensor, rows: int) -> None:
        """Move the running statistics; the variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        like = self.running_mean
        if self.momentum is None:  # the plain mean over all batches so far
            share = self.num_batches_tracked.to(like.dtype).reciprocal()
        else:
            share = torch.tensor(self.momentum, dtype=like.dtype, device=like.device)
        variance = (rstd.square().reciprocal() - self.eps).clamp_min(0) * (rows / (rows - 1))
        self.running_mean.lerp_(mean.to(like.dtype), share)
        self.running_var.lerp_(variance.to(like.dtype), share)

    def extra_repr(self) -> str:
        """Parameters, as torch prints them."""
        shown: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return shown + (", relu=True" if self.relu else "")


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
    relu
        Whether a rectifier follows; in the same pass, so that it costs nothing.

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
        *,
        relu: bool = False,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ConfigError(f"got {num_channels} channels in {num_groups} groups, expected a multiple of the groups")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.relu = relu
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

    def forward(self, x: ParticleTensor, *, used_up: bool = False) -> ParticleTensor:
        """Normalise.

        Parameters
        ----------
        x
            [rows, channels].
        used_up
            Whether nobody looks at `x` again: where nothing learns, its memory then takes the result.

        Raises
        ------
        ConfigError
            If the features have other channels.
        """
        _check_channels(x, self.num_channels)
        settings = (self.num_groups, self.weight, self.bias, self.eps, self.relu)
        if used_up:
            return x.with_features(group_norm_over(x.features, x.stage.item_starts(), *settings))
        return x.with_features(group_norm(x.features, x.stage.item_starts(), *settings)[0])

    def extra_repr(self) -> str:
        """Parameters, as torch prints them."""
        shown = f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
        return shown + (", relu=True" if self.relu else "")


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
    relu
        Whether a rectifier follows; in the same pass, so that it costs nothing.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        relu: bool = False,
    ) -> None:
        super().__init__(num_features, num_features, eps, affine, device, dtype, relu=relu)
