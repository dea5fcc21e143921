"""The zoo: named weights in the package, each with its card, and users' own files.

Importing this module does not import torch: `list_models` reads small JSON files only.

Examples
--------
>>> network = load_model("fastercellpose-v3", device="cpu", threads=1)  # doctest: +SKIP
>>> network.predict(np.zeros((1, 100, 120), np.float32)).shape  # doctest: +SKIP
(1, 3, 100, 120)
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_aprcnn.errors import ConfigError, ModelNotFoundError, OutputError, WeightsError
from napari_aprcnn.models.cards import ModelCard, read_card

if TYPE_CHECKING:
    from torch import nn

    from napari_aprcnn.models.checkpoints import Checkpoint
    from napari_aprcnn.models.network import Network
    from napari_aprcnn.models.volume_network import VolumeNetwork

__all__ = [
    "DEFAULT_ORDER",
    "WEIGHTS_FOLDER",
    "ModelCard",
    "card_of",
    "is_for_volumes",
    "list_models",
    "load_model",
    "save_model",
]

_log = logging.getLogger(__name__)

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
DEFAULT_ORDER = (
    "fastercellpose-v3",
    "fastcellpose",
    "fastercellpose-v1",
    "fastercellpose-v2",
    "fastercellpose-wide",
    "apr-unet-nuclei-3d",
    "apr-stardist-nuclei-3d",
)
_SUFFIXES = (".safetensors", ".pth", ".pt")
_PUBLISHED_DIAMETER_PX = (1.0, 10_000.0)


def _names() -> list[str]:
    found = {path.stem for path in WEIGHTS_FOLDER.glob("*.safetensors")}
    return [name for name in DEFAULT_ORDER if name in found] + sorted(found - set(DEFAULT_ORDER))


def list_models() -> list[ModelCard]:
    """List the models whose weights are here, the default first.

    A model whose card cannot be read is left out and logged.
    """
    cards = []
    for name in _names():
        try:
            cards.append(read_card(WEIGHTS_FOLDER / f"{name}.json"))
        except WeightsError as error:
            _log.warning("model %s is left out: %s", name, error)
    return cards


def load_model(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    precision: Literal["float32", "bfloat16", "int8"] = "float32",
    threads: int | None = None,
) -> Network | VolumeNetwork:
    """Load a network, ready to run.

    Parameters
    ----------
    name_or_path
        Name of a model of `list_models`; or a file: .safetensors of this package, or an official Cellpose 2 or 3
        model (with or without .pth), which is read as weights only.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    precision
        Arithmetic of the network; ``int8`` for separable networks for planes on CPUs with AVX512-VNNI.
    threads
        Threads on the CPU; ``None``: all that the process may use.

    Raises
    ------
    ModelNotFoundError
        If there is no such model and no such file. The message names what exists and what is near.
    WeightsError
        If the file is damaged, foreign, of another network, or not the one that its card describes.
    DeviceError
        If the device asked for cannot be used.
    ConfigError
        If ``int8`` was asked for and the network or the processor has none.
    """
    path, named = _locate(name_or_path)
    from napari_aprcnn.models.devices import resolve_device

    where = resolve_device(device, threads=threads)
    from napari_aprcnn.models.checkpoints import build_network, build_volume_network, read_checkpoint, sha256_of
    from napari_aprcnn.models.network import Network

    checkpoint = read_checkpoint(path)
    card = _card_of(path, checkpoint, sha256_of(path), required=named)
    if card.volume is not None:
        from napari_aprcnn.models.volume_network import VolumeNetwork

        if precision == "int8":
            raise ConfigError(f"got precision int8 for {card.name}, a network for volumes; take float32 or bfloat16")
        module = build_volume_network(card.volume, checkpoint.weights)
        return VolumeNetwork(module, card, device=where, precision=precision)
    # The authors of FastCellpose train and run with the style switched off; only their files are torch files.
    style = not (checkpoint.kind == "torch" and card.architecture == "fastcellpose")
    network = build_network(card.architecture, checkpoint.weights, style=style)
    return Network(network, card, device=where, precision=precision)


def card_of(name_or_path: str | Path) -> ModelCard:
    """Read the card of a model of the zoo, or of a file with one beside it or in its header; no weights are loaded.

    Raises
    ------
    ModelNotFoundError
        If there is no such model and no such file.
    WeightsError
        If there is no card, or it cannot be read.
    """
    path, named = _locate(name_or_path)
    beside = path.with_name(f"{path.stem}.json")
    if not named and not beside.exists():
        card = _header_card(path)
        if card is not None:
            return card
    return read_card(beside)


def _header_card(path: Path) -> ModelCard | None:
    """Card in the header of a safetensors file; ``None`` where there is none that is valid."""
    from safetensors import SafetensorError, safe_open

    with contextlib.suppress(SafetensorError, OSError, ValueError, RecursionError, ConfigError, TypeError):
        with safe_open(path, framework="numpy") as file:
            values = json.loads((file.metadata() or {}).get("card", "null"))
        return ModelCard(**values) if isinstance(values, dict) else None
    return None


def is_for_volumes(name_or_path: str | Path) -> bool:
    """Whether a model is one for volumes, by its card alone, beside it or in it; ``False`` for files without one."""
    try:
        return card_of(name_or_path).volume is not None
    except (ModelNotFoundError, WeightsError):
        return False


def _locate(name_or_path: str | Path) -> tuple[Path, bool]:
    """Return the weights file, and whether it is one of the zoo."""
    text = os.fspath(name_or_path)
    names = _names()
    if text in names:
        return WEIGHTS_FOLDER / f"{text}.safetensors", True
    path = Path(text).expanduser()
    try:
        if path.is_file():
            return path, False
        folder = path.is_dir() and text.strip() != ""
    except (OSError, ValueError):  # a name too long for a path, or with a null byte
        folder = False
    if folder:
        raise ModelNotFoundError(f"{text!r} is a folder, expected a weights file in it or the name of a model")
    here = f"the models here are {', '.join(names)}" if names else "no models are installed with this package"
    if isinstance(name_or_path, Path) or path.suffix in _SUFFIXES or len(path.parts) > 1:
        raise ModelNotFoundError(f"there is no weights file {text!r}; check the path. By name, {here}")
    near = difflib.get_close_matches(text.lower(), names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ModelNotFoundError(f"there is no model {text!r}; {hint}Of names, {here}; or give the path of a weights file")


def _card_of(path: Path, checkpoint: Checkpoint, sha256: str, *, required: bool) -> ModelCard:
    """Find the card beside the file, in its header, or write one from what its weights tell."""
    from napari_aprcnn.models.checkpoints import find_architecture, read_card_metadata
    from napari_aprcnn.models.configs import NETWORKS

    beside = path.with_name(f"{path.stem}.json")
    if required or (path.suffix == ".safetensors" and beside.exists()):
        card = read_card(beside)
        if card.sha256 != sha256:
            raise WeightsError(
                f"the card {beside} describes weights of SHA-256 {card.sha256[:12] or '(none)'}..., but {path.name} "
                f"has {sha256[:12]}...: one of the two was changed or damaged; restore the pair"
            )
        return card
    embedded = read_card_metadata(checkpoint.metadata)
    if embedded:
        with contextlib.suppress(ConfigError, TypeError):
            return ModelCard(**{**embedded, "sha256": sha256})
        _log.warning("the card in the header of %s is not valid; its weights are taken as a bare checkpoint", path)
    architecture = checkpoint.metadata.get("architecture") or find_architecture(checkpoint.weights)
    scalar = checkpoint.weights.get("diam_mean")
    diameter_px = float(scalar.flatten()[0]) if scalar is not None and scalar.numel() else 30.0
    low, high = _PUBLISHED_DIAMETER_PX
    if not low <= diameter_px <= high:
        raise WeightsError(
            f"{path}: diam_mean is {diameter_px:g} px, expected {low:g} to {high:g}; the file is damaged"
        )
    title = NETWORKS[architecture].title if architecture in NETWORKS else architecture
    return ModelCard(
        name=path.stem or path.name,
        architecture=architecture,
        title=f"{title} from {path.name}",
        data="not known: a file without a card",
        licence="not known",
        sha256=sha256,
        diameter_px=diameter_px,
    )


def save_model(module: nn.Module, path: str | Path, card: ModelCard, *, half: bool = False) -> ModelCard:
    """Write weights as safetensors with their card beside, each written beside its place and then renamed.

    Parameters
    ----------
    module
        A `CellposeFamily`, or a `VolumeNet`.
    path
        NAME.safetensors; the card becomes NAME.json.
    card
        Its ``sha256`` is replaced by the file's.
    half
        Write float16, half of the bytes, instead of float32; what is computed is float32 all the same.

    Returns
    -------
    ModelCard
        The card as written.

    Raises
    ------
    WeightsError
        If the weights are not those of the card's architecture, or not finite, or the path has another suffix.
    OutputError
        If the files cannot be written; what was there before is still there.
    """
    import torch
    from safetensors.torch import save

    from napari_aprcnn.models.checkpoints import build_network, build_volume_network

    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"got {path.name}, expected a file name that ends in .safetensors")
    kind = torch.float16 if half else torch.float32
    weights = {
        key: value.detach().to("cpu", kind if value.is_floating_point() else torch.int64).contiguous().clone()
        for key, value in module.state_dict().items()
    }
    broken = [key for key, value in weights.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise WeightsError(f"{broken[0]} holds NaN or infinite values; these weights are not worth keeping")
    if card.volume is not None:
        build_volume_network(card.volume, weights)
    else:
        build_network(card.architecture, weights)
    # One entry only: safetensors writes several in random order, and the same weights must give the same file.
    blob = save(weights, metadata={"card": card.replace(sha256="").model_dump_json()})
    written = card.replace(sha256=hashlib.sha256(blob).hexdigest())
    _write(path, blob)
    _write(path.with_name(f"{path.stem}.json"), written.to_json().encode())
    return written


def _write(path: Path, blob: bytes) -> None:
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that exists, may be written and has room"
        ) from error
