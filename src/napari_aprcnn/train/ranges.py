"""Ranges of what a trained network multiplies, measured on its images, so that it can run in 8 bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from napari_aprcnn.models.fused import FusedFamily, can_fuse
from napari_aprcnn.models.inputs import network_input
from napari_aprcnn.models.network import MULTIPLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_aprcnn.models.family import CellposeFamily
    from napari_aprcnn.models.inputs import SecondChannel
    from napari_aprcnn.train.data import LabelledImage

__all__ = ["at_network_scale", "int8_spans"]

IMAGES = 120
EDGE_PX = 512


def int8_spans(
    module: CellposeFamily, planes: Iterable[NDArray[np.generic]], *, second_channel: SecondChannel = "zero"
) -> dict[str, tuple[float, float]]:
    """Measure the ranges that `ModelCard.int8_spans` holds.

    Parameters
    ----------
    module
        A trained network, which is left as it is.
    planes : (H, W) each
        Normalised intensities, nuclei as large as the network was trained at.
    second_channel
        What its second input channel holds.

    Returns
    -------
    dict
        Empty for networks without products of 8 bits, where kernels are not compiled, and without images.
    """
    if not can_fuse(module):
        return {}
    inputs = [
        network_input(torch.from_numpy(_whole(np.asarray(plane, np.float32)))[None], second_channel=second_channel)
        for plane in planes
    ]
    with torch.inference_mode():
        return FusedFamily(module).measure_spans(inputs) if inputs else {}


def at_network_scale(images: Sequence[LabelledImage], *, diameter_px: float) -> Iterator[NDArray[np.float32]]:
    """Every k-th image with nuclei as a network sees it that was trained at a diameter; at most some hundred.

    Parameters
    ----------
    images
        Images of a training.
    diameter_px
        Diameter of nuclei in the result.
    """
    useful = [item for item in images if item.diameter_px > 0]
    for item in useful[:: -(-len(useful) // IMAGES) or 1]:
        zoom = diameter_px / item.diameter_px
        edge = round(EDGE_PX / zoom)
        y, x = (max(0, (n - edge) // 2) for n in item.image.shape)
        part = torch.from_numpy(np.asarray(item.image[y : y + edge, x : x + edge], np.float32))
        size = [max(MULTIPLE, round(n * zoom)) for n in part.shape]
        scaled = F.interpolate(part[None, None], size=size, mode="bilinear", antialias=True, align_corners=False)
        yield scaled[0, 0].numpy()


def _whole(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Padded with background to edges that the network takes."""
    return np.pad(plane, [(0, -n % MULTIPLE) for n in plane.shape])
