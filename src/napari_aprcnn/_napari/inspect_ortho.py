"""Three planes through one voxel: what they show and where, linked with the sliders of the viewer. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_aprcnn._napari.inspect_model import InspectModel
from napari_aprcnn._napari.jobs import Outcome
from napari_aprcnn._napari.latest import Latest

__all__ = ["PANELS", "OrthoModel", "Panel", "arrange"]

PANELS = {"xy": (1, 2), "zy": (1, 0), "xz": (0, 2)}  # axes (of z, y, x) that run down and to the right
_GAP = 6.0
_LAYER_EVENTS = ("colormap", "opacity", "visible", "contrast_limits")


@dataclass(frozen=True)
class Panel:
    """Place of a plane in the widget, and of its voxels in it.

    Attributes
    ----------
    name
        Of `PANELS`.
    left, top, width, height
        In pixels.
    step
        Pixels of a voxel (down, right).
    shift
        Pixels (down, right) that the plane is moved up and left: what is zoomed in on.
    """

    name: str
    left: float
    top: float
    width: float
    height: float
    step: tuple[float, float]
    shift: tuple[float, float] = (0.0, 0.0)

    def pixel(self, voxel: tuple[float, float, float]) -> tuple[float, float]:
        """Return the place (right, down) of the middle of a voxel (z, y, x)."""
        down, right = PANELS[self.name]
        return (
            self.left + (voxel[right] + 0.5) * self.step[1] - self.shift[1],
            self.top + (voxel[down] + 0.5) * self.step[0] - self.shift[0],
        )

    def holds(self, right: float, down: float) -> bool:
        """Whether a pixel lies in it."""
        return self.left <= right < self.left + self.width and self.top <= down < self.top + self.height

    def voxel(self, right: float, down: float) -> dict[int, int]:
        """Return the voxel at a pixel, by axis (of z, y, x)."""
        rows, columns = PANELS[self.name]
        return {
            rows: int(np.floor((down - self.top + self.shift[0]) / self.step[0])),
            columns: int(np.floor((right - self.left + self.shift[1]) / self.step[1])),
        }


def arrange(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    size: tuple[float, float],
    *,
    zoom: float = 1.0,
    cursor: tuple[int, int, int] = (0, 0, 0),
) -> list[Panel]:
    """Place three planes at one scale, as large as they fit: side by side, or two above one.

    Parameters
    ----------
    shape, spacing
        Voxels and their edges (z, y, x).
    size
        Width and height of the widget in pixels.
    zoom
        1 shows all; more, the surroundings of the cursor.
    cursor
        Voxel (z, y, x).

    Examples
    --------
    >>> [(p.name, p.left, p.top, p.width, p.height) for p in arrange((4, 10, 10), (2, 1, 1), (186, 186))]
    [('xy', 0.0, 0.0, 100.0, 100.0), ('zy', 106.0, 0.0, 80.0, 100.0), ('xz', 0.0, 106.0, 100.0, 80.0)]
    """
    z, y, x = (n * s for n, s in zip(shape, spacing, strict=True))
    width, height = size
    square = min((width - _GAP) / (x + z), (height - _GAP) / (y + z))
    row = min((width - 2 * _GAP) / (2 * x + z), height / max(y, z))
    scale = max(square, row, 1e-6)
    places = {
        "xy": (0.0, 0.0),
        "zy": (x * scale + _GAP, 0.0),
        "xz": (0.0, y * scale + _GAP) if square >= row else ((x + z) * scale + 2 * _GAP, 0.0),
    }
    panels = []
    for name, (down, right) in PANELS.items():
        extent = [shape[axis] * spacing[axis] * scale for axis in (down, right)]
        step = [spacing[axis] * scale * zoom for axis in (down, right)]
        shift = [
            float(np.clip((cursor[axis] + 0.5) * one - whole / 2, 0, whole * (zoom - 1)))
            for axis, one, whole in zip((down, right), step, extent, strict=True)
        ]
        left, top = places[name]
        panels.append(Panel(name, left, top, extent[1], extent[0], (step[0], step[1]), (shift[0], shift[1])))
    return panels


class OrthoModel:
    """The planes through a cursor that follows the sliders, and moves them.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.
    inspect
        Whose labels and image are shown.
    launch
        Runs a callable in another thread; used where a plane is not in memory.

    Attributes
    ----------
    cursor
        Voxel (z, y, x).
    pictures
        By name of the panel: (H, W, 3) uint8.
    words
        Where the cursor is and what is there; or why nothing is shown.
    zoom
        1 shows all.
    changed : Signal(str)
        ``planes``, ``cursor``, ``pending``.
    """

    changed = Signal(str)

    def __init__(self, viewer: Any, inspect: InspectModel, launch: Callable[[Callable[[], None]], Any]) -> None:
        self._viewer, self._inspect, self._layers = viewer, inspect, inspect.layers
        self.cursor = (0, 0, 0)
        self.pictures: dict[str, NDArray[np.uint8]] = {}
        self.words = ""
        self.zoom = 1.0
        self._moving = self._closed = False
        self._watched: list[Any] = []
        self._latest = Latest(launch, self._read, delay_s=0.0)
        inspect.changed.connect(self._inspect_changed)
        inspect.clicked.connect(self.look_at)
        viewer.dims.events.current_step.connect(self._follow)
        self._watch_layers()
        self._centre()
        self._follow()

    # --- what there is -----------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str:
        """Why nothing is shown, or an empty string."""
        if self._layers.labels is None:
            return "Choose labels of a volume in the Inspect dock."
        return "" if "Z" in self._layers.axes else "Orthogonal views need a volume: these labels have no Z axis."

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (z, y, x)."""
        z, y, x = self._layers.shape[-3:]
        return z, y, x

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Edges (z, y, x) of a voxel, in micrometres or as multiples."""
        return self._layers.spacing_um or (1.0, 1.0, 1.0)

    def panels(self, width: float, height: float) -> list[Panel]:
        """Return the places of the planes in a widget of this size."""
        if self.problem:
            return []
        return arrange(self.shape, self.spacing, (width, height), zoom=self.zoom, cursor=self.cursor)

    # --- the cursor --------------------------------------------------------------------------------------------------

    def _centre(self) -> None:
        if not self.problem:
            z, y, x = (n // 2 for n in self.shape)
            self.cursor = (z, y, x)

    def move(self, place: dict[int, int]) -> None:
        """Move the cursor along some axes (0: z, 1: y, 2: x); the sliders of the viewer follow."""
        if self.problem:
            return
        z, y, x = (int(np.clip(place.get(axis, self.cursor[axis]), 0, n - 1)) for axis, n in enumerate(self.shape))
        if (z, y, x) != self.cursor:
            self.cursor = (z, y, x)
            self._moving = True
            world = self._layers.world_at(self._voxel)
            dims = self._viewer.dims
            dims.set_point(tuple(range(dims.ndim - len(world), dims.ndim)), tuple(world))
            self._moving = False
            self.refresh()

    def pick(self) -> None:
        """Select the object at the cursor."""
        if not self.problem:
            label = self._layers.label_at(self._voxel)
            if label:
                self._inspect.sheet.select([(self._layers.shown_time, label)])

    def look_at(self, voxel: NDArray[np.float64]) -> None:
        """Put the cursor on a voxel (all axes of the labels) that was clicked in the viewer."""
        if len(voxel) >= 3 and self._layers.inside(voxel):
            self.move({axis: int(np.floor(v + 0.5)) for axis, v in enumerate(voxel[-3:])})

    def set_zoom(self, zoom: float) -> None:
        """Zoom in on the cursor: 1 (all) to 32."""
        self.zoom = float(np.clip(zoom, 1.0, 32.0))
        self.changed.emit("planes")

    @property
    def _voxel(self) -> tuple[float, ...]:
        t = self._layers.shown_time
        return (*(() if t is None else (float(t),)), *(float(v) for v in self.cursor))

    def _follow(self, _event: Any = None) -> None:
        """Take over the sliders; along the axes that the viewer shows, the cursor stays."""
        if self._moving or self._closed or self.problem:
            return
        dims, voxel = self._viewer.dims, self._layers.shown_voxel
        offset = dims.ndim - len(voxel)
        cursor = list(self.cursor)
        for axis in range(3):
            place = len(voxel) - 3 + axis
            if place + offset not in dims.displayed:
                cursor[axis] = int(np.clip(np.floor(voxel[place] + 0.5), 0, self.shape[axis] - 1))
        self.cursor = (cursor[0], cursor[1], cursor[2])
        self.refresh()

    # --- planes ------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show the planes through the cursor: at once where they are in memory."""
        if self._closed:
            return
        if self.problem:
            self._show({}, self.problem)
            return
        parts = (self._layers.data, self._layers.image_data)
        question = self._question(*parts)
        if all(part is None or isinstance(part, np.ndarray) for part in parts):
            self._show(*question(_never))
        else:
            self._latest.ask(question)
            self.changed.emit("pending")
        self.changed.emit("cursor")

    def _question(self, labels: Any, image: Any | None) -> Callable[[Callable[[], bool]], tuple[Any, str]]:
        t, cursor, spacing = self._layers.shown_time, self.cursor, self._layers.spacing_um
        layer, image_layer = self._layers.labels, self._layers.image if image is not None else None
        marked = [label for _, label in self._inspect.sheet.selected[:100]]

        def work(should_cancel: Callable[[], bool]) -> tuple[dict[str, NDArray[np.uint8]], str]:
            pictures, words = {}, _place_words(cursor, spacing)
            for name in PANELS:
                if should_cancel():
                    break
                objects = _plane(labels, t, cursor, name)
                pixels = None if image is None else _plane(image, t, cursor, name)
                pictures[name] = _compose(pixels, objects, image_layer, layer, marked)
                if name == "xy":
                    label = int(objects[cursor[1], cursor[2]])
                    words += f"  {'object ' + str(label) if label else 'background'}"
                    if pixels is not None:
                        words += f"  intensity {pixels[cursor[1], cursor[2]]:.5g}"
            return pictures, words

        return work

    def _read(self, outcome: Outcome) -> None:
        if outcome.error is None:
            self._show(*outcome.value)
        else:
            self._show(self.pictures, f"The planes cannot be read: {outcome.error}")

    def _show(self, pictures: dict[str, NDArray[np.uint8]], words: str) -> None:
        self.pictures, self.words = pictures, words
        self.changed.emit("planes")

    # --- following ---------------------------------------------------------------------------------------------------

    def _inspect_changed(self, what: str) -> None:
        if what == "choice":
            self._watch_layers()
            if not self.problem and any(c >= n for c, n in zip(self.cursor, self.shape, strict=True)):
                self._centre()
            self._follow()
        if what in ("choice", "table", "selection"):
            self.refresh()

    def _watch_layers(self) -> None:
        for event in self._watched:
            event.disconnect(self._redraw)
        layers = (self._layers.labels, self._layers.image)
        found = [getattr(layer.events, name, None) for layer in layers if layer is not None for name in _LAYER_EVENTS]
        self._watched = [event for event in found if event is not None]
        for event in self._watched:
            event.connect(self._redraw)

    def _redraw(self, _event: Any = None) -> None:
        self.refresh()

    @property
    def closed(self) -> bool:
        """Whether the viewer was forgotten."""
        return self._closed

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        return self._latest.pending and not self._closed

    def poll(self) -> None:
        """Show planes that another thread has read; call it on the GUI thread."""
        if not self._closed:
            self._latest.poll()

    def close(self) -> None:
        """Forget the viewer."""
        if self._closed:
            return
        self._closed = True
        self._latest.forget()
        self._inspect.changed.disconnect(self._inspect_changed)
        self._inspect.clicked.disconnect(self.look_at)
        self._viewer.dims.events.current_step.disconnect(self._follow)
        for event in self._watched:
            event.disconnect(self._redraw)
        self._watched = []


def _never() -> bool:
    return False


def _plane(data: Any, t: int | None, cursor: tuple[int, int, int], name: str) -> NDArray[Any]:
    """Read one plane, turned as its panel shows it."""
    z, y, x = cursor
    where: tuple[Any, ...] = {"xy": (z, slice(None), slice(None)), "zy": (slice(None), slice(None), x)}.get(
        name, (slice(None), y, slice(None))
    )
    plane = np.asarray(data[where if t is None else (t, *where)])
    return plane.T if name == "zy" else plane


def _compose(
    pixels: NDArray[Any] | None, objects: NDArray[Any], image: Any | None, labels: Any, marked: list[int]
) -> NDArray[np.uint8]:
    """Image with its contrast and colours, objects over it with theirs, selected ones outlined."""
    out = np.zeros((*objects.shape, 3), np.float32)
    if pixels is not None and image is not None and image.visible:
        low, high = image.contrast_limits
        with np.errstate(invalid="ignore"):
            share = np.clip((pixels.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)
        table = np.asarray(image.colormap.map(np.linspace(0, 1, 256)), np.float32)[:, :3]
        out = table[np.nan_to_num(share * 255).astype(np.uint8)]
    if labels.visible:
        ids, place = np.unique(objects, return_inverse=True)
        colours = np.asarray(labels.colormap.map(ids), np.float32).reshape(-1, 4)
        colours[ids == 0] = 0
        colours[:, 3] *= labels.opacity
        alpha = colours[:, 3:]
        paint, keep = colours[:, :3] * alpha, 1 - alpha
        place = place.reshape(objects.shape)
        out = out * keep[place] + paint[place]
    if marked:
        out[_outline(np.isin(objects, marked))] = 1.0
    return np.round(out * 255).astype(np.uint8)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner


def _place_words(cursor: tuple[int, int, int], spacing: tuple[float, float, float] | None) -> str:
    words = "z {} y {} x {}".format(*cursor)
    if spacing is not None:
        words += " ({:.4g}, {:.4g}, {:.4g} µm)".format(*(c * s for c, s in zip(cursor, spacing, strict=True)))
    return words
