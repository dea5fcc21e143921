"""What the Graph dock remembers between sessions: one JSON file beside that of the Segment dock."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Literal

from pydantic import Field

from napari_aprcnn._napari.settings import settings_path
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.frozen import Frozen
from napari_aprcnn.io.atomic import write_text

__all__ = ["GraphSettings", "graph_settings_path", "load_graph_settings", "save_graph_settings"]

logger = logging.getLogger(__name__)


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
    """Read the settings. A missing or damaged file gives the defaults: it never stops the dock from opening."""
    path = graph_settings_path()
    try:
        return GraphSettings(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return GraphSettings()
    except (OSError, ValueError, TypeError, ConfigError) as error:
        logger.warning("the settings in %s cannot be used, the defaults are: %s", path, error)
        return GraphSettings()


def save_graph_settings(settings: GraphSettings) -> bool:
    """Write the settings; a full or read-only disk is only logged.

    Returns
    -------
    bool
        Whether they were written.
    """
    path = graph_settings_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(settings.model_dump_json(indent=2), path, overwrite=True)
    except OSError as error:
        logger.warning("the settings cannot be written to %s: %s", path, error)
        return False
    return True
