"""Annotated slices in a folder of open formats, saved at every step.

``session.json`` says which image and which slices; each annotator has files of their own, so that several can work in
one folder: ``annotator_NAME.json`` (how far), ``points_NAME.csv``, and ``labels_NAME/slice_z0012.tif`` for each
painted slice. Every file is written beside its place and renamed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_aprcnn.errors import AxesError, ConfigError, FileFormatError, OutputError
from napari_aprcnn.evaluate.annotation_agreement import Agreement, agreement
from napari_aprcnn.evaluate.annotation_files import (
    SESSION,
    Mode,
    Progress,
    SessionInfo,
    SparseLabels,
    State,
    checked_info,
    checked_name,
    file_key,
    is_session,
    locked,
    read_info,
    read_plane,
    read_progress,
    signature,
    sizes_words,
    slice_words,
)
from napari_aprcnn.evaluate.slice_choice import SliceIndex, slice_axes, slice_shape
from napari_aprcnn.io.atomic import make_folder, write_text
from napari_aprcnn.io.points import Points, read_points, write_points

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Agreement",
    "AnnotationSession",
    "Mode",
    "SessionInfo",
    "SparseLabels",
    "State",
    "agreement",
    "is_session",
    "slice_words",
]

Write = Callable[[str, Callable[[], None]], None]


def _version() -> str:
    try:
        return version("napari-aprcnn")
    except PackageNotFoundError:
        return "unknown"


def _now(_key: str, write: Callable[[], None]) -> None:
    write()


class AnnotationSession:
    """The annotations of one person in one folder. Every change is saved at once.

    Use `create` or `open`.

    Parameters
    ----------
    folder
        Where the annotations are.
    info
        What is annotated.
    annotator
        Who annotates; capital and small letters are the same name.
    write
        Does the writing, given a key (a later writing of the same key makes an earlier one needless) and a function;
        by default at once. A viewer does it in another thread.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "organoid"
    >>> session = AnnotationSession.create(
    ...     folder, shape=(30, 64, 64), axes="ZYX", slices=[(4,), (20,)], annotator="Ann"
    ... )
    >>> session.set_points((4,), [[10, 12.5]])
    >>> session.set_state((4,), "done")
    >>> again = AnnotationSession.open(folder, annotator="Ann")
    >>> again.points().coordinates.tolist(), again.n_done, again.state((20,))
    ([[4.0, 10.0, 12.5]], 1, 'todo')
    """

    def __init__(
        self,
        folder: Path,
        info: SessionInfo,
        *,
        annotator: str,
        write: Write = _now,
    ) -> None:
        self.folder, self.info = folder, info
        self.annotator = checked_name(annotator)
        self._key = file_key(self.annotator)
        self._write = write
        self._token = uuid.uuid4().hex[:8]
        self._points: dict[SliceIndex, NDArray[np.float64]] = {}
        self._states: dict[SliceIndex, State] = {}
        self._unsaved: dict[SliceIndex, NDArray[Any]] = {}
        self.current: SliceIndex | None = None
        self._seen: dict[Path, tuple[int, ...] | None] = {}
        self._load()

    @classmethod
    def create(
        cls,
        folder: Path | str,
        *,
        shape: Sequence[int],
        axes: str,
        slices: Iterable[SliceIndex],
        annotator: str,
        image_name: str = "",
        spacing_um: Sequence[float] | None = None,
        mode: Mode = "points",
        choice: Mapping[str, str | int | float] | None = None,
        write: Write = _now,
    ) -> Self:
        """Begin annotations in a folder, which is made if it is missing.

        Raises
        ------
        ConfigError, AxesError
            If slices lie outside the image or the axes do not fit.
        OutputError
            If it cannot be written, or there are annotations already.
        """
        place = make_folder(folder)
        if is_session(place):
            raise OutputError(f"{place} has annotations already; open them, or choose another folder")
        info = checked_info(
            SessionInfo(
                image_name=image_name,
                shape=tuple(int(n) for n in shape),
                axes=axes.upper(),
                spacing_um=None if spacing_um is None else tuple(float(value) for value in spacing_um),
                mode=mode,
                slices=tuple(sorted({tuple(int(i) for i in index) for index in slices})),
                choice=dict(choice or {}),
                software=f"napari-aprcnn {_version()}",
            )
        )
        write_text(info.model_dump_json(indent=1) + "\n", place / SESSION)
        return cls(place, info, annotator=annotator, write=write)

    @classmethod
    def open(cls, folder: Path | str, *, annotator: str, write: Write = _now) -> Self:
        """Open annotations, as they were after the last step.

        Raises
        ------
        FileFormatError
            If the folder holds none, or a file of it is damaged. Nothing is changed.
        """
        place = Path(folder).expanduser()
        return cls(place, read_info(place), annotator=annotator, write=write)

    # --- what there is -----------------------------------------------------------------------------------------------

    @property
    def slices(self) -> tuple[SliceIndex, ...]:
        """The chosen slices, in order."""
        return self.info.slices

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        return self.info.shape[self.info.axes.index("Y")], self.info.shape[self.info.axes.index("X")]

    @property
    def n_done(self) -> int:
        """How many slices are done."""
        return sum(self.state(index) == "done" for index in self.slices)

    def state(self, index: SliceIndex) -> State:
        """Return how far a slice is."""
        return self._states.get(index, "todo")

    def in_state(self, *states: State) -> list[SliceIndex]:
        """Return the slices that are so far."""
        return [index for index in self.slices if self.state(index) in states]

    def points_on(self, index: SliceIndex) -> NDArray[np.float64]:
        """Return the points of a slice, (N, 2): y, x in pixels."""
        return self._points.get(index, np.empty((0, 2))).copy()

    def points(self, *states: State) -> Points:
        """Return the points of all slices, or of those that are so far, in the order of the slices."""
        wanted = [index for index in sorted(self._points) if not states or self.state(index) in states]
        rows = [np.hstack([np.tile(index, (len(self._points[index]), 1)), self._points[index]]) for index in wanted]
        axes = self.info.axes
        values = np.concatenate(rows) if rows else np.empty((0, len(axes)))
        return Points(values, axes=axes, spacing_um=self.info.spacing_um, annotators=(self.annotator,) * len(values))

    def labels_on(self, index: SliceIndex) -> NDArray[Any] | None:
        """Return the labels painted on a slice, (Y, X), or nothing.

        Raises
        ------
        FileFormatError
            If the file is damaged or of another shape.
        """
        unsaved = self._unsaved.get(index)
        return unsaved.copy() if unsaved is not None else read_plane(self._plane_path(index), self.plane_shape)

    def sparse_labels(self, *states: State) -> SparseLabels:
        """Return the label image with the painted slices, lazily; the others are empty."""
        wanted = self.in_state(*states) if states else list(self.slices)
        return SparseLabels({i: p for i in wanted if (p := self._plane_path(i)).is_file()}, self.info)

    def label_stack(self, *states: State) -> tuple[list[SliceIndex], NDArray[Any]]:
        """Return the slices that are so far (``done`` if none is said), and their labels, (N, Y, X)."""
        wanted = self.in_state(*(states or ("done",)))
        planes = [self.labels_on(index) for index in wanted]
        stack = [np.zeros(self.plane_shape, np.uint16) if plane is None else plane for plane in planes]
        return wanted, np.stack(stack) if stack else np.empty((0, *self.plane_shape), np.uint16)

    def annotators(self) -> list[str]:
        """Return the names of all who have annotated in this folder."""
        names = {read_progress(path).annotator for path in sorted(self.folder.glob("annotator_*.json"))}
        return sorted(names, key=str.casefold)

    # --- changing ----------------------------------------------------------------------------------------------------

    def set_points(self, index: SliceIndex, yx: Any) -> None:
        """Replace the points of a slice, and save.

        Raises
        ------
        ConfigError
            If the slice is not chosen, or the points are no finite (N, 2) places in the plane.
        OutputError
            If it cannot be written. The points are kept here, and saved with the next step.
        """
        self._must_be_chosen(index)
        values = np.array(yx, np.float64)
        values = values.reshape(0, 2) if not values.size else values
        where = slice_words(index, self.info.axes)
        if values.ndim != 2 or values.shape[1] != 2:
            raise ConfigError(f"points of {where} have shape {values.shape}; expected (N, 2): y, x in pixels")
        if not np.isfinite(values).all():
            raise ConfigError(f"points of {where} are not finite; expected pixels")
        if ((values < -0.5) | (values > np.array(self.plane_shape) - 0.5)).any():
            raise ConfigError(f"points of {where} lie outside of the plane {self.plane_shape}; expected y, x in it")
        self._points[index] = values
        points, path = self.points(), self.folder / f"points_{self._key}.csv"
        self._save("points", path, lambda target, again: write_points(points, target, overwrite=again))
        if self.state(index) == "todo":
            self.set_state(index, "doing")

    def set_labels(self, index: SliceIndex, plane: NDArray[Any]) -> None:
        """Replace the labels of a slice, and save.

        Raises
        ------
        ConfigError
            If the slice is not chosen, or the labels do not fit it.
        OutputError
            If it cannot be written. The labels are kept here until the next step.
        """
        self._must_be_chosen(index)
        values = np.array(plane)
        if values.shape != self.plane_shape or values.dtype.kind not in "iu":
            raise ConfigError(f"labels of {values.shape} {values.dtype}; expected {self.plane_shape} integers")
        self._unsaved[index] = values
        path, info = self._plane_path(index), self.info
        make_folder(path.parent)

        def write(target: Path, again: bool) -> None:
            from napari_aprcnn.io.write import write_labels

            spacing = None if info.spacing_um is None else (1.0, *info.spacing_um)[-3:]
            write_labels(values, target, axes="YX", spacing_um=spacing, overwrite=again)  # type: ignore[arg-type]
            if self._unsaved.get(index) is values:
                del self._unsaved[index]

        self._save(f"labels {index}", path, write)
        if self.state(index) == "todo":
            self.set_state(index, "doing")

    def set_state(self, index: SliceIndex, state: State) -> None:
        """Say how far a slice is, and save."""
        self._must_be_chosen(index)
        self._states[index] = state
        self.save_progress()

    def go_to(self, index: SliceIndex | None) -> None:
        """Remember the slice that is looked at, and save."""
        if index != self.current:
            self.current = index
            self.save_progress()

    def save_progress(self) -> None:
        """Write how far the annotator is."""
        progress = Progress(annotator=self.annotator, states=tuple(self._states.items()), current=self.current)
        text, path = progress.model_dump_json(indent=1) + "\n", self.folder / f"annotator_{self._key}.json"
        self._save("progress", path, lambda target, again: write_text(text, target, overwrite=again))

    def add_slices(self, slices: Iterable[SliceIndex]) -> None:
        """Choose more slices, for all annotators of the folder; none is taken away.

        Raises
        ------
        ConfigError
            If one lies outside the image.
        OutputError
            If it cannot be written.
        """
        with locked(self.folder):
            info = read_info(self.folder)
            more = {tuple(int(i) for i in index) for index in slices}
            info = checked_info(info.replace(slices=tuple(sorted({*info.slices, *more}))))
            write_text(info.model_dump_json(indent=1) + "\n", self.folder / SESSION, overwrite=True)
        self.info = info

    def check_image(self, shape: Sequence[int], axes: str) -> None:
        """Check that these are the annotations of such an image.

        Raises
        ------
        AxesError
            If shape or axes differ.
        """
        if tuple(shape) != self.info.shape or axes.upper() != self.info.axes:
            raise AxesError(
                f"these annotations are of {self.info.image_name or 'an image'} with {sizes_words(self.info)}; the "
                f"image has {axes.upper()} {' x '.join(map(str, shape))}: choose the image that they belong to"
            )

    # --- files -------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        path = self.folder / f"annotator_{self._key}.json"
        self._seen[path] = signature(path)
        if self._seen[path] is not None:
            progress = read_progress(path)
            chosen = set(self.slices)
            self._states = {index: state for index, state in progress.states if index in chosen}
            self.current = progress.current if progress.current in chosen else None
        path = self.folder / f"points_{self._key}.csv"
        self._seen[path] = signature(path)
        if self._seen[path] is None:
            return
        points = read_points(path, spacing_um=self.info.spacing_um)
        if points.axes != self.info.axes:
            raise FileFormatError(f"{path} has axes {points.axes}, its image {self.info.axes}; it belongs to another")
        leading = points.coordinates[:, :-2]
        whole = np.round(leading)
        inside = (leading == whole) & (whole >= 0) & (whole < slice_shape(self.info.shape, self.info.axes))
        if not inside.all():
            row = int(np.flatnonzero(~inside.all(axis=1))[0])
            raise FileFormatError(f"{path}: point {row + 1} is on no slice of the image ({sizes_words(self.info)})")
        for index in sorted({tuple(int(i) for i in row) for row in whole}):
            self._points[index] = points.coordinates[(whole == index).all(axis=1), -2:].copy()

    def _plane_path(self, index: SliceIndex) -> Path:
        place = "_".join(f"{a.lower()}{i:04d}" for a, i in zip(slice_axes(self.info.axes), index, strict=True))
        return self.folder / f"labels_{self._key}" / (f"slice_{place}.tif" if place else "slice.tif")

    def _must_be_chosen(self, index: SliceIndex) -> None:
        if index not in self.slices:
            raise ConfigError(f"slice {index} is not chosen for annotation; expected one of {self.slices[:20]}")

    def _save(self, key: str, path: Path, write: Callable[[Path, bool], object]) -> None:
        """Write a file of this annotator, unless somebody else has: then ours is put beside it."""
        self._seen.setdefault(path, signature(path))

        def work() -> None:
            if signature(path) != self._seen[path]:
                aside = path.with_name(f"{path.stem}_aside-{self._token}{path.suffix}")
                write(aside, True)
                raise OutputError(
                    f"{path.name} was changed by another window under the name {self.annotator!r}; yours is in "
                    f"{aside.name}: open the folder again, each annotator with a name of their own"
                )
            write(path, True)
            self._seen[path] = signature(path)

        self._write(key, work)
