"""The main job: an image to nuclei."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn import _kernels
from napari_aprcnn.config import SegmentConfig
from napari_aprcnn.errors import AxesError, ConfigError
from napari_aprcnn.models.devices import usable_threads
from napari_aprcnn.segment.memory import MemoryMonitor, free_bytes
from napari_aprcnn.segment.partials import Partials
from napari_aprcnn.segment.progress import PartialLabels, Progress, Reporter
from napari_aprcnn.segment.reader import Reader
from napari_aprcnn.segment.readout import Readout, package_versions
from napari_aprcnn.segment.result import SegmentationResult
from napari_aprcnn.segment.run import Run, torch_threads
from napari_aprcnn.segment.source import MappedImage, map_image
from napari_aprcnn.segment.volume_run import VolumePlan, VolumeRun

if TYPE_CHECKING:
    from napari_aprcnn.models.volume_network import VolumeNetwork
    from napari_aprcnn.segment.plan import Mode, Plan
    from napari_aprcnn.segment.store import Store
    from napari_aprcnn.segment.tiles import NetworkLike

__all__ = ["memory_budget", "resolve_mode", "segment"]

SHARE_OF_FREE = 0.8
HOLD_BYTES = 512_000_000


def segment(
    image: Any,
    *,
    config: SegmentConfig | None = None,
    progress: Callable[[Progress], Any] | None = None,
    should_cancel: Callable[[], bool] | None = None,
    on_partial: Callable[[PartialLabels], Any] | None = None,
    **overrides: Any,
) -> SegmentationResult:
    """Find the nuclei in an image.

    Parameters
    ----------
    image
        2D to 5D array out of T, C, Z, Y, X in any order: numpy, dask, zarr or anything with ``shape``, ``dtype`` and
        ``__getitem__``. Lazy arrays are read a plane, a block or at most one volume of one channel at a time.
    config
        Parameters; ``None``: the defaults.
    progress
        Called with a `Progress` after every tile.
    should_cancel
        Asked many times a second, within tiles and kernels too, from any thread; ``True`` stops the run.
    on_partial
        Called with `PartialLabels` as tiles, planes and time points are finished.
    **overrides
        Fields of `SegmentConfig` that replace those of `config`: ``model="fastcellpose"``,
        ``spacing_um=(1, 0.2, 0.2)``. `model` may also be a loaded network.

    Returns
    -------
    SegmentationResult
        Labels, probability, flows, readout and configuration.

    Raises
    ------
    ImageError, AxesError, ImageDtypeError, ImageValueError
        If the image cannot be segmented.
    ConfigError
        If a parameter is out of range or unknown.
    ModelNotFoundError, WeightsError, DeviceError
        If the network cannot be loaded.
    NotEnoughMemoryError
        If not even the smallest tiles and blocks fit the memory.
    CancelledError
        If `should_cancel` said yes; there is no partial result.

    Examples
    --------
    >>> import numpy as np
    >>> result = segment(np.zeros((64, 64), np.uint8))
    >>> result.labels.shape, result.labels.dtype.name, result.readout.n_objects
    ((64, 64), 'uint16', 0)
    """
    started = time.perf_counter()
    config, network = _settings(config or SegmentConfig(), overrides)
    source = map_image(image, config.axes)
    if network is None:
        resolve_mode(config, source)  # what cannot be done is said before a network is loaded
    reporter = Reporter(progress, should_cancel)
    threads = config.threads or usable_threads()
    budget = memory_budget(config)
    with MemoryMonitor() as memory, torch_threads(threads):
        with reporter.stage("model"):
            network = network or _load(config)
        for_volumes = getattr(network.card, "volume", None) is not None
        mode = resolve_mode(config, source, for_volumes=for_volumes)
        whole = mode in ("planes", "volume") or source.shape[0] == 1
        common: dict[str, Any] = {
            "source": source,
            "reader": Reader(source, volumes=whole, hold_bytes=min(HOLD_BYTES, budget // 8)),
            "config": config,
            "network": network,
            "reporter": reporter,
            "partials": Partials(on_partial, source, config.flows, threads),
            "threads": threads,
            "budget": budget,
        }
        run: Run | VolumeRun
        if for_volumes:
            run = VolumeRun(**common)
        else:
            run = Run(**common, mode=mode, architecture=str(getattr(network.card, "architecture", "")))
        try:
            store, plan = run.execute()
        finally:
            if hasattr(network, "release"):
                network.release()  # nobody knows whether there will be another run
    readout = _readout(run, plan, memory, seconds=time.perf_counter() - started)
    result = _result(source, store, readout, _replayable(config, run, plan))
    if isinstance(run, VolumeRun):
        result = replace(result, particles=run.tree, outputs=run.outputs)
    reporter.finish()
    return result


def _settings(
    config: SegmentConfig, overrides: dict[str, Any]
) -> tuple[SegmentConfig, NetworkLike | VolumeNetwork | None]:
    """Merge the overrides; a network given as an object is kept beside its name."""
    network: NetworkLike | VolumeNetwork | None = None
    model = overrides.get("model")
    if isinstance(model, Path):
        overrides["model"] = str(model)
    elif model is not None and not isinstance(model, str):
        if not all(hasattr(model, name) for name in ("predict", "card", "device")):
            raise ConfigError(
                f"model is a {type(model).__name__}; expected the name of a model, the path of a weights file, or "
                "what load_model returns"
            )
        network = model
        overrides["model"] = str(getattr(model, "name", "network"))
    return (config.replace(**overrides) if overrides else config), network


_last_network: tuple[tuple[object, ...], NetworkLike | VolumeNetwork] | None = None


def _load(config: SegmentConfig) -> NetworkLike | VolumeNetwork:
    """Load the network, or take the last run's: a series of small images must not load it again and again."""
    global _last_network
    from napari_aprcnn.models.zoo import load_model

    key = (config.model, config.device, config.precision, config.threads, _stamp(config.model))
    if _last_network is None or _last_network[0] != key:
        network = load_model(config.model, device=config.device, precision=config.precision, threads=config.threads)
        _last_network = (key, network)
    return _last_network[1]


def _stamp(model: str) -> tuple[int, int] | None:
    """Time and size of a weights file, which may be trained further between two runs; ``None`` for a name."""
    try:
        status = Path(model).stat()
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size


def resolve_mode(config: SegmentConfig, source: MappedImage, *, for_volumes: bool | None = None) -> Mode:
    """Decide how an image is segmented; a single plane is 2D whatever was asked for.

    Parameters
    ----------
    config, source
        What is asked for, and the image.
    for_volumes
        Whether the network is one for volumes; ``None``: as the card of the configuration's model says.

    Raises
    ------
    AxesError
        If 3D was asked for and there is no Z axis, or the network is for volumes and the image is none.
    ConfigError
        If the network cannot do what was asked for.
    """
    if for_volumes is None:
        from napari_aprcnn.models.zoo import is_for_volumes

        for_volumes = is_for_volumes(config.model)
    if for_volumes:
        if source.shape[0] == 1:
            raise AxesError(
                f"the model {config.model!r} is for volumes and the image is a plane; choose a model for planes, "
                "fastercellpose-v3 for one, or name the Z axis, for example axes=ZYX"
            )
        if config.dimensionality not in ("auto", "volume"):
            raise ConfigError(
                f"dimensionality is {config.dimensionality!r}, but the model {config.model!r} is for volumes; set "
                "it to auto, or choose a model for planes"
            )
        return "volume"
    if config.dimensionality == "volume":
        raise ConfigError(
            f"dimensionality is 'volume', but the model {config.model!r} is for planes; set it to auto, or choose a "
            "model for volumes"
        )
    if config.dimensionality in ("planes", "stitch") and "Z" not in source.mapping.order:
        raise AxesError(
            f"3D segmentation ({config.dimensionality}) was asked for but the axes {source.mapping.order} have no Z; "
            "name the Z axis, for example axes=ZYX, or set dimensionality to auto"
        )
    if source.shape[0] == 1:
        return "2d"
    return "planes" if config.dimensionality == "auto" else config.dimensionality


def memory_budget(config: SegmentConfig) -> int:
    """Return the bytes that a run may add."""
    if config.tiles.memory_gb is not None:
        return round(config.tiles.memory_gb * 1e9)
    return int(SHARE_OF_FREE * free_bytes())


def _replayable(config: SegmentConfig, run: Run | VolumeRun, plan: Plan | VolumePlan) -> SegmentConfig:
    """Pin what the state of the machine decided, so that a replay is cut the same way."""
    tiles = config.tiles
    if plan.reduced:
        tiles = tiles.replace(memory_gb=run.budget / 1e9)
    if run.tile_px != plan.tile_px:
        tiles = tiles.replace(tile_px=run.tile_px)
    return config.replace(tiles=tiles)


def _readout(run: Run | VolumeRun, plan: Plan | VolumePlan, memory: MemoryMonitor, *, seconds: float) -> Readout:
    config, source, network = run.config, run.source, run.network
    voxels = int(np.prod(source.output_shape, dtype=np.int64))
    diameter = config.diameter_px if run.diameter is None else run.diameter.diameter_px
    return Readout(
        model=str(getattr(network, "name", config.model)),
        model_sha256=str(getattr(network, "sha256", "")),
        precision=str(getattr(network, "precision", config.precision)),
        device=str(getattr(network, "device_words", network.device)),
        threads=run.threads,
        instruction_set=_kernels.instruction_set(),
        axes=source.axes,
        shape=source.output_shape,
        dimensionality=run.mode,
        n_objects=run.n_objects,
        diameter_px=diameter or 0.0,
        diameter_given=run.diameter is None,
        zoom=run.scale.zoom,
        prr=run.prr,
        seconds=seconds,
        stages=dict(run.reporter.seconds),
        voxels=voxels,
        voxels_per_s=voxels / max(seconds, 1e-9),
        peak_memory_bytes=memory.peak_bytes,
        memory_added_bytes=memory.peak_bytes - memory.start_bytes,
        memory_estimate_bytes=plan.memory_bytes,
        tile_px=run.tile_px,
        n_tiles=plan.n_tiles,
        n_blocks=len(plan.blocks),
        versions=package_versions(),
    )


def _result(source: MappedImage, store: Store, readout: Readout, config: SegmentConfig) -> SegmentationResult:
    labels = np.ascontiguousarray(source.to_output(store.labels))
    outputs = store.outputs
    if outputs is None:
        return SegmentationResult(labels, None, None, readout, config)
    flows, probability = outputs
    return SegmentationResult(
        labels,
        np.ascontiguousarray(source.to_output(probability)),
        np.ascontiguousarray(source.to_output(flows, lead=1)) if len(flows) else None,
        readout,
        config,
    )
