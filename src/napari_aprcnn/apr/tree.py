"""`ParticleTree`: an image as particles of several sizes, as fine as the content asks for.

Cheeseman et al. (2018), Nature Communications 9:5160, introduced the Adaptive Particle Representation. The cells of the
particles tile the image; a particle of level L (the finest) is one voxel, one of level L - k is a cube of 2^k voxels a
side, cut off at the border of the image. Cells that touch, also over a corner, differ by one level at most.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_aprcnn._kernels.grids import average_cells, paint_cells
from napari_aprcnn._kernels.trees import Rows, TreeTables, build_tree, grid_shape, paint_levels
from napari_aprcnn.apr import checks
from napari_aprcnn.apr.checks import Shape, level_max_of, shape_of
from napari_aprcnn.apr.conversion_error import ErrorReport, conversion_error
from napari_aprcnn.apr.grid import recorded_grid
from napari_aprcnn.apr.smooth import interpolate
from napari_aprcnn.errors import ImageError, ParticleTreeError

__all__ = ["ParticleTree", "level_max_of", "shape_of"]


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


class ParticleTree:
    """Particles that tile an image, with or without an intensity each. Immutable.

    Made by `napari_aprcnn.to_apr` from an image, by `from_levels` from a grid of levels, by `from_rows` from stored
    rows, or by `napari_aprcnn.apr.files.read_apr` from a file.

    Attributes
    ----------
    shape
        Voxels along z, y, x; a 2D image is one slice.
    level_max
        Level of single voxels.
    particles, nodes
        `Rows` of the particles (levels 0 to level_max) and of the interior nodes (levels 0 to level_max - 1).
    intensities
        One value for each particle, in the dtype of the image, or ``None``; [N].
    conversion
        How the tree was made: parameters and thresholds; a read-only mapping, empty where that is not known.

    Notes
    -----
    Particles are ordered by level, then z, y, x. All arrays are read-only.

    Examples
    --------
    >>> import numpy as np
    >>> levels = np.full((4, 4, 4), 2, np.uint8)   # cells of 2x2x2 voxels, one particle each ...
    >>> levels[0, 0, 0] = 3                        # ... but for one, whose eight voxels are particles
    >>> tree = ParticleTree.from_levels(levels, shape=(8, 8, 8))
    >>> len(tree), tree.node_count, round(tree.prr, 2)
    (71, 10, 7.21)
    """

    __slots__ = ("__dict__", "__weakref__", "conversion", "intensities", "level_max", "nodes", "particles", "shape")

    shape: Shape
    level_max: int
    particles: Rows
    nodes: Rows
    intensities: NDArray[Any] | None
    conversion: Mapping[str, Any]

    def __init__(
        self,
        shape: Shape,
        particles: Rows,
        nodes: Rows,
        *,
        intensities: NDArray[Any] | None = None,
        conversion: Mapping[str, Any] | None = None,
    ) -> None:
        """Take rows as they are; use `from_rows` for rows that are not known to be well formed."""
        given = {
            "shape": shape,
            "level_max": level_max_of(shape),
            "particles": Rows(*(_read_only(part) for part in particles)),
            "nodes": Rows(*(_read_only(part) for part in nodes)),
            "intensities": None if intensities is None else _read_only(np.ascontiguousarray(intensities)),
            "conversion": MappingProxyType(dict(conversion or {})),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
        if self.intensities is not None and self.intensities.shape != (len(self),):
            raise ParticleTreeError(
                f"got intensities of shape {self.intensities.shape}, expected one for each of the {len(self)} particles"
            )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"a ParticleTree is immutable; cannot set {name!r} (with_intensities gives a changed copy)"
        )

    # --- made from ------------------------------------------------------------------------------------------
    @classmethod
    def from_levels(
        cls,
        levels: ArrayLike,
        *,
        shape: tuple[int, ...] | None = None,
        intensities: NDArray[Any] | None = None,
        conversion: Mapping[str, Any] | None = None,
        check: bool = True,
        threads: int | None = None,
    ) -> Self:
        """Make a tree from the level of the particle that covers each voxel, or each cell of 2x2x2 voxels.

        Parameters
        ----------
        levels
            Levels 1..level_max; the shape of the image, or half of it (rounded up) along every axis.
        shape
            Shape of the image; needed where ``levels`` is the half grid.
        intensities
            One value for each particle, in the order level, z, y, x.
        conversion
            Parameters to remember.
        check
            Whether to check that the levels describe a tree.
        threads
            Number of threads; by default all cores.

        Raises
        ------
        ParticleTreeError
            If the levels are out of range, do not tile the image, or jump by more than one between neighbours.
        """
        full = shape_of(np.shape(levels) if shape is None else tuple(shape))
        level_max = level_max_of(full)
        grid = checks.half_grid(np.asarray(levels), full, level_max, check=check)
        particles, nodes = build_tree(grid, full, level_max, threads=threads)
        if check:
            checks.check_levels(full, level_max, particles, grid, threads)
        return cls(full, particles, nodes, intensities=intensities, conversion=conversion)

    @classmethod
    def from_rows(
        cls,
        shape: tuple[int, ...],
        x: ArrayLike,
        offsets: ArrayLike,
        *,
        intensities: NDArray[Any] | None = None,
        conversion: Mapping[str, Any] | None = None,
        threads: int | None = None,
    ) -> Self:
        """Make a tree from stored rows of particles; everything is checked, the interior nodes are made anew.

        Parameters
        ----------
        shape
            Shape of the image.
        x
            Position along x of every particle, ordered by level, z, y, x; integers [N].
        offsets
            First particle of every row (level, z, y), levels 0 to level_max, and one more; integers [rows + 1].
        intensities, conversion, threads
            As for `from_levels`.

        Raises
        ------
        ParticleTreeError
            If the rows do not fit the shape, do not tile the image, are out of order, or jump by more than one level.
        """
        full = shape_of(tuple(shape))
        rows, levels = checks.checked_rows(full, level_max_of(full), x, offsets)
        tree = cls.from_levels(levels, shape=full, intensities=intensities, conversion=conversion, threads=threads)
        made = tree.particles
        if not (np.array_equal(made.x, rows.x) and np.array_equal(made.offsets, rows.offsets)):
            raise ParticleTreeError("got particles out of order; expected level, then z, y, x, all ascending")
        return tree

    # --- what it is -----------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self.particles.x)

    @property
    def node_count(self) -> int:
        """Number of interior nodes."""
        return len(self.nodes.x)

    @property
    def voxels(self) -> int:
        """Number of voxels of the image."""
        return math.prod(self.shape)

    @property
    def prr(self) -> float:
        """Particle reduction rate: voxels / particles (the paper's computational ratio)."""
        return self.voxels / len(self)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        rows = sum(r.level_rows.nbytes + r.offsets.nbytes + r.x.nbytes for r in (self.particles, self.nodes))
        return rows + (0 if self.intensities is None else self.intensities.nbytes)

    def grid_shape(self, level: int) -> Shape:
        """Cells along z, y, x at a level."""
        z, y, x = grid_shape(self.shape, self.level_max, level)
        return z, y, x

    def level_range(self, level: int) -> tuple[int, int]:
        """First particle of a level, and of the next."""
        first, last = self.particles.offsets[self.particles.level_rows[level : level + 2]]
        return int(first), int(last)

    def row_cells(self, rows: Rows, level: int) -> tuple[int, NDArray[np.int64]]:
        """Index of the first cell of a level, and z, y, x of its cells on the level's grid; int64 [n, 3]."""
        ny = self.grid_shape(level)[1]
        ends = rows.offsets[rows.level_rows[level] : rows.level_rows[level + 1] + 1]
        row = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
        return int(ends[0]), np.stack([row // ny, row % ny, rows.x[ends[0] : ends[-1]].astype(np.int64)], axis=1)

    @property
    def levels(self) -> NDArray[np.uint8]:
        """Level of every particle; uint8 [N]."""
        counts = np.diff(self.particles.offsets[self.particles.level_rows])
        return np.repeat(np.arange(self.level_max + 1, dtype=np.uint8), counts)

    @cached_property
    def tables(self) -> TreeTables:
        """Maker of index tables for the particle layers."""
        return TreeTables(self.shape, self.level_max, self.particles, self.nodes)

    def cells(self) -> NDArray[np.int32]:
        """Cell of every particle: z, y, x on its level's grid, and the shift to voxels; int32 [N, 4].

        The cell covers the voxels ``z << shift`` to ``(z + 1) << shift``, cut off at the border of the image.
        """
        out = np.empty((len(self), 4), np.int32)
        self.tables.cells(self.level_max, out)
        return out

    def coordinates(self) -> NDArray[np.float64]:
        """Centre of every particle's cube in voxels, z, y, x; float64 [N, 3]. The first voxel's centre is 0, 0, 0."""
        cells = self.cells()
        size = (1 << cells[:, 3:4]).astype(np.float64)
        return cells[:, :3] * size + (size - 1) / 2

    # --- values ---------------------------------------------------------------------------------------------
    def with_intensities(self, values: NDArray[Any] | None) -> Self:
        """Give a tree of the same particles with other values; the arrays are shared."""
        return type(self)(self.shape, self.particles, self.nodes, intensities=values, conversion=self.conversion)

    def reconstruct(
        self, values: ArrayLike | None = None, *, smooth: bool = False, threads: int | None = None
    ) -> NDArray[Any]:
        """Image of the particles.

        Parameters
        ----------
        values
            One value for each particle; by default the intensities; [N].
        smooth
            Interpolate coarse particles between their centres (float32) instead of painting their cells.
        threads
            Number of threads; by default all cores.

        Returns
        -------
        numpy.ndarray
            ``shape``; dtype of the values, or float32 where smooth.

        Raises
        ------
        ParticleTreeError
            If there are no values, or not one for each particle.
        """
        found = checks.checked_values(self.intensities if values is None else values, len(self))
        if smooth:
            return interpolate(self, found.astype(np.float32))
        return paint_cells(found, self.cells(), self.shape, threads=threads)

    def sample(self, image: ArrayLike, *, threads: int | None = None) -> NDArray[np.float64]:
        """Mean of an image over the voxels of every cell; float64 [N].

        Raises
        ------
        ImageError
            If the image has another shape.
        """
        given = np.asarray(image)
        if given.shape != self.shape and given.shape != self.shape[1:]:
            raise ImageError(f"got an image of shape {given.shape}, expected {self.shape} as the tree has")
        return average_cells(given.reshape(self.shape), self.cells(), threads=threads)

    def node_means(self, values: ArrayLike | None = None) -> NDArray[np.float64]:
        """Plain mean over the children of every interior node, from the finest level up; float64 [node_count].

        A child counts as one whatever its extent at an odd border, as the particle layers have it.
        """
        found = checks.checked_values(self.intensities if values is None else values, len(self))
        table = np.empty((self.node_count, 8), np.int32)
        count = len(self)
        self.tables.children(self.level_max, (0, count, count + self.node_count), table)
        every = np.concatenate([found.astype(np.float64), np.zeros(self.node_count + 1)])
        for level in range(self.level_max - 1, -1, -1):
            first, last = self.nodes.offsets[self.nodes.level_rows[level : level + 2]]
            own = table[first:last]
            every[count + first : count + last] = every[own].sum(1) / (own < count + self.node_count).sum(1)
        return every[count:-1]

    def half_levels(self) -> NDArray[np.uint8]:
        """Level of the particle that covers each cell of 2x2x2 voxels; uint8, half of ``shape``, rounded up."""
        return paint_levels(self.shape, self.level_max, self.particles)[0]

    def level_image(self) -> NDArray[np.uint8]:
        """Level of the particle that covers each voxel; uint8 ``shape``."""
        return paint_cells(self.levels, self.cells(), self.shape)

    # --- how good it is ----------------------------------------------------------------------------------------------
    def remember(self, image: NDArray[Any]) -> None:
        """Let `error` find the image that the tree was made from, for as long as someone else keeps it."""
        object.__setattr__(self, "_source", weakref.ref(image))

    def error(self, image: ArrayLike | None = None, *, threads: int | None = None) -> ErrorReport:
        """Measure the deviation from the smoothed and from the original image: maximum and quantiles.

        Parameters
        ----------
        image
            The image that the tree was made from; may be left out while that array is still alive.
        threads
            Number of threads; by default all cores.

        Returns
        -------
        ErrorReport
            ``bound``: against the smoothed image, as a share of what is tolerated; ``grey`` and ``scale``: against the
            original, in grey values and in local intensity scales.

        Raises
        ------
        ParticleTreeError
            If the tree was not made by `to_apr`, or its image is gone and none was given.
        ImageError
            If the image has another shape.
        """
        source = getattr(self, "_source", lambda: None)() if image is None else np.asanyarray(image)
        if source is None:
            raise ParticleTreeError("the image that the tree was made from is gone; give it: tree.error(image)")
        return conversion_error(source, recorded_grid(self.shape, self.half_levels(), self.conversion), threads=threads)

    # --- out and in -----------------------------------------------------------------------------------------
    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """Arrays that `from_numpy` makes the same tree of: shape, x, offsets, and intensities where there are any."""
        out = {"shape": np.array(self.shape), "x": self.particles.x, "offsets": self.particles.offsets}
        return out if self.intensities is None else {**out, "intensities": self.intensities}

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make a tree of what `to_numpy` gave, also after ``numpy.savez``; checked as in `from_rows`."""
        shape = tuple(int(n) for n in arrays["shape"])
        given = arrays["intensities"] if "intensities" in arrays else None  # noqa: SIM401 - an npz file has no get
        return cls.from_rows(shape, arrays["x"], arrays["offsets"], intensities=given)

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self.shape, tuple(self.particles), tuple(self.nodes), self.intensities, dict(self.conversion))
        return _unpickle, (type(self), *state)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ParticleTree):
            return NotImplemented
        if self.shape != other.shape or not np.array_equal(self.particles.offsets, other.particles.offsets):
            return False
        if not np.array_equal(self.particles.x, other.particles.x):
            return False
        mine, theirs = self.intensities, other.intensities
        if mine is None or theirs is None:
            return mine is theirs
        return mine.dtype == theirs.dtype and np.array_equal(mine, theirs)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        kind = "no intensities" if self.intensities is None else f"{self.intensities.dtype} intensities"
        return f"ParticleTree(shape={self.shape}, particles={len(self)}, PRR={self.prr:.1f}, {kind})"


def _unpickle(
    cls: type[ParticleTree], shape: Shape, particles: Any, nodes: Any, intensities: Any, conversion: Any
) -> ParticleTree:
    return cls(shape, Rows(*particles), Rows(*nodes), intensities=intensities, conversion=conversion)
