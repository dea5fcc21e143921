"""What the Graph dock remembers between sessions: one JSON file beside that of the Segment dock."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from napari_aprcnn._napari.settings import settings_path
from napari_aprcnn._napari.settings_file import read_settings, write_settings
from napari_aprcnn.frozen import Frozen

__all__ = ["GraphSettings", "graph_settings_path", "load_graph_settings", "save_graph_settings"]


class GraphSettings(Frozen):
    """The state of the dock that is worth keeping.

    Attributes
    ----------
    edges
        Kind of edges.
    gap
        Of touching nuclei: largest distance of their surfaces.
    radius
        Of the other kinds: longest edge; ``None``: decided from the nuclei's diameter.
    k
        Neighbours of each nucleus, for ``knn``.
    surface_distance
        Measure the distance of the surfaces along every edge.
    colour
        Column, without its unit, that nodes are coloured by.
    folder
        Folder that the file dialogs start in.
    """

    edges: Literal["touching", "distance", "delaunay", "knn"] = "touching"
    gap: float = Field(default=0.0, ge=0)
    radius: float | None = Field(default=None, gt=0)
    k: int = Field(default=6, ge=1, le=1000)
    surface_distance: bool = True
    colour: str = "neighbours"
    folder: str = ""


def graph_settings_path() -> Path:
    """Return the settings file."""
    return settings_path().with_name("graph.json")


def load_graph_settings() -> GraphSettings:
    """Read the settings, or take the defaults."""
    return read_settings(GraphSettings, graph_settings_path())


def save_graph_settings(settings: GraphSettings) -> bool:
    """Write the settings; whether that was possible."""
    return write_settings(settings, graph_settings_path())
