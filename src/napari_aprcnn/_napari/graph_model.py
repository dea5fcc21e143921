"""The Graph dock without its widgets: which labels, which edges, the layers of the graph, what it says.

Works on a `napari.components.ViewerModel`, so it is tested without Qt. Views listen to `changed` and `notified` and
call `poll` from the GUI thread while `pending` is true.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from psygnal import Signal

from napari_aprcnn._napari.edit_watch import EditWatch
from napari_aprcnn._napari.graph_choice import GraphChoice
from napari_aprcnn._napari.graph_job import BuildJob, BuiltGraph, copied, export_graph, node_colour
from napari_aprcnn._napari.graph_layers import LabelsPlace, colour_nodes, publish_layers
from napari_aprcnn._napari.graph_settings import GraphSettings, load_graph_settings, save_graph_settings
from napari_aprcnn._napari.graph_words import descriptor_rows, node_words, summary_words
from napari_aprcnn._napari.jobs import Job, Outcome
from napari_aprcnn.errors import AprcnnError, ConfigError
from napari_aprcnn.graph.structure import column_name

if TYPE_CHECKING:
    from napari.layers import Points, Vectors

__all__ = ["GraphModel"]

logger = logging.getLogger(__name__)

State = Literal["ready", "running", "cancelling"]
_MEASURES = (
    *("volume", "surface", "sphericity", "equivalent_diameter"),
    *("major_axis", "middle_axis", "minor_axis"),
)
_NO_COLOURS = ("label", "centroid_", "major_z", "major_y", "major_x")


class GraphModel:
    """State and actions of the Graph dock.

    Parameters
    ----------
    viewer
        A napari viewer or viewer model.
    launch
        Runs a callable in another thread; tests call it in place.
    settings
        ``None``: those of the last session.

    Attributes
    ----------
    choice
        The labels and the image.
    built
        The last graph, or ``None``.
    nodes, edges
        Its layers.
    progress
        Share that is done and what is done now, while a graph is built.
    stale
        The labels have changed since the graph was built.
    changed : Signal(str)
        ``layers``, ``parameters``, ``state``, ``progress``, ``result``, ``selection``, ``pending``.
    notified : Signal(str, str, object)
        Severity (``error``, ``info``), sentence, and the exception where it was an unexpected one.
    """

    changed = Signal(str)
    notified = Signal(str, str, object)

    def __init__(
        self, viewer: Any, *, launch: Callable[[Callable[[], None]], Any], settings: GraphSettings | None = None
    ) -> None:
        self.settings = settings or load_graph_settings()
        self.state: State = "ready"
        self.built: BuiltGraph | None = None
        self.nodes: Points | None = None
        self.edges: Vectors | None = None
        self.progress: tuple[float, str] = (0.0, "")
        self.stale = False
        self._viewer = viewer
        self._launch = launch
        self._source_next: Any | None = None
        self._source: Any | None = None  # the labels layer of the graph that is shown
        self._job: BuildJob | None = None
        self._place: LabelsPlace | None = None
        # Of the labels of the graph that is shown, and of that which is being built.
        self._watch: EditWatch | None = None
        self._watch_next: EditWatch | None = None
        self._files: list[Job] = []
        self._closed = False
        self._following = False
        self.choice = GraphChoice(viewer)
        self.choice.changed.connect(self._choice_changed)

    def _choice_changed(self) -> None:
        if self.nodes is not None and self.nodes not in self._viewer.layers:
            self._forget_layers()
            self.changed.emit("selection")
        self.changed.emit("layers")
        self.changed.emit("state")

    # --- parameters --------------------------------------------------------------------------------------------------

    def set_option(self, **values: Any) -> bool:
        """Change parameters; one out of range is told and not taken."""
        try:
            settings = self.settings.replace(**values)
        except ConfigError as error:
            self.notified.emit("error", _sentence(error), None)
            self.changed.emit("parameters")
            return False
        if settings != self.settings:
            self.settings = settings
            self.changed.emit("parameters")
        return True

    @property
    def colours(self) -> list[tuple[str, str]]:
        """Columns that nodes can be coloured by: full name, and stem to keep."""
        if self.built is None:
            return []
        graph = self.built.graph
        stems = {column_name(stem, rank=graph.rank, unit=graph.unit): stem for stem in _MEASURES}
        return [(name, stems.get(name, name)) for name in graph.nodes if not name.startswith(_NO_COLOURS)]

    @property
    def colour_stem(self) -> str:
        """Stem of the column that nodes are coloured by now."""
        return next((stem for name, stem in self.colours if name == self._colour()), "neighbours")

    def choose_colour(self, stem: str) -> None:
        """Colour the nodes by a column."""
        self.set_option(colour=stem)
        if self.nodes is not None:
            colour_nodes(self.nodes, self._colour())

    def _colour(self) -> str:
        return "" if self.built is None else node_colour(self.built.graph, self.settings.colour)

    # --- building ----------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether `poll` has something to wait for."""
        return not self._closed and (self._job is not None or bool(self._files))

    def build(self) -> bool:
        """Start to build the graph; return whether it was started."""
        if self._job is not None or self.choice.problem:
            return False
        place = self.choice.place
        if place is None:
            return False
        self._place, self._source_next = place, self.choice.labels
        self._watch_next = EditWatch([self._source_next], self._labels_edited)
        self._job = BuildJob(copied(place, self.choice.image_data), place, self.settings)
        self.state, self.progress = "running", (0.0, "reading the labels")
        self.changed.emit("state")
        self._launch(self._job.run)
        self.changed.emit("pending")
        return True

    def cancel(self) -> None:
        """Ask the work to stop; `state` is ready when it has."""
        if self._job is not None and self.state == "running":
            self._job.cancel()
            self.state = "cancelling"
            self.changed.emit("state")

    def poll(self) -> None:
        """Take what the work has ready."""
        for written in [file for file in self._files if file.outcome is not None]:
            self._files.remove(written)
            self._written(written.outcome)
        job = self._job
        if job is None:
            return
        outcome = job.outcome
        progress = job.take_progress()
        if progress is not None:
            self.progress = progress
            self.changed.emit("progress")
        if outcome is not None:
            self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        self._job, self.state = None, "ready"
        try:
            if outcome.error is not None:
                self._tell(outcome.error)
            elif not outcome.cancelled:
                self._show(outcome.value)
        except Exception as error:  # noqa: BLE001 - shown to the user with its traceback; the dock stays usable
            self._tell(error)
        finally:
            self._forget_next()
            self.changed.emit("state")

    def _forget_next(self) -> None:
        if self._watch_next is not None:
            self._watch_next.close()
        self._watch_next = self._source_next = None

    def _show(self, built: BuiltGraph) -> None:
        self._forget_layers()
        self.built, self.stale = built, self._watch_next is not None and self._watch_next.edited
        if self._place is not None:
            publish_layers(self._viewer, built.nodes, built.edges, source=self._place.name)
            self.nodes, self.edges = built.nodes, built.edges
            self.nodes.selected_data.events.items_changed.connect(self._nodes_selected)
        source = self._source_next
        if source is not None and source in self._viewer.layers:
            self._source = source
            source.events.selected_label.connect(self._label_selected)
            self._watch, self._watch_next = self._watch_next, None
        self.changed.emit("result")
        self.changed.emit("selection")

    def _forget_layers(self) -> None:
        if self.nodes is not None:
            self.nodes.selected_data.events.items_changed.disconnect(self._nodes_selected)
        if self._source is not None:
            self._source.events.selected_label.disconnect(self._label_selected)
        if self._watch is not None:
            self._watch.close()
        self.nodes = self.edges = self._source = self._watch = None

    def _labels_edited(self) -> None:
        if not self.stale and self._watch is not None and self._watch.edited:
            self.stale = True
            self.changed.emit("state")

    # --- selecting ---------------------------------------------------------------------------------------------------

    @property
    def selected(self) -> int | None:
        """Row of the one selected nucleus."""
        chosen = list(self.nodes.selected_data) if self.nodes is not None else []
        return int(chosen[0]) if len(chosen) == 1 else None

    @property
    def selected_words(self) -> str:
        """What is known about the selected nucleus."""
        if self.built is None or not len(self.built.graph):
            return ""
        row = self.selected
        if row is None or row >= len(self.built.graph):
            return "Select a node, or pick a label, to read about a nucleus."
        return node_words(self.built.graph, row)

    def _nodes_selected(self, *_: Any) -> None:
        row = self.selected
        if self._following:
            return
        self._following = True
        try:
            if row is not None and self.built is not None and self._source is not None:
                self._source.selected_label = int(self.built.graph.labels[row])
        finally:
            self._following = False
        self.changed.emit("selection")

    def _label_selected(self, _event: Any = None) -> None:
        if self._following or self.built is None or self.nodes is None or self._source is None:
            return
        rows = np.flatnonzero(self.built.graph.labels == int(self._source.selected_label))
        self._following = True
        try:
            self.nodes.selected_data = {int(rows[0])} if len(rows) else set()
        finally:
            self._following = False
        self.changed.emit("selection")

    # --- words -------------------------------------------------------------------------------------------------------

    @property
    def summary(self) -> str:
        """What the last graph is, in a sentence."""
        if self.built is None:
            return ""
        return summary_words(self.built) + ("; the labels have changed since: build it again" if self.stale else "")

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the descriptors: name, value with unit, and what it means."""
        built = self.built
        return [] if built is None or built.descriptors is None else descriptor_rows(built.descriptors, built.graph)

    # --- files -------------------------------------------------------------------------------------------------------

    def export(self, path: Path | str) -> bool:
        """Write the graph in another thread; a folder gets nodes.csv and edges.csv, else the suffix decides."""
        built, path = self.built, Path(path)
        if built is None:
            return False
        self.set_option(folder=str(path if path.is_dir() else path.parent))
        job = Job(lambda: export_graph(built, path))
        self._files.append(job)
        self._launch(job.run)
        self.changed.emit("pending")
        return True

    def _written(self, outcome: Outcome | None) -> None:
        if outcome is not None and outcome.error is not None:
            self._tell(outcome.error)
        elif outcome is not None:
            self.notified.emit("info", _capital(str(outcome.value)), None)

    def _tell(self, error: Exception) -> None:
        if isinstance(error, AprcnnError):
            self.notified.emit("error", _sentence(error), None)
        elif isinstance(error, MemoryError):
            self.notified.emit("error", "The memory was not enough; close other programs, or crop the labels.", None)
        else:
            logger.error("the graph failed unexpectedly", exc_info=error)
            self.notified.emit("error", f"{type(error).__name__}: {error}", error)

    def close(self) -> None:
        """Stop the work, keep the settings, let go of the viewer."""
        if self._closed:
            return
        self._closed = True
        if self._job is not None:
            self._job.cancel()
        self._job = None
        self.choice.close()
        self._forget_layers()
        self._forget_next()
        save_graph_settings(self.settings)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(error: Exception) -> str:
    return _capital(str(error))
