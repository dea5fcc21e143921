"""A loaded network: normalised planes in, flows and probability out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_aprcnn.errors import ConfigError, ImageDtypeError, ImageError, ImageValueError
from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.models.fused import FusedFamily
from napari_aprcnn.models.inputs import network_input
from napari_aprcnn.models.optimise import for_inference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.models.cards import ModelCard
    from napari_aprcnn.models.devices import Device

__all__ = ["Network", "Precision", "using_threads"]

Precision = Literal["float32", "bfloat16", "int8"]
MULTIPLE = 16
"""Planes are padded with zeros (background) to a multiple of this."""
PASS_PX = 1 << 18
"""Small planes share one pass up to this many pixels; a larger one goes alone, which keeps memory low."""


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Set torch's threads for a while."""
    # The number belongs to the calling thread, so it is set at each call: a GUI calls from a worker thread.
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)


class Network:
    """A network of the zoo or of a user's file, ready to run.

    Attributes
    ----------
    card
        What is known of the weights.
    module
        The network as it was trained, in eval mode.
    device
        Where it runs.
    device_words
        The same, for people.
    precision
        Arithmetic: ``float32``, ``bfloat16`` or ``int8``.
    name, sha256
        Of the weights.
    """

    def __init__(
        self, module: CellposeFamily, card: ModelCard, *, device: Device, precision: Precision = "float32"
    ) -> None:
        self.card = card
        self.module = module.eval()
        self.device = device.torch_device
        self.device_words = device.words
        self.threads = device.threads
        self.precision: Precision = precision
        self.name = card.name
        self.sha256 = card.sha256
        # On the CPU the fast network takes float32 and turns it into its own type itself.
        if precision == "int8" and self.device.type != "cpu":
            raise ConfigError(f"got precision int8 on {device.words}, expected float32 or bfloat16: int8 is for CPUs")
        half = precision == "bfloat16" and self.device.type != "cpu"
        self._dtype = torch.bfloat16 if half else torch.float32
        self._place = device
        self._exact: Network | None = None
        self._fast: nn.Module
        if self.device.type == "cpu":
            self._fast = for_inference(module, precision=precision, spans=card.int8_spans)
        else:
            placed = copy.deepcopy(self.module).to(self.device, self._dtype)
            self._fast = placed.eval()

    def __repr__(self) -> str:
        return f"Network({self.name!r}, {self.device_words}, {self.precision})"

    @property
    def exact(self) -> Network:
        """The same weights on the same device in float32; the network itself where it is that already.

        Built when first asked for, and kept. Few choices hang on the last digits (how large nuclei are, of several
        answers that fit about as well), but those decide over a whole image.
        """
        if self.precision == "float32":
            return self
        if self._exact is None:
            self._exact = Network(self.module, self.card, device=self._place)
        return self._exact

    def predict(self, planes: NDArray[Any] | Tensor, *, check: Callable[[], None] | None = None) -> NDArray[np.float32]:
        """Run the network on normalised planes.

        Parameters
        ----------
        planes : (N, H, W) float32 ndarray or Tensor
            Intensities with 0 and 1 at the lower and upper percentile. Any height and width from 1 up.
        check
            Called many times a second while the network runs (once a pass on a GPU), from any of its threads; an
            exception that it raises stops the network and is passed on.

        Returns
        -------
        (N, 3, H, W) float32 ndarray
            Flow along y, flow along x (5 x pixels per step), logit of the cell probability.

        Raises
        ------
        ImageError
            If the planes are empty or of another rank.
        ImageDtypeError
            If they are no real numbers.
        ImageValueError
            If they hold NaN or infinity: through the style vector a single one would spoil the whole plane.
        """
        source = self._checked(planes)
        n, height, width = source.shape
        result = np.empty((n, 3, height, width), np.float32)
        at_once = max(1, PASS_PX // (height * width))
        with torch.inference_mode(), using_threads(self.threads):
            for start in range(0, n, at_once):
                part = source[start : start + at_once].to(self.device, torch.float32)
                part = F.pad(part, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
                x = network_input(part, second_channel=self.card.second_channel).to(self._dtype)
                y, _ = self._run(x, check)
                result[start : start + at_once] = y[:, :, :height, :width].float().cpu().numpy()
        return result

    def _run(self, x: Tensor, check: Callable[[], None] | None) -> tuple[Tensor, Tensor]:
        if self.device.type == "cpu":
            return cast("tuple[Tensor, Tensor]", self._fast(x, check=check))
        if check is not None:
            check()
        return cast("tuple[Tensor, Tensor]", self._fast(x))

    def release(self) -> None:
        """Free what the network keeps between calls to run faster; the next call takes it again."""
        if isinstance(self._fast, FusedFamily):
            self._fast.release()
        if self._exact is not None:
            self._exact.release()

    @staticmethod
    def _checked(planes: NDArray[Any] | Tensor) -> Tensor:
        if not isinstance(planes, Tensor):
            array = np.asarray(planes)
            if array.dtype.kind not in "fiub":
                raise ImageDtypeError(f"got planes of dtype {array.dtype}, expected real numbers (float32)")
            planes = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        elif planes.is_complex():
            raise ImageDtypeError(f"got planes of dtype {planes.dtype}, expected real numbers (float32)")
        if planes.ndim != 3 or planes.numel() == 0:
            raise ImageError(f"got planes of shape {tuple(planes.shape)}, expected (N, H, W) with no empty axis")
        if not bool(torch.isfinite(planes).all()):
            raise ImageValueError("the planes hold NaN or infinite values, expected finite ones; replace them first")
        return planes
