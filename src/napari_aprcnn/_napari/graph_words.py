"""A graph in words and numbers for people. No Qt here."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from functools import cache
from inspect import cleandoc
from typing import TYPE_CHECKING

import numpy as np

from napari_aprcnn.graph.descriptors import OrganoidDescriptors

if TYPE_CHECKING:
    from napari_aprcnn._napari.graph_job import BuiltGraph
    from napari_aprcnn.graph.structure import NucleiGraph

__all__ = ["descriptor_rows", "node_words", "summary_words"]

_KINDS = {
    "touching": "touch",
    "distance": "lie within the radius",
    "delaunay": "are Delaunay neighbours",
    "knn": "are nearest neighbours",
}
_LENGTHS = {"nucleus_diameter": 1, "hull_volume": 0, "organoid_volume": 0}
_DIAMETERS = ("neighbour_distance", "depth_mean")
_MOST_NEIGHBOURS = 12


def _shown(unit: str, power: int = 1) -> str:
    return {"um": "µm", "px": "px"}[unit] + {1: "", 2: "²", 3: "³"}[power]


def summary_words(built: BuiltGraph) -> str:
    """Say how many nuclei and edges there are."""
    graph = built.graph
    if not len(graph):
        return "no nuclei: the labels are empty"
    pairs = f"{len(graph.edges):,} pairs {_KINDS[graph.kind]}"
    mean = 2 * len(graph.edges) / len(graph)
    return f"{len(graph):,} nuclei, {pairs}, {mean:.1f} neighbours each; {built.seconds:.1f} s"


def node_words(graph: NucleiGraph, row: int) -> str:
    """Say what is known about a nucleus."""
    labels = graph.labels
    beside = np.sort(
        labels[graph.edges[graph.edges[:, 0] == row, 1].tolist() + graph.edges[graph.edges[:, 1] == row, 0].tolist()]
    )
    names = ", ".join(str(label) for label in beside[:_MOST_NEIGHBOURS]) + (
        " …" if len(beside) > _MOST_NEIGHBOURS else ""
    )
    volume = f"{graph.column('volume')[row]:.4g} {_shown(graph.unit, graph.rank)}"
    length, width = graph.column("major_axis")[row], graph.column("minor_axis")[row]
    parts = [
        f"nucleus {labels[row]}: {volume}",
        f"axes {length:.3g} to {width:.3g} {_shown(graph.unit)}",
        f"sphericity {graph.column('sphericity')[row]:.2f}"
        if graph.rank == 3
        else f"circularity {graph.column('sphericity')[row]:.2f}",
    ]
    if "intensity_mean" in graph.nodes:
        parts.append(f"intensity {graph.column('intensity_mean')[row]:.4g}")
    parts.append(f"{len(beside)} neighbours: {names}" if len(beside) else "no neighbour")
    return "; ".join(parts) + ("; cut by the border" if graph.nodes["at_border"][row] else "")


def descriptor_rows(found: OrganoidDescriptors, graph: NucleiGraph) -> list[tuple[str, str, str]]:
    """Return name, value with unit, and meaning of each descriptor that is a number."""
    helps, rows = _meanings(), []
    for item in fields(OrganoidDescriptors):
        value = getattr(found, item.name)
        if isinstance(value, tuple):
            continue
        if isinstance(value, int):
            text = f"{value:,}"
        elif math.isnan(value):
            text = "not defined"
        else:
            text = f"{value:.4g}"
            if item.name in _LENGTHS:
                text = f"{value:,.0f}" if value >= 1000 else text
                text += f" {_shown(graph.unit, _LENGTHS[item.name] or graph.rank)}"
            elif item.name in _DIAMETERS:
                text += " diameters"
            elif item.name == "nuclei_per_volume":
                text += f" / 1000 {_shown(graph.unit, graph.rank)}"
        rows.append((item.name.replace("_", " "), text, helps.get(item.name, "")))
    return rows


@cache
def _meanings() -> dict[str, str]:
    """Take the meanings out of the docstring, so that they are written once."""
    section = re.split(r"^Attributes\n-+\n", cleandoc(OrganoidDescriptors.__doc__ or ""), flags=re.MULTILINE)[1]
    found = {}
    for entry in re.finditer(r"^(\S[^\n]*)\n((?:[ \t]+[^\n]*\n?)+)", section, flags=re.MULTILINE):
        text = " ".join(entry[2].split()).replace("`", "")
        for name in entry[1].split(","):
            found[name.strip()] = text
    return found
