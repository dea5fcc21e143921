"""From layers to what is evaluated: the same voxels on both sides, by the geometry of the layers. Reads no voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Points

from napari_aprcnn._napari.foreign import steady
from napari_aprcnn._napari.geometry import image_of
from napari_aprcnn._napari.units import ratios
from napari_aprcnn.config import AxisMapping
from napari_aprcnn.errors import AxesError, ImageError
from napari_aprcnn.evaluate.paint import paint_errors
from napari_aprcnn.evaluate.scores import Evaluation, ImagePair
from napari_aprcnn.io.points import Points as PointTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Source", "axes_of", "frame_of", "picture_of", "take_source"]

# Layers may lie this far beside one another's grid, in voxels.
_OFF_GRID = 0.2


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """A prediction layer with its truth, as it was when the evaluation began.

    Attributes
    ----------
    name
        Of the prediction layer.
    layer
        The prediction layer.
    pairs
        One image, or one for each time point.
    times
        Time point of each pair by its name; empty without a time axis.
    start
        First voxel of the compared part, along the axes of the layer.
    labels, truth
        The compared part of the arrays; `truth` is ``None`` for points.
    note
        What a reader should know, or nothing.
    """

    name: str
    layer: Any
    pairs: tuple[ImagePair, ...]
    times: dict[str, int]
    start: tuple[int, ...]
    labels: Any
    truth: Any
    note: str = ""

    def placement(self) -> dict[str, Any]:
        """Scale, place and units of a layer that shows something of the compared part."""
        image = image_of(self.layer)
        return image.place(AxisMapping(order=axes_of(self.layer)), start=self.start).kwargs

    def world(self, image: str, centroid: tuple[float, ...]) -> NDArray[np.float64]:
        """Place of a voxel of one of the pairs in the world of the layer, in its units."""
        first = (self.times[image],) if self.times else ()
        place = np.array([*first, *centroid], float) + self.start
        return np.asarray(self.layer.data_to_world(place), float)


def axes_of(layer: Any) -> str:
    """Letters of a layer's axes: the last of TZYX, or TYX where the first axis is named as time.

    Raises
    ------
    AxesError
        If there are fewer than two or more than four.
    """
    if not 2 <= layer.ndim <= 4:
        raise AxesError(f"{layer.name} has {layer.ndim} axes; expected 2 to 4 (t, z, y, x)")
    first = str(layer.axis_labels[0]).lower() if layer.axis_labels else ""
    return "TYX" if layer.ndim == 3 and first in ("t", "time") else "TZYX"[-layer.ndim :]


def frame_of(layer: Any, like: Any = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix (D, D) and origin (D,) that take voxels of a layer to the world, in the units of another one if given."""
    n = layer.ndim
    origin = np.asarray(layer.data_to_world(np.zeros(n)), float)[-n:]
    columns = [np.asarray(layer.data_to_world(np.eye(n)[axis]), float)[-n:] - origin for axis in range(n)]
    factors = np.ones(n) if like is None else ratios(layer.units, like.units)
    return np.stack(columns, axis=1) * factors[:, None], origin * factors


def take_source(prediction: Any, truth: Any, ignore: Any = None) -> Source:
    """Pair a prediction with its truth.

    Labels have to lie on one grid: the same scale, whole voxels apart. Where they cover different parts only the common
    part is compared. A layer that was never placed (scale 1, no translation) of the same shape is taken voxel by voxel.
    Points are taken to the voxels of the prediction by both layers' places.

    Parameters
    ----------
    prediction
        A labels layer.
    truth
        A labels or points layer.
    ignore
        A labels layer whose labels (not 0) mark what counts for nobody.

    Raises
    ------
    AxesError, ImageError
        If the layers do not fit together; says what to do.
    """
    axes = axes_of(prediction)
    if truth is prediction:
        raise ImageError(f"{truth.name} is both prediction and truth; choose another layer as truth")
    notes: list[str] = []
    shape = _shape(prediction)
    start, stop = np.zeros(len(shape), int), np.array(shape)
    offsets = {}
    for layer in (truth, ignore):
        if isinstance(layer, Labels):
            offset = _offset(prediction, layer, notes)
            offsets[layer.name] = offset
            start, stop = np.maximum(start, offset), np.minimum(stop, offset + _shape(layer))
    if np.any(stop <= start):
        raise ImageError(
            f"{prediction.name} and {truth.name} have no voxel in common; check scale and translate of both layers"
        )
    common = tuple(int(n) for n in stop - start)
    if any(_shape(layer) != common for layer in (prediction, *_labels(truth, ignore))):
        size = " x ".join(str(n) for n in common)
        notes.append(f"{prediction.name}: only the part that it shares with {truth.name} is compared, {size} voxels")
    labels = _part(prediction, start, stop)
    hidden = None if ignore is None else _part(ignore, start - offsets[ignore.name], stop - offsets[ignore.name])
    if isinstance(truth, Points):
        table, true = _points(prediction, truth, start), None
    else:
        table, true = None, _part(truth, start - offsets[truth.name], stop - offsets[truth.name])
    pairs, times = _pairs(prediction, axes, labels, true, table, hidden)
    return Source(
        name=str(prediction.name), layer=prediction, pairs=pairs, times=times, start=tuple(int(n) for n in start),
        labels=labels, truth=true, note="; ".join(dict.fromkeys(notes)),
    )  # fmt: skip


def _labels(*layers: Any) -> list[Any]:
    return [layer for layer in layers if isinstance(layer, Labels)]


def _data(layer: Any) -> Any:
    return steady(layer.data[0] if layer.multiscale else layer.data)


def _shape(layer: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in _data(layer).shape)


def _part(layer: Any, start: NDArray[Any], stop: NDArray[Any]) -> Any:
    data = _data(layer)
    if (start == 0).all() and (stop == np.array(data.shape)).all():
        return data
    return data[tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))]


def _offset(prediction: Any, other: Any, notes: list[str]) -> NDArray[np.int64]:
    """Voxel of the prediction that the first voxel of another labels layer is at."""
    if other.ndim != prediction.ndim:
        raise ImageError(
            f"{other.name} has {other.ndim} axes, {prediction.name} {prediction.ndim}; expected the same: choose a "
            f"layer of the same image"
        )
    same_shape = _shape(other) == _shape(prediction)
    (matrix, origin), (matrix_2, origin_2) = frame_of(prediction), frame_of(other, prediction)
    if same_shape and (_unplaced(prediction) or _unplaced(other)):
        if not (np.allclose(matrix, matrix_2, rtol=1e-3) and np.allclose(origin, origin_2)):
            bare = other if _unplaced(other) else prediction
            notes.append(f"{bare.name} has no voxel size of its own and was compared voxel by voxel")
        return np.zeros(prediction.ndim, np.int64)
    if not np.allclose(matrix, matrix_2, rtol=1e-3, atol=1e-9):
        raise ImageError(
            f"{other.name} has scale {_scale(other)}, {prediction.name} {_scale(prediction)}; expected the "
            f"same: resample one of them, or correct the scale of the layer that is wrong"
        )
    offset = np.linalg.solve(matrix, origin_2 - origin)
    whole = np.round(offset)
    if np.abs(offset - whole).max() > _OFF_GRID:
        raise ImageError(
            f"{other.name} lies {_words(offset)} voxels from {prediction.name}; expected whole voxels: correct "
            f"translate of one layer, or resample one of them"
        )
    return whole.astype(np.int64)


def _unplaced(layer: Any) -> bool:
    matrix, origin = frame_of(layer)
    return bool(np.array_equal(matrix, np.eye(len(matrix))) and not origin.any())


def _words(values: Any) -> str:
    return f"({', '.join(f'{float(value):.4g}' for value in values)})"


def _scale(layer: Any) -> str:
    units = dict.fromkeys(str(unit) for unit in layer.units)
    return _words(layer.scale) + ("" if units == {"pixel": None} else f" {', '.join(units)}")


def _points(prediction: Any, points: Any, start: NDArray[Any]) -> NDArray[np.float64]:
    """Points in voxels of the compared part."""
    if points.ndim != prediction.ndim:
        raise ImageError(
            f"{points.name} has {points.ndim} axes, {prediction.name} {prediction.ndim}; expected the same: add the "
            f"points to a layer of as many axes"
        )
    (matrix, origin), (matrix_2, origin_2) = frame_of(prediction), frame_of(points, prediction)
    world = np.asarray(points.data, float).reshape(-1, points.ndim) @ matrix_2.T + origin_2
    voxels: NDArray[np.float64] = np.linalg.solve(matrix, (world - origin).T).T - start
    # What rounding of the transforms moves over the edge of a voxel is put back.
    return np.round(voxels, 6)


def _pairs(
    prediction: Any, axes: str, labels: Any, truth: Any, points: NDArray[np.float64] | None, ignore: Any
) -> tuple[tuple[ImagePair, ...], dict[str, int]]:
    spacing = image_of(prediction).spacing(AxisMapping(order=axes)).um
    spatial = axes.replace("T", "")
    steps = None if spacing is None else spacing[-len(spatial) :]
    if not axes.startswith("T"):
        true = truth if points is None else PointTable(points, axes=spatial)
        name = str(prediction.name)
        return (ImagePair(name=name, labels=labels, truth=true, ignore=ignore, spacing_um=steps),), {}
    n = labels.shape[0]
    if points is not None:
        times = np.floor(points[:, 0] + 0.5)
        if ((times < 0) | (times >= n)).any():
            raise ImageError(f"there are points outside of the {n} time points of {prediction.name}; remove them")
    pairs = []
    for t in range(n):
        true = (
            truth[t] if points is None else PointTable(points[times == t][:, 1:] if len(points) else [], axes=spatial)
        )
        hidden = None if ignore is None else ignore[t]
        pairs.append(ImagePair(name=f"t {t}", labels=labels[t], truth=true, ignore=hidden, spacing_um=steps))
    return tuple(pairs), {pair.name: t for t, pair in enumerate(pairs)}


def picture_of(source: Source, evaluation: Evaluation, should_cancel: Callable[[], bool]) -> NDArray[np.uint8]:
    """Paint the kinds of all objects of the compared part, time point by time point; for a worker thread.

    Raises
    ------
    CancelledError
        If `should_cancel` said yes.
    """
    if not source.times:
        return paint_errors(source.labels, source.truth, evaluation.units, should_cancel=should_cancel)
    picture = np.zeros(source.labels.shape, np.uint8)
    for pair in source.pairs:
        units = [unit for unit in evaluation.units if unit.image == pair.name]
        true = pair.truth if source.truth is not None else None
        picture[source.times[pair.name]] = paint_errors(pair.labels, true, units, should_cancel=should_cancel)
    return picture
