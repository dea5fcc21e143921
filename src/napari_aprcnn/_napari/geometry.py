"""What a napari layer says about its image: axes, voxel size, and where a result belongs in the world.

Nothing here touches Qt, and nothing reads a voxel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.utils.transforms import CompositeAffine

from napari_aprcnn._napari.foreign import steady
from napari_aprcnn._napari.units import voxel_at
from napari_aprcnn.config import AxisMapping
from napari_aprcnn.segment.axes import guess_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["LayerImage", "Placement", "Spacing", "edges", "image_of", "micrometres", "plausible_orders", "view_region"]

# A preview of more than this edge takes too long to be one; the middle of the view is taken instead.
PREVIEW_EDGE_PX = 1024
_ORDERS = {
    2: ("YX", "XY"),
    3: ("ZYX", "TYX", "CYX", "YXC", "ZXY", "XYZ", "YXZ"),
    4: ("TZYX", "CZYX", "ZCYX", "TCYX", "CTYX", "ZYXC", "TYXC", "ZTYX"),
    5: ("TCZYX", "TZCYX", "CTZYX", "CZTYX", "TZYXC", "ZTCYX"),
}
# Names of axes that are kept beside their letters.
_LONG = {"T": "time", "C": "channel"}


@dataclass(frozen=True)
class Spacing:
    """Voxel size that a layer tells.

    Attributes
    ----------
    um
        (z, y, x) in micrometres; ``None`` where the layer tells nothing. z of an image without a Z axis is y.
    words
        Where the numbers come from.
    """

    um: tuple[float, float, float] | None
    words: str


@dataclass(frozen=True)
class Placement:
    """Where an array with the axes of a layer's image without C belongs in the viewer.

    napari aligns layers by their last axes. A C axis at the front is therefore dropped; one behind another axis is kept
    with length 1 and stretched over all channels, or T and Z of the result would follow the wrong sliders.

    Attributes
    ----------
    kwargs
        ``scale``, ``translate``, ``rotate``, ``shear``, ``affine``, ``units``, ``axis_labels`` of the new layer.
    channel_at
        Position of the kept C axis, else ``None``.
    axes
        Letters of the new layer's axes, the kept C included.
    image
        Refers to the image layer, which it does not keep alive.
    again
        Places the same part of another snapshot of the image layer.
    """

    kwargs: dict[str, Any]
    channel_at: int | None = None
    axes: str = ""
    image: ref[Any] | None = None
    again: Callable[[LayerImage], Placement] | None = None

    @property
    def layer(self) -> Any | None:
        """The image layer, as long as there is one."""
        return None if self.image is None else self.image()

    def now(self) -> Placement:
        """Return where the array belongs now: the image may have been moved or scaled since."""
        layer = self.layer
        return self if layer is None or self.again is None else self.again(image_of(layer))

    def array(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a view of `values` with the axes of the layer."""
        return values if self.channel_at is None else np.expand_dims(values, self.channel_at)

    def region(self, region: tuple[slice, ...]) -> tuple[slice, ...]:
        """Translate slices of the result into slices of the layer's data."""
        if self.channel_at is None:
            return region
        return (*region[: self.channel_at], slice(0, 1), *region[self.channel_at :])


@dataclass(frozen=True, eq=False)
class LayerImage:
    """A snapshot of an image layer: it stays true when the layer is renamed or removed while a run goes on.

    Attributes
    ----------
    name
        Name of the layer.
    data
        Full resolution, as lazy as the layer holds it.
    rgb
        The last axis of `data` holds colours and is no axis of the layer.
    transform, affine
        The layer's two transforms.
    units, axis_labels
        One for each axis of the layer.
    source
        Refers to the layer, which it does not keep alive.
    """

    name: str
    data: Any
    rgb: bool
    transform: CompositeAffine
    affine: Any
    units: tuple[Any, ...]
    axis_labels: tuple[str, ...]
    source: ref[Any] | None = None

    @property
    def layer(self) -> Any | None:
        """The layer itself, as long as there is one; names come and go, and others may take them."""
        return None if self.source is None else self.source()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, channels of RGB included."""
        return tuple(int(n) for n in self.data.shape)

    def guess(self) -> AxisMapping:
        """Guess the axes from the layer's axis labels, else from its shape.

        Raises
        ------
        AxesError
            If the array has fewer than two or more than five axes.
        """
        if not self.rgb:
            return guess_axes(self.shape, names=self.axis_labels)
        guess_axes(self.shape)  # more than five axes with the colours: that is an error
        planes = guess_axes(self.shape[:-1], names=self.axis_labels).order
        if "C" in planes:  # the colours are the channels, so a short axis before the planes is none
            planes = planes.replace("C", "Z" if "Z" not in planes else "T")
        return AxisMapping(order=planes + "C")

    def layer_axes(self, mapping: AxisMapping) -> str:
        """Return the letters of the layer's own axes: those of the array without the colours of RGB."""
        return mapping.order[: len(mapping.order) - 1] if self.rgb else mapping.order

    def spacing(self, mapping: AxisMapping) -> Spacing:
        """Read the voxel size from scale, affine and units.

        Returns
        -------
        Spacing
            Length units are converted to micrometres. A scale without a length unit is taken as micrometres where it
            is not 1, because only ratios matter to the network.
        """
        letters = self.layer_axes(mapping)
        sizes, lengths = {}, {}
        for edge, unit, letter in zip(edges(self.transform, self.affine), self.units, letters, strict=True):
            if letter in "ZYX":
                factor = micrometres(unit)
                lengths[letter] = factor is not None
                sizes[letter] = float(edge) * (factor or 1.0)
        sizes.setdefault("Z", sizes["Y"])
        um = (sizes["Z"], sizes["Y"], sizes["X"])
        if not all(np.isfinite(um)) or min(um) <= 0:
            return Spacing(None, "the layer's scale is not usable")
        if all(lengths.values()):
            return Spacing(um, "from the layer")
        if np.allclose(um, 1.0):
            return Spacing(None, "unknown: taken as equal along all axes")
        return Spacing(um, "from the layer's scale, which has no unit")

    def place(
        self,
        mapping: AxisMapping,
        *,
        start: Sequence[int] | None = None,
        voxel: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> Placement:
        """Say where a result belongs.

        Parameters
        ----------
        mapping
            Meaning of the image's axes.
        start
            First index along each axis of the layer, for the result of a part of the image.
        voxel
            Edges of the result's voxels along z, y, x, in voxels of the image, where it is finer or coarser.

        Returns
        -------
        Placement
        """
        letters = self.layer_axes(mapping)
        origin = np.zeros(len(letters)) if start is None else np.asarray(start, dtype=float)
        stretch, channel_at = np.ones(len(letters)), None
        for letter, edge in zip("ZYX", voxel, strict=True):
            if letter in letters and edge != 1.0:
                # The corners of both grids lie at the same place; the centre of the first voxel does not.
                stretch[letters.index(letter)] = edge
                origin[letters.index(letter)] += (edge - 1.0) / 2
        kept = list(range(len(letters)))
        if "C" in letters:
            channel = letters.index("C")
            if channel == 0:
                kept = kept[1:]
            else:
                n_channels = self.shape[channel]
                stretch[channel], origin[channel] = n_channels, (n_channels - 1) / 2
                channel_at = channel
        moved = CompositeAffine(
            scale=self.transform.scale * stretch,
            translate=self.transform(origin),
            rotate=self.transform.rotate,
            shear=self.transform.shear,
        ).set_slice(kept)
        kwargs = {
            "scale": moved.scale,
            "translate": moved.translate,
            "rotate": moved.rotate,
            "shear": moved.shear,
            "affine": self.affine.set_slice(kept).affine_matrix,
            "units": tuple(self.units[axis] for axis in kept),
            "axis_labels": tuple(_axis_name(letters[axis], self.axis_labels[axis]) for axis in kept),
        }

        def again(image: LayerImage) -> Placement:
            # A layer that was given data with other axes says nothing about where this belongs.
            fits = len(image.units) == len(letters) and image.rgb == rgb
            return image.place(mapping, start=start, voxel=voxel) if fits else here

        rgb = self.rgb
        here = Placement(kwargs, channel_at, "".join(letters[axis] for axis in kept), self.source, again)
        return here


def image_of(layer: Any) -> LayerImage:
    """Take a snapshot of an image layer; of a multiscale layer its full resolution."""
    return LayerImage(
        name=str(layer.name),
        data=steady(layer.data[0] if layer.multiscale else layer.data),
        rgb=bool(getattr(layer, "rgb", False)),
        transform=CompositeAffine(
            scale=layer.scale, translate=layer.translate, rotate=layer.rotate, shear=layer.shear, ndim=layer.ndim
        ),
        affine=layer.affine,
        units=tuple(layer.units),
        axis_labels=tuple(layer.axis_labels),
        source=ref(layer),
    )


def edges(transform: Any, affine: Any) -> NDArray[np.float64]:
    """Return the edge of a voxel along each axis of a layer, in its units: scale may lie in both of its transforms."""
    matrix = np.asarray(affine.linear_matrix) @ np.asarray(transform.linear_matrix)
    return np.asarray(np.linalg.norm(matrix, axis=0), float)


def _axis_name(letter: str, label: str) -> str:
    """Name an axis of a result by what it was taken for, which the image's own labels need not say."""
    return label if label.strip().lower() in (letter.lower(), _LONG.get(letter)) else letter.lower()


def plausible_orders(rank: int, *, rgb: bool = False) -> tuple[str, ...]:
    """Return the axis orders that an array of this rank is likely to have, the usual ones first.

    Examples
    --------
    >>> plausible_orders(2), plausible_orders(3, rgb=True)
    (('YX', 'XY'), ('YXC',))
    """
    orders = _ORDERS.get(rank, ())
    return tuple(order for order in orders if order.endswith("C")) if rgb else orders


def view_region(layer: Any, viewer: Any, mapping: AxisMapping) -> tuple[slice, ...]:
    """Return the part of a layer's full resolution that the camera shows: one plane, at most 1024 px wide.

    Parameters
    ----------
    layer
        An image layer.
    viewer
        The viewer model that shows it.
    mapping
        Meaning of the axes of its array.

    Returns
    -------
    tuple of slice
        One for each axis of the layer; length 1 along T and Z, all along C.
    """
    letters = mapping.order[: layer.ndim]
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    corners = np.array(layer.corner_pixels, dtype=float)
    if layer.multiscale:
        corners = corners * np.asarray(layer.downsample_factors[layer.data_level])[: layer.ndim]
    displayed = set(viewer.dims.displayed[-2:]) if viewer.dims.ndisplay == 2 else set()
    offset = viewer.dims.ndim - layer.ndim
    point = voxel_at(layer, viewer, viewer.dims.point)
    region = []
    for axis, letter in enumerate(letters):
        n = int(shape[axis])
        if letter == "C":
            region.append(slice(0, n))
        elif letter in "TZ":
            index = int(np.clip(np.round(point[axis]), 0, n - 1))
            region.append(slice(index, index + 1))
        elif axis + offset in displayed:
            region.append(_at_most(int(corners[0, axis]), int(np.ceil(corners[1, axis])) + 1, n))
        else:
            region.append(_at_most(0, n, n))
    return tuple(region)


def _at_most(start: int, stop: int, n: int) -> slice:
    start, stop = max(0, min(start, n - 1)), max(1, min(stop, n))
    if stop <= start:
        start, stop = 0, n
    if stop - start > PREVIEW_EDGE_PX:
        start = (start + stop - PREVIEW_EDGE_PX) // 2
        stop = start + PREVIEW_EDGE_PX
    return slice(start, stop)


def micrometres(unit: Any) -> float | None:
    """Return how many micrometres a unit is, ``None`` for what is no length (pixels).

    Examples
    --------
    >>> micrometres("nm"), micrometres("pixel")
    (0.001, None)
    """
    import pint

    try:
        return float(pint.application_registry.Quantity(1.0, str(unit)).to("micrometer").magnitude)
    except (pint.PintError, AttributeError, TypeError, ValueError):
        return None
