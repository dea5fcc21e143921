"""Weights in from untrusted files: safetensors, and Cellpose's own .pth read without running any code in them.

A file is recognised by its content, not its suffix: Cellpose's official files have none.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from napari_aprcnn.errors import WeightsError
from napari_aprcnn.models.configs import NETWORKS
from napari_aprcnn.models.family import CellposeFamily
from napari_aprcnn.models.volume_config import VolumeNetConfig
from napari_aprcnn.models.volumes import VolumeNet

__all__ = ["Checkpoint", "build_network", "build_volume_network", "find_architecture", "read_checkpoint", "sha256_of"]

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_MAX_HEADER_BYTES = 100_000_000
_SCALARS = {"diam_mean": 30.0, "diam_labels": 30.0}
"""Cellpose 1 files lack these two."""
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_BAD_PICKLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a weights file holds.

    Attributes
    ----------
    weights
        Name to tensor, float32 (counters int64), on the CPU.
    metadata
        Texts that a safetensors file carries; empty for others.
    kind
        ``safetensors`` or ``torch``.
    """

    weights: dict[str, Tensor]
    metadata: dict[str, str]
    kind: str


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the weights in a file, running nothing that it says.

    Raises
    ------
    WeightsError
        If the file is neither safetensors nor a weights-only torch file, is truncated, or holds no finite numbers.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError(f"cannot read the weights file {path}: {error.strerror or error}") from error
    metadata: dict[str, str] = {}
    kind = "torch"
    if head.startswith((_ZIP, _PICKLE)):
        found = _read_torch(path)
    elif len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER_BYTES:
        found, metadata = _read_safetensors(path)
        kind = "safetensors"
    else:
        raise WeightsError(
            f"{path} ({size} bytes) is no weights file; expected .safetensors, or a Cellpose 2 or 3 model (.pth)"
        )
    return Checkpoint(weights=_cleaned(found, path), metadata=metadata, kind=kind)


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path} is a truncated or damaged safetensors file ({error}); copy or download it again"
        ) from error


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except _BAD_PICKLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(
            f"{path} cannot be read as weights only ({reason}); it is damaged, or holds objects whose code would have "
            f"to be run, which is refused. Save the state_dict of the network alone"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path} holds a {type(found).__name__}, expected the state_dict of a network")
    return {str(key).removeprefix("module."): value for key, value in found.items()}


def _cleaned(found: dict[str, Any], path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for key, value in found.items():
        counter = key.endswith("num_batches_tracked")
        # A sparse or quantised tensor is as foreign as a string here.
        plain = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized
        if not plain or not (value.is_floating_point() or counter):
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise WeightsError(f"{path}: {key} is of type {kind}, expected floating-point weights")
        if not counter and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{path}: {key} holds NaN or infinite values; these weights cannot be used")
        weights[key] = value.detach().to(torch.int64 if counter else torch.float32)
    if not weights:
        raise WeightsError(f"{path} holds no weights at all")
    return weights


# --- which network ------------------------------------------------------------------------------------------------


def _shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = CellposeFamily(architecture)
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def _differences(weights: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    found = []
    for key, shape in expected.items():
        if key not in weights:
            if key not in _SCALARS:
                found.append(f"{key} {shape} is missing")
        elif tuple(weights[key].shape) != shape:
            found.append(f"{key} has shape {tuple(weights[key].shape)}, expected {shape}")
    return found + [f"{key} {tuple(weights[key].shape)} is not expected" for key in weights if key not in expected]


def find_architecture(weights: Mapping[str, Tensor]) -> str:
    """Find the network of the family that weights belong to, by names and shapes.

    Raises
    ------
    WeightsError
        If they belong to none: the message names the nearest one and what differs first.
    """
    differences = {name: _differences(weights, _shapes(name)) for name in NETWORKS}
    nearest = min(differences, key=lambda name: len(differences[name]))
    if differences[nearest]:
        raise _mismatch(_FAMILY, f"the nearest is {nearest}", differences[nearest])
    return nearest


_FAMILY = f"a network of the family ({', '.join(NETWORKS)})"


def _mismatch(wanted: str, how: str, differences: list[str]) -> WeightsError:
    shown, more = differences[:4], len(differences) - 4
    rest = f"; and {more} more" if more > 0 else ""
    return WeightsError(
        f"these weights are not of {wanted}; {how}, but {'; '.join(shown)}{rest}. Give a file that was trained with one"
    )


def build_network(architecture: str, weights: Mapping[str, Tensor], *, style: bool = True) -> CellposeFamily:
    """Make a network and load weights into it, strictly.

    Parameters
    ----------
    architecture
        Name of one of `NETWORKS`.
    weights
        Name to tensor. The two diameter scalars may be missing (Cellpose 1).
    style
        Add the style vector in the decoder.

    Raises
    ------
    WeightsError
        If a key is missing, not expected, or of another shape.
    """
    if architecture not in NETWORKS:
        raise WeightsError(f"the file says architecture {architecture!r}, expected one of {', '.join(NETWORKS)}")
    differences = _differences(weights, _shapes(architecture))
    if differences:
        raise _mismatch(_FAMILY, f"expected {architecture}", differences)
    config = NETWORKS[architecture]
    network = CellposeFamily(config if style else config.replace(style=False))
    scalars = {key: torch.tensor([value]) for key, value in _SCALARS.items() if key not in weights}
    network.load_state_dict({**weights, **scalars}, strict=True)
    return network.eval()


def build_volume_network(config: VolumeNetConfig, weights: Mapping[str, Tensor]) -> VolumeNet:
    """Make a network for volumes and load weights into it, strictly.

    Raises
    ------
    WeightsError
        If a key is missing, not expected, or of another shape.
    """
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in VolumeNet(config).state_dict().items()}
    differences = _differences(weights, expected)
    if differences:
        what = f"channels {config.channels}, depth {config.depth}, head {config.head}, form {config.form}"
        raise _mismatch(f"the network for volumes that the card describes ({what})", "its layers differ", differences)
    network = VolumeNet(config)
    network.load_state_dict(weights, strict=True)
    return network.eval()


def read_card_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the card that a safetensors file carries in its header, or an empty dict."""
    try:
        card = json.loads(metadata.get("card", "{}"))
    except ValueError:
        return {}
    return card if isinstance(card, dict) else {}
