"""From a normalised plane to the two channels that networks of the family take."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from napari_aprcnn.errors import ImageError

__all__ = ["SecondChannel", "network_input"]

SecondChannel = Literal["zero", "asinh"]
GAIN = 20.0


def network_input(planes: Tensor, *, second_channel: SecondChannel) -> Tensor:
    """Stack the two input channels of the family.

    Parameters
    ----------
    planes : (N, H, W) float Tensor
        Normalised intensities: 0 and 1 are the lower and upper percentile.
    second_channel
        ``zero``: as official checkpoints want it for one stain. ``asinh``: asinh(20 x) / asinh(20), linear near zero
        and logarithmic above, so that dim nuclei beside bright ones, and sparse images whose upper percentile lies in
        the background, stay within the network's range.

    Returns
    -------
    (N, 2, H, W) float Tensor

    Raises
    ------
    ImageError
        If the input has another rank.

    Examples
    --------
    >>> network_input(torch.ones(1, 8, 8), second_channel="asinh")[0, :, 0, 0].tolist()
    [1.0, 1.0]
    """
    if planes.ndim != 3:
        raise ImageError(f"got planes of shape {tuple(planes.shape)}, expected (N, H, W)")
    second = torch.zeros_like(planes) if second_channel == "zero" else torch.asinh(planes * GAIN) / math.asinh(GAIN)
    return torch.stack((planes, second), dim=1)
