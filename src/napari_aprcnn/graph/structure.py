"""`NucleiGraph`: nuclei as nodes, neighbours as edges, measurements as named columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_aprcnn.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NucleiGraph", "column_name"]

# What a measurement is called in 3D and in 2D, and the power of the unit of length in it.
_STEMS = {
    "volume": (("volume", 3), ("area", 2)),
    "surface": (("surface", 2), ("perimeter", 1)),
    "sphericity": (("sphericity", 0), ("circularity", 0)),
    "contact": (("contact", 2), ("contact", 1)),
    "equivalent_diameter": (("equivalent_diameter", 1),) * 2,
    "major_axis": (("major_axis", 1),) * 2,
    "middle_axis": (("middle_axis", 1),) * 2,
    "minor_axis": (("minor_axis", 1),) * 2,
    "distance": (("distance", 1),) * 2,
    "surface_distance": (("surface_distance", 1),) * 2,
}


def column_name(stem: str, *, rank: int, unit: str) -> str:
    """Return the full name of a column: its stem, and the unit.

    Parameters
    ----------
    stem
        What is measured: ``volume``, ``surface``, ``contact``, ...; other names are returned as they are.
    rank
        2 or 3: a volume is an area in 2D, a surface a perimeter.
    unit
        ``um`` or ``px``.

    Examples
    --------
    >>> column_name("volume", rank=3, unit="um"), column_name("volume", rank=2, unit="px")
    ('volume_um3', 'area_px2')
    """
    if stem not in _STEMS:
        return stem
    name, power = _STEMS[stem][0 if rank == 3 else 1]
    return name if power == 0 else f"{name}_{unit}{power if power > 1 else ''}"


@dataclass(frozen=True, eq=False)
class NucleiGraph:
    """An undirected graph of nuclei.

    Attributes
    ----------
    nodes : mapping of str to [N] arrays
        One row for each nucleus, in the order of the labels: ``label``, ``centroid_z_px`` ..., ``centroid_z_um`` ...,
        ``volume_um3``, ``surface_um2``, ``sphericity``, ``major_axis_um`` ..., ``neighbours`` and so on; in 2D
        ``area_um2``, ``perimeter_um``, ``circularity``. Without a voxel size, ``px`` stands for ``um``.
    edges : (E, 2) int64
        Rows of `nodes`; the smaller one first, in lexical order, each pair once.
    edge_columns : mapping of str to [E] arrays
        ``distance_um`` between centroids, ``surface_distance_um`` between the nearest points of the two surfaces,
        ``contact_um2``, the shared surface (in 2D ``contact_um``): 0 where only
        edges or corners of voxels touch.
    kind
        ``touching``, ``distance``, ``delaunay`` or ``knn``.
    spacing_um
        Voxel size, one number for each axis; ``None``: unknown, lengths are in voxels.
    shape
        Of the label image.
    parameters
        What the edges were asked to be: ``radius``, ``k``, ``gap``.

    Examples
    --------
    >>> from napari_aprcnn.graph.build import nuclei_graph
    >>> labels = np.zeros((4, 4, 8), np.uint8)
    >>> labels[1:3, 1:3, 1:4], labels[1:3, 1:3, 4:7] = 1, 2
    >>> graph = nuclei_graph(labels, spacing_um=(2, 1, 1))
    >>> len(graph), graph.edges.tolist(), graph.column("volume").tolist()
    (2, [[0, 1]], [24.0, 24.0])
    """

    nodes: Mapping[str, NDArray[Any]]
    edges: NDArray[np.int64]
    edge_columns: Mapping[str, NDArray[Any]]
    kind: str
    spacing_um: tuple[float, ...] | None
    shape: tuple[int, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.nodes["label"])
        if self.edges.ndim != 2 or self.edges.shape[1] != 2:
            raise ImageError(f"got edges of shape {self.edges.shape}; expected (E, 2)")
        if len(self.edges) and not 0 <= self.edges.min() <= self.edges.max() < count:
            raise ImageError(f"got edges to node {self.edges.max()}; expected rows 0 .. {count - 1} of the nodes")
        for columns, length in ((self.nodes, count), (self.edge_columns, len(self.edges))):
            for name, column in columns.items():
                if column.shape != (length,):
                    raise ImageError(f"got a column {name} of shape {column.shape}; expected ({length},)")

    def __len__(self) -> int:
        """Return the number of nuclei."""
        return len(self.nodes["label"])

    @property
    def rank(self) -> int:
        """2 for planes, 3 for volumes."""
        return len(self.shape)

    @property
    def unit(self) -> str:
        """Of all lengths: ``um``, or ``px`` where the voxel size is unknown."""
        return "px" if self.spacing_um is None else "um"

    @property
    def steps(self) -> NDArray[np.float64]:
        """Voxel size in `unit`, one number for each axis."""
        return np.ones(self.rank) if self.spacing_um is None else np.array(self.spacing_um, float)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Label of each nucleus, [N]."""
        return np.asarray(self.nodes["label"])

    @property
    def positions_px(self) -> NDArray[np.float64]:
        """Centroids in voxels from the middle of the first one, (N, D)."""
        return self._stacked("centroid_{}_px")

    @property
    def positions(self) -> NDArray[np.float64]:
        """Centroids in `unit`, (N, D)."""
        return self._stacked(f"centroid_{{}}_{self.unit}")

    @property
    def major_directions(self) -> NDArray[np.float64]:
        """Unit vectors along the longest axis of each nucleus, (N, D); their sign has no meaning."""
        return self._stacked("major_{}")

    def _stacked(self, pattern: str) -> NDArray[np.float64]:
        letters = "zyx"[-self.rank :]
        return np.stack([self.nodes[pattern.format(letter)] for letter in letters], axis=1)

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of nodes or edges by its full name, or by its stem without the unit (``volume``).

        Raises
        ------
        ConfigError
            If there is none of that name.
        """
        full = column_name(name, rank=self.rank, unit=self.unit)
        for columns in (self.nodes, self.edge_columns):
            if full in columns:
                return columns[full]
        known = ", ".join([*self.nodes, *self.edge_columns])
        raise ConfigError(f"there is no column {name!r}; expected one of {known}")

    def degrees(self) -> NDArray[np.int64]:
        """Return the number of neighbours of each nucleus, [N]."""
        return np.bincount(self.edges.ravel(), minlength=len(self)).astype(np.int64)

    def adjacency(self) -> Any:
        """Return the symmetric adjacency as a scipy sparse matrix of 0 and 1, (N, N)."""
        from scipy.sparse import coo_array

        ends = np.concatenate([self.edges, self.edges[:, ::-1]])
        return coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(self), len(self))).tocsr()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield each nucleus as a dictionary of plain numbers."""
        lists = {name: column.tolist() for name, column in self.nodes.items()}
        for index in range(len(self)):
            yield {name: values[index] for name, values in lists.items()}
