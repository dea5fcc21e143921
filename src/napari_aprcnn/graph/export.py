"""A graph as files: GraphML for networkx, Gephi and Cytoscape, CSV for everybody, tensors for graph networks."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import FileFormatError, MissingDependencyError
from napari_aprcnn.graph.structure import NucleiGraph
from napari_aprcnn.io.atomic import beside, staged

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["graph_tensors", "read_graphml", "to_networkx", "to_pyg", "write_csv", "write_graphml", "write_tensors"]

_KEY = "aprcnn"
_VERSION = 1
# Places are no features: a graph network that is given them learns where the organoid lay.
_NO_FEATURES = ("label", "centroid_", "at_border")
_LARGEST_FILE = 1 << 31


def _networkx() -> Any:
    # It takes a fifth of a second, which a start of the program need not wait for.
    return import_module("networkx")


def to_networkx(graph: NucleiGraph) -> Any:
    """Return the graph as a `networkx.Graph`: nodes are named by their labels, columns are attributes.

    Examples
    --------
    >>> from napari_aprcnn.graph.build import nuclei_graph
    >>> made = to_networkx(nuclei_graph(np.array([[3, 3, 8, 8]])))
    >>> sorted(made.nodes), made.edges[3, 8]["distance_px"]
    ([3, 8], 2.0)
    """
    made = _networkx().Graph()
    made.graph[_KEY] = json.dumps(_about(graph))
    labels = graph.labels.tolist()
    made.add_nodes_from(zip(labels, graph.rows(), strict=True))
    columns = {name: column.tolist() for name, column in graph.edge_columns.items()}
    for index, (one, other) in enumerate(graph.edges.tolist()):
        values = {name: column[index] for name, column in columns.items()}
        made.add_edge(labels[one], labels[other], **values)
    return made


def _about(graph: NucleiGraph) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "kind": graph.kind,
        "spacing_um": graph.spacing_um,
        "shape": graph.shape,
        "parameters": dict(graph.parameters),
        "nodes": {name: str(column.dtype) for name, column in graph.nodes.items()},
        "edges": {name: str(column.dtype) for name, column in graph.edge_columns.items()},
    }


def write_graphml(graph: NucleiGraph, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write the graph as GraphML; `read_graphml` gives the same graph again.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with beside(path, overwrite=overwrite) as temporary:
        _networkx().write_graphml_xml(to_networkx(graph), temporary)
    return Path(path)


def read_graphml(path: Path | str) -> NucleiGraph:
    """Read a graph that `write_graphml` has written.

    Raises
    ------
    FileFormatError
        If the file is missing, damaged, or not of this package.
    """
    path = Path(path).expanduser()
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise FileFormatError(f"{path.name} is larger than 2 GiB, which no graph of nuclei is; check the path")
        text = path.read_text(encoding="utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise FileFormatError(f"{path.name} declares XML entities, which GraphML does not need; export it again")
        made = _networkx().parse_graphml(text)
        return _from_networkx(made)
    except FileFormatError:
        raise
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except Exception as error:
        # The parser meets untrusted text: whatever it stumbles over, the file is not one of ours.
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise FileFormatError(
            f"{path.name} is no graph of nuclei ({detail}); expected a file that napari-aprcnn has written"
        ) from error


def _from_networkx(made: Any) -> NucleiGraph:
    about = json.loads(made.graph[_KEY])
    if about["version"] != _VERSION:
        raise FileFormatError(f"got version {about['version']} of the format, expected {_VERSION}; update the package")
    rows = [values for _, values in made.nodes(data=True)]
    row_of = {int(values["label"]): index for index, values in enumerate(rows)}
    ends = [tuple(sorted((row_of[int(a)], row_of[int(b)]))) for a, b in made.edges]
    order = sorted(range(len(ends)), key=ends.__getitem__)
    edge_rows = [values for _, _, values in made.edges(data=True)]
    return NucleiGraph(
        nodes=_columns(rows, about["nodes"]),
        edges=np.array([ends[i] for i in order], np.int64).reshape(-1, 2),
        edge_columns=_columns([edge_rows[i] for i in order], about["edges"]),
        kind=str(about["kind"]),
        spacing_um=None if about["spacing_um"] is None else tuple(float(v) for v in about["spacing_um"]),
        shape=tuple(int(n) for n in about["shape"]),
        parameters=about["parameters"],
    )


def _columns(rows: list[dict[str, Any]], types: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    allowed = {"int64", "float64", "bool"}
    if not set(types.values()) <= allowed:
        raise FileFormatError(f"got columns of types {sorted(set(types.values()))}, expected {sorted(allowed)}")
    return {name: np.array([row[name] for row in rows], dtype=types[name]) for name in types}


def write_csv(graph: NucleiGraph, folder: Path | str, *, stem: str = "", overwrite: bool = False) -> tuple[Path, Path]:
    """Write the tables of nodes and edges as CSV (UTF-8, comma, point as decimal mark): both or none.

    Parameters
    ----------
    graph
        The graph.
    folder
        An existing folder; the files are ``nodes.csv`` and ``edges.csv``.
    stem
        Put before their names: ``STEM_nodes.csv``.
    overwrite
        Replace what is there.

    Returns
    -------
    nodes, edges
        Where they are. Edges name the labels of their ends: ``label_1``, ``label_2``.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    folder = Path(folder).expanduser()
    names = [f"{stem}_{part}.csv" if stem else f"{part}.csv" for part in ("nodes", "edges")]
    ends = {f"label_{side + 1}": graph.labels[graph.edges[:, side]] for side in (0, 1)}
    with staged(folder, overwrite=overwrite) as stage:
        _table(stage / names[0], graph.nodes)
        _table(stage / names[1], {**ends, **graph.edge_columns})
    return folder / names[0], folder / names[1]


def _table(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    lists = [[_text(value) for value in column.tolist()] for column in columns.values()]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*lists, strict=True))


def _text(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(int(value))


def graph_tensors(graph: NucleiGraph) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the graph as the arrays of a PyTorch Geometric `Data` object, and what is in them.

    Returns
    -------
    arrays
        ``x`` (N, F) float32, features of the nuclei; ``edge_index`` (2, 2 E) int64, every edge in both directions, in
        order; ``edge_attr`` (2 E, A) float32; ``pos`` (N, D) float32, centroids z, y, x in `graph.unit`; ``label``
        [N] int64.
    metadata
        ``features`` and ``edge_features``, JSON lists of names; ``graph``, JSON of kind, voxel size and shape.

    Examples
    --------
    >>> from napari_aprcnn.graph.build import nuclei_graph
    >>> arrays, about = graph_tensors(nuclei_graph(np.array([[1, 1, 2, 3]])))
    >>> arrays["edge_index"].tolist(), about["edge_features"]
    ([[0, 1, 1, 2], [1, 0, 2, 1]], '["distance_px", "surface_distance_px", "contact_px"]')
    """
    names = [name for name in graph.nodes if not name.startswith(_NO_FEATURES)]
    both = np.concatenate([graph.edges, graph.edges[:, ::-1]])
    order = np.lexsort((both[:, 1], both[:, 0]))
    count = len(graph.edges)
    edge_values = [np.concatenate([column, column])[order] for column in graph.edge_columns.values()]
    arrays = {
        "x": _stack([graph.nodes[name] for name in names], len(graph)),
        "edge_index": np.ascontiguousarray(both[order].T),
        "edge_attr": _stack(edge_values, 2 * count),
        "pos": np.ascontiguousarray(graph.positions, np.float32),
        "label": np.ascontiguousarray(graph.labels, np.int64),
    }
    about = _about(graph)
    about = {key: about[key] for key in ("version", "kind", "spacing_um", "shape", "parameters")}
    metadata = {
        "features": json.dumps(names),
        "edge_features": json.dumps(list(graph.edge_columns)),
        "graph": json.dumps(about),
    }
    return arrays, metadata


def _stack(columns: list[NDArray[Any]], length: int) -> NDArray[np.float32]:
    return np.stack(columns, axis=1).astype(np.float32) if columns else np.zeros((length, 0), np.float32)


def write_tensors(graph: NucleiGraph, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write the arrays of `graph_tensors` as safetensors, with their names as metadata.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    from safetensors.numpy import save

    arrays, metadata = graph_tensors(graph)
    with beside(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(save(arrays, metadata=metadata))
    return Path(path)


def to_pyg(graph: NucleiGraph) -> Any:
    """Return the graph as a `torch_geometric.data.Data`, with ``feature_names`` and ``edge_feature_names``.

    Raises
    ------
    MissingDependencyError
        If PyTorch Geometric is not installed.
    """
    try:
        data = import_module("torch_geometric.data")
    except ImportError as error:
        raise MissingDependencyError(
            "PyTorch Geometric is not installed; run: pip install torch_geometric, or use `write_tensors`"
        ) from error
    import torch

    arrays, metadata = graph_tensors(graph)
    return data.Data(
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
        feature_names=json.loads(metadata["features"]),
        edge_feature_names=json.loads(metadata["edge_features"]),
    )
