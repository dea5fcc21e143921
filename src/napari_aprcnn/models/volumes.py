"""U-Nets for volumes in their pixel, particle and hybrid form, and weights that move between the forms.

APR-CNN, section 5 and supplementary figure 9; one class, driven by `VolumeNetConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from napari_aprcnn._kernels.operators import give_back_free, reusing_memory
from napari_aprcnn._kernels.particles import restrict_filters
from napari_aprcnn.errors import ImageError, WeightsError
from napari_aprcnn.models.volume_config import LayerSpec, VolumeNetConfig, describe
from napari_aprcnn.models.volume_layers import (
    ConvBlock,
    DoubleBlock,
    Features,
    MaxPool,
    concatenate,
    convolution,
    skip_pair,
)
from napari_aprcnn.nn import ParticleTensor, Reconstruct, Sample
from napari_aprcnn.nn.stage import Stage
from napari_aprcnn.nn.waiting import Waiting

__all__ = ["VolumeNet", "move_weights", "share_weights"]


class _Head(nn.Module):
    """Output layers. StarDist's share a block and are otherwise disjoint (APR-CNN, section 5.4)."""

    def __init__(self, specs: Mapping[str, LayerSpec], norm: str) -> None:
        super().__init__()
        self.names = [name for name in ("output", "probability", "distances") if f"head.{name}" in specs]
        block = specs.get("head.block.conv")
        self.block = None if block is None else ConvBlock(block, norm)
        for name in self.names:
            self.add_module(name, convolution(specs[f"head.{name}"], bias=True))

    def forward(self, x: Any) -> Any:
        if self.block is not None:
            x = self.block(x)
        return concatenate([self.get_submodule(name)(x) for name in self.names])


class VolumeNet(nn.Module):
    """A U-Net for volumes.

    Parameters
    ----------
    config
        What to build.

    Examples
    --------
    >>> net = VolumeNet(VolumeNetConfig(channels=4, depth=2, particle_stages=0))
    >>> net(torch.rand(1, 1, 9, 16, 13)).shape
    torch.Size([1, 3, 9, 16, 13])
    """

    def __init__(self, config: VolumeNetConfig) -> None:
        super().__init__()
        self.config = config
        specs = {spec.key: spec for spec in describe(config)}
        residual = config.block == "residual"

        def double(name: str) -> DoubleBlock:
            parts = (specs[f"{name}.first.conv"], specs[f"{name}.second.conv"], specs.get(f"{name}.shortcut.conv"))
            return DoubleBlock(*parts, config.norm, residual=residual)

        self.encoder = nn.ModuleList([double(f"encoder.{stage}") for stage in range(config.depth + 1)])
        stages = range(config.out_stage, config.depth)
        self.narrow = nn.ModuleDict({str(s): ConvBlock(specs[f"narrow.{s}.conv"], config.norm) for s in stages})
        self.decoder = nn.ModuleDict({str(s): double(f"decoder.{s}") for s in stages})
        self.head = _Head(specs, config.norm)
        self.pool = MaxPool()
        self.reconstruct, self.sample = Reconstruct(), Sample()

    def forward(self, x: Features, *, once: bool = False) -> Features:
        """Run the network.

        Parameters
        ----------
        x
            Pixel form: [batch, in_channels, z, y, x], any size. Other forms: a `ParticleTensor` of stage 0.
        once
            Whether no other pass over these trees follows, and memory matters. In inference index tables are then freed
            as soon as they are done with (they would be built again), and skips wait without their zeros (`Waiting`).

        Returns
        -------
        Tensor or ParticleTensor
            ``config.out_channels`` channels on the grid, or the rows, of stage ``config.out_stage``.

        Raises
        ------
        ImageError
            If the input is not of that form, or its channels are others.
        StageError
            If a tree has fewer levels than the network has poolings; of hybrids, if the trees of a batch have several
            shapes.
        """
        self._check(x)
        if torch.is_grad_enabled():
            return self._run(x, once=False)
        with reusing_memory():
            found = self._run(x, once=once)
            if once and isinstance(found, ParticleTensor):
                found.stage.forest.release()
                give_back_free()
            return found

    def _run(self, x: Any, *, once: bool) -> Features:
        config = self.config
        skips: list[Any] = []
        for stage, block in enumerate(self.encoder):
            if stage:
                x = self.pool(x)
                if skips and isinstance(skips[-1], ParticleTensor):
                    skips[-1] = Waiting(skips[-1], lean=once)  # the pooling was the last that looked at it for now
                if stage == config.hybrid:
                    x = self.reconstruct(x)
            for step in cast("DoubleBlock", block).steps():
                x = step(x)
            if config.out_stage <= stage < config.depth:
                skips.append(x)
        for stage in reversed(range(config.out_stage, config.depth)):
            if once:
                give_back_free()
            x = self._from_below(x, skips[-1], stage)  # what it reads ends before the skip comes back
            if once and isinstance(skips[-1], Waiting):
                self._release_below(skips[-1].stage)
            x = self._merged(skips.pop(), x, stage)  # here nothing else is left that holds the skip
            for step in cast("DoubleBlock", self.decoder[str(stage)]).steps(used_up=True):
                x = step(x)
        return self._head_on(x)

    def _from_below(self, x: Features, skip: Any, stage: int) -> Any:
        """Narrow what comes from below, on particles where the skip is."""
        if isinstance(skip, Waiting) and isinstance(x, Tensor):
            x = self.sample(x, skip.stage.coarser())
        return self.narrow[str(stage)](x)

    def _release_below(self, stage: Stage) -> None:
        """Free the tables that the decoder is done with when it takes the skip of a stage: those of coarser ones."""
        stage.coarser().release(but=("children", "node_ranges"))  # of these are the means that the skip's pair reads
        for depth in range(stage.depth + 2, min(self.config.hybrid, self.config.depth + 1)):
            stage.forest.stage(depth).release()

    def _merged(self, skip: Any, below: Any, stage: int) -> Any:
        """Take the skip, and what comes from below, as one."""
        block = cast("DoubleBlock", self.decoder[str(stage)])
        return skip_pair(skip.back() if isinstance(skip, Waiting) else skip, below, residual=block.residual)

    def _head_on(self, x: Features) -> Features:
        found: Features = self.head(x)
        return found

    def _check(self, x: Features) -> None:
        wanted = self.config.in_channels
        if self.config.hybrid == 0:
            if not isinstance(x, Tensor) or x.ndim != 5 or x.shape[1] != wanted or not x.numel():
                got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
                raise ImageError(f"got an input of {got}, expected [batch, {wanted}, z, y, x] for the pixel form")
        elif not isinstance(x, ParticleTensor) or x.channels != wanted or x.stage.depth != 0:
            got = repr(x) if isinstance(x, ParticleTensor) else type(x).__name__
            raise ImageError(f"got {got}, expected a ParticleTensor of {wanted} channels and stage 0")

    def to_form(self, particle_stages: int | None, **changes: Any) -> VolumeNet:
        """Build the same network in another form, with these weights.

        Parameters
        ----------
        particle_stages
            As in `VolumeNetConfig`.
        **changes
            Further fields to change, ``filter_banks`` for one.

        Raises
        ------
        WeightsError
            If the change asks for other layers than these.
        """
        config = self.config.replace(particle_stages=particle_stages, **changes)
        own = next(self.parameters())
        net = VolumeNet(config).to(own.device, own.dtype)
        net.load_state_dict(move_weights(self.state_dict(), self.config, config))
        return net.train(self.training)


def move_weights(state: Mapping[str, Tensor], source: VolumeNetConfig, target: VolumeNetConfig) -> dict[str, Tensor]:
    """Weights of one form as those of another.

    Voxels take the first bank, which is that of the finest particles. Particles take the banks that there are, and
    where more are wanted the last one restricted, which computes the same. Where fewer are wanted the rest is dropped.

    Parameters
    ----------
    state
        ``state_dict`` of ``VolumeNet(source)``.
    source, target
        The two networks.

    Raises
    ------
    WeightsError
        If the networks differ in more than form and filter banks.
    """
    old = {spec.key: spec for spec in describe(source)}
    new = {spec.key: spec for spec in describe(target)}
    other = [k for k in old.keys() | new.keys() if k not in old or k not in new or _shape(old[k]) != _shape(new[k])]
    if other:
        raise WeightsError(
            f"the networks differ in {len(other)} layers, {min(other)} for one; expected the same channels, "
            "depth, block and head, in another form"
        )
    return dict(state) | {f"{key}.weight": _moved(state, old[key], spec) for key, spec in new.items()}


def share_weights(
    state: Mapping[str, Tensor], source: VolumeNetConfig, fresh: Mapping[str, Tensor], target: VolumeNetConfig
) -> dict[str, Tensor]:
    """Weights of a network to start another from: layers that both have, in the form of the other; its own elsewhere.

    Networks that differ in no more than form and banks give what `move_weights` gives; with another head or other
    inputs, the body.

    Parameters
    ----------
    state, source
        The network that is there.
    fresh, target
        ``state_dict`` of the network to start.

    Raises
    ------
    WeightsError
        If they have less than half of the convolutions in common.
    """
    old = {spec.key: spec for spec in describe(source)}
    new = {spec.key: spec for spec in describe(target)}
    common = [key for key in new if key in old and _shape(old[key]) == _shape(new[key])]
    if 2 * len(common) < len(new):
        raise WeightsError(
            f"the networks have {len(common)} of {len(new)} convolutions in common, expected at least half; start from "
            "a network with the same channels, depth and block"
        )
    bodies = {f"{key}.weight": _moved(state, old[key], new[key]) for key in common}
    others = {
        key: value
        for key, value in state.items()
        if key in fresh and key not in bodies and value.shape == fresh[key].shape
    }
    return dict(fresh) | others | bodies


def _moved(state: Mapping[str, Tensor], source: LayerSpec, target: LayerSpec) -> Tensor:
    weight = state[f"{source.key}.weight"]
    banks = weight if source.particles else weight[None]
    if target.banks > banks.shape[0]:
        banks = _more_banks(banks, target.banks)
    banks = banks[: target.banks]
    return (banks if target.particles else banks[0]).clone()


def _shape(spec: LayerSpec) -> tuple[object, ...]:
    return spec.inside, spec.outside, spec.kernel


def _more_banks(banks: Tensor, count: int) -> Tensor:
    if banks.shape[3:] == (1, 1, 1):  # nothing to restrict
        return torch.cat([banks, banks[-1:].expand(count - banks.shape[0], *banks.shape[1:])])
    with torch.no_grad():
        more: Tensor = restrict_filters(banks.detach(), count)
    return more
