"""A loaded network for volumes: an image in, the outputs of its head on the image's grid out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from napari_aprcnn.apr.to_apr import to_apr
from napari_aprcnn.errors import ConfigError, ImageDtypeError, ImageError, ImageValueError
from napari_aprcnn.models.network import using_threads
from napari_aprcnn.models.volume_inputs import InputScale, input_features, input_scale
from napari_aprcnn.models.volumes import VolumeNet
from napari_aprcnn.nn import ParticleTensor, Reconstruct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.apr.tree import ParticleTree
    from napari_aprcnn.models.cards import ModelCard
    from napari_aprcnn.models.devices import Device

__all__ = ["VolumeNetwork", "VolumeOutput"]

# Of each thread its own: a network that is kept from the last run may be run by several at once.
_CHECK: ContextVar[Callable[[], None] | None] = ContextVar("_CHECK", default=None)


@dataclass(frozen=True)
class VolumeOutput:
    """What a network says of an image.

    Attributes
    ----------
    features : (N, K) float32
        Output of the head for every particle (or cell, z, y, x order, in the pixel form) of the output's stage.
    dense : (Z, Y, X, K) float32
        The same on the output's grid.
    tree
        Particles of the image; ``None`` in the pixel form.
    stage
        Poolings of the output's grid: 0 voxels, 1 cells of 2 x 2 x 2.
    scale
        Grey values that the input was measured in.
    """

    features: NDArray[np.float32]
    dense: NDArray[np.float32]
    tree: ParticleTree | None
    stage: int
    scale: InputScale


class VolumeNetwork:
    """A network for volumes of the zoo or of a user's file, ready to run.

    Parameters
    ----------
    module
        The network.
    card
        What is known of the weights.
    device
        Where it is to run.
    precision
        Arithmetic.

    Attributes
    ----------
    card, module, device, device_words, threads, precision, name, sha256
        As those of `Network`.
    """

    def __init__(
        self,
        module: VolumeNet,
        card: ModelCard,
        *,
        device: Device,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        self.card, self.name, self.sha256 = card, card.name, card.sha256
        self.module = module.eval().requires_grad_(False)
        self.device, self.device_words, self.threads = device.torch_device, device.words, device.threads
        self.precision = precision
        self._forms: dict[int, VolumeNet] = {}

    def __repr__(self) -> str:
        return f"VolumeNetwork({self.name!r}, {self.device_words}, {self.precision})"

    def form(self, particle_stages: int) -> VolumeNet:
        """Return the network with that many particle stages, on its device.

        Raises
        ------
        ConfigError
            If the network has fewer stages.
        """
        config = self.module.config
        if not 0 <= particle_stages <= config.depth + 1:
            raise ConfigError(f"got {particle_stages} particle stages, expected 0 to {config.depth + 1}")
        if particle_stages not in self._forms:
            same = particle_stages == config.hybrid
            net = copy.deepcopy(self.module) if same else self.module.to_form(particle_stages)
            net = net.to(self.device).eval().requires_grad_(False)
            for layer in net.modules():
                if not any(layer.children()):
                    layer.register_forward_pre_hook(_ask)
            self._forms[particle_stages] = net
        return self._forms[particle_stages]

    def predict(
        self,
        image: NDArray[Any],
        *,
        tree: ParticleTree | None = None,
        scale: InputScale | None = None,
        relative_error: float | None = None,
        particle_stages: int | None = None,
        check: Callable[[], None] | None = None,
    ) -> VolumeOutput:
        """Run the network on an image.

        Parameters
        ----------
        image : (Z, Y, X) real
            Any size from 1 up; on particles the longest axis has more than ``2**depth`` voxels (8), that every pooling
            has a level. `segment` pads smaller ones.
        tree
            Its particles with intensities, where they are there already.
        scale
            Grey values of a larger image that this is a part of; ``None``: of this one.
        relative_error
            Of the conversion; ``None``: that of the card.
        particle_stages
            Stages on particles; ``None``: as it was trained.
        check
            Called between the layers; an exception that it raises stops the network and is passed on.

        Raises
        ------
        ImageError, ImageDtypeError, ImageValueError
            If the image is empty, of another rank, not real or not finite.
        """
        image = _checked(image)
        scale = scale or input_scale(image)
        stages = self.module.config.hybrid if particle_stages is None else particle_stages
        net = self.form(stages)
        with torch.inference_mode(), using_threads(self.threads), _asking(check):
            if stages == 0:
                x: Any = torch.from_numpy(self._input(image, scale)).permute(3, 0, 1, 2)[None]
                x = x.contiguous(memory_format=torch.channels_last_3d).to(self.device)
            else:
                if tree is None:
                    error = self.card.relative_error if relative_error is None else relative_error
                    tree = to_apr(image, relative_error=error, threads=self.threads)
                if tree.intensities is None:
                    raise ImageError("got a tree without intensities; make it with to_apr")
                features = torch.from_numpy(self._input(tree.intensities, scale))
                x = ParticleTensor.from_trees(tree, features, device=self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                out = net(x, once=True)  # the trees are made here, or their tables are
            return self._output(out, tree if stages else None, scale)

    def _input(self, values: NDArray[Any], scale: InputScale) -> NDArray[np.float32]:
        return input_features(values, scale, self.module.config.in_channels)

    def _output(self, out: Any, tree: ParticleTree | None, scale: InputScale) -> VolumeOutput:
        if isinstance(out, ParticleTensor):
            rows = out.features.float()
            dense = Reconstruct()(out.with_features(rows))[0].permute(1, 2, 3, 0)
        else:
            dense = out[0].float().permute(1, 2, 3, 0)
            rows = dense.reshape(-1, dense.shape[-1])
        stage = self.module.config.out_stage
        return VolumeOutput(rows.cpu().numpy(), dense.cpu().numpy(), tree, stage, scale)


@contextmanager
def _asking(check: Callable[[], None] | None) -> Iterator[None]:
    """Call `check` before every layer of the networks that this thread runs, while it is entered."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def _ask(_layer: nn.Module, _inputs: Any) -> None:
    check = _CHECK.get()
    if check is not None:
        check()


def _checked(image: NDArray[Any]) -> NDArray[Any]:
    image = np.asarray(image)
    if image.dtype.kind not in "fiub":
        raise ImageDtypeError(f"got an image of dtype {image.dtype}, expected real numbers")
    if image.ndim != 3 or image.size == 0:
        raise ImageError(f"got an image of shape {image.shape}, expected (Z, Y, X) with no empty axis")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ImageValueError("the image holds NaN or infinite values, expected finite ones; replace them first")
    return image
