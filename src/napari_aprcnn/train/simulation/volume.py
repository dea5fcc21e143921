"""`simulate_volume`: a scene, rendered, seen through the optics and taken by the camera."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cc3d
import numpy as np

from napari_aprcnn.train.simulation.background import add_balls, draw_debris, haze_and_ghosts
from napari_aprcnn.train.simulation.camera import draw_camera, expose
from napari_aprcnn.train.simulation.config import SimulationConfig
from napari_aprcnn.train.simulation.fields import blur, draw
from napari_aprcnn.train.simulation.nuclei import Body, Canvas, Chromatin, bodies_of, boxes_overlap
from napari_aprcnn.train.simulation.optics import Optics, draw_optics, illumination, with_halo
from napari_aprcnn.train.simulation.scenes import Style, draw_style, lay_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Volume = NDArray[np.float32]

__all__ = ["Exposure", "SimulatedVolume", "simulate_volume"]

PEAK_PERCENTILE = 95.0  # of the voxels above ...
PEAK_ABOVE = 0.25  # ... of the brightest; not the outline level, so that images do not depend on it
LOWEST_LEVEL, HIGHEST_LEVEL = 0.06, 0.6  # of a peak
CORE = 0.6  # deeper than this, a voxel belongs to its nucleus, however dark its nucleolus is
BLUR_REACH = 3.0  # standard deviations that a box has around a nucleus


@dataclass(frozen=True)
class SimulatedVolume:
    """A volume and the truth about it.

    Attributes
    ----------
    image : (Z, Y, X) uint16
        Grey values.
    labels : (Z, Y, X) uint16
        Nuclei 1..n, 0 is background.
    clean : (Z, Y, X) float32
        The image without noise, in units of the median nucleus' contrast (the peak of its own light); `degrade` makes
        images of it.
    background : (Z, Y, X) float32
        The part of `clean` that is not light of labelled nuclei, halos apart.
    spacing_um
        Voxel size z, y, x.
    parameters
        What was drawn.
    """

    image: NDArray[np.uint16]
    labels: NDArray[np.uint16]
    clean: Volume
    background: Volume
    spacing_um: tuple[float, float, float]
    parameters: dict[str, Any]


def simulate_volume(config: SimulationConfig | None = None, *, seed: int, **overrides: Any) -> SimulatedVolume:
    """Make one volume; a pure function of its arguments.

    Parameters
    ----------
    config
        By default `SimulationConfig()`.
    seed
        Of every random choice.
    **overrides
        Fields of `SimulationConfig` to change: ``scene="cystic"``, ``shape=(48, 128, 128)``, ...

    Returns
    -------
    SimulatedVolume

    Raises
    ------
    ConfigError
        If a field is unknown or out of range.

    Examples
    --------
    >>> made = simulate_volume(seed=1, scene="cystic", shape=(24, 48, 48), diameter_px=(9, 12))
    >>> made.image.shape, made.image.dtype, int(made.labels.max()) > 0
    ((24, 48, 48), dtype('uint16'), True)
    """
    config = (config or SimulationConfig()).replace(**overrides)
    rng, noise = np.random.default_rng((seed, 1)), np.random.default_rng((seed, 2))
    style = draw_style(rng, config)
    layout = lay_out(rng, style, config)
    optics = draw_optics(rng, style, config)
    bodies = bodies_of(rng, layout, style, config)
    light, labels, unit = _render(rng, bodies, style, optics, config)
    dirt = np.zeros(config.shape, np.float32)
    balls, drawn = draw_debris(rng, layout, style, config)
    add_balls(dirt, balls, np.array([style.z_scale, 1.0, 1.0]), optics)
    haze, more = haze_and_ghosts(rng, layout, style, config, optics)
    dirt = dirt + haze * optics.light_at(0, config.shape[0])
    lamp = illumination(rng, optics, config.shape) if optics.illumination else np.ones((1, 1, 1), np.float32)
    clean = with_halo(light / np.float32(unit) + dirt, optics) * lamp
    camera = draw_camera(noise, config.camera)
    xy = config.voxel_xy_um
    return SimulatedVolume(
        image=expose(clean, noise, camera),
        labels=labels,
        clean=clean,
        background=dirt * lamp,
        spacing_um=(xy / style.z_scale, xy, xy),
        parameters={
            "seed": seed,
            "style": asdict(style),
            "optics": asdict(optics),
            "camera": camera,
            "placed": len(layout),
            "labelled": int(labels.max()),
            **drawn,
            **more,
        },
    )


def _render(
    rng: np.random.Generator, bodies: list[Body], style: Style, optics: Optics, config: SimulationConfig
) -> tuple[Volume, NDArray[np.uint16], float]:
    """Light of the nuclei, their labels, and the median of their peaks."""
    scale = np.array([style.z_scale, 1.0, 1.0])
    chromatin = Chromatin(rng, style, config)
    gap = draw(rng, (0.0, 0.5)) * style.diameter_px / 18
    reach = BLUR_REACH * max(optics.sigma_px) * (1 + optics.depth_blur)
    placed = [(body, *body.box(scale)) for body in bodies]
    placed = [item for item in placed if boxes_overlap(item[1], item[2], config.shape, reach)]
    exposure = Exposure(config, optics, len(placed))
    if not placed:
        return exposure.light, exposure.labels.astype(np.uint16), 1.0
    canvas = Canvas(
        np.minimum(np.min([low for _, low, _ in placed], axis=0), 0),
        np.maximum(np.max([high for _, _, high in placed], axis=0), config.shape),
    )
    depths = []
    for number, (body, low, high) in enumerate(placed):
        depths.append(body.depth(low, high, scale))
        canvas.claim(number, low, high, depths[-1])
    for number, (body, low, high) in enumerate(placed):
        depth = depths[number]
        filled = canvas.share(number, low, high, depth, body.radius, gap)
        exposure.add(number + 1, low, filled, filled * chromatin.fill(rng, body, depth), depth)
    labels, unit = exposure.settle()
    return exposure.light, labels, unit


class Exposure:
    """Light, labels and peaks, nucleus by nucleus.

    Parameters
    ----------
    config, optics
        Of the volume.
    count
        Number of nuclei.
    """

    def __init__(self, config: SimulationConfig, optics: Optics, count: int) -> None:
        self.light = np.zeros(config.shape, np.float32)
        self.labels = np.zeros(config.shape, np.int32)
        self._shares: list[tuple[int, tuple[slice, ...], Volume, NDArray[np.bool_]]] = []
        self.peaks = np.zeros(count + 1)
        self._config = config
        self._optics = optics

    def add(self, number: int, low: NDArray[np.int64], filled: Volume, body: Volume, depth: Volume) -> None:
        """Blur a nucleus and add its light.

        Parameters
        ----------
        number
            Its label, from 1.
        low : [3]
            First voxel of its box.
        filled, body, depth
            Share of each voxel that it fills, its light before the optics, and depth, in its box.
        """
        inside = filled > 0.5
        if not inside.any():
            return
        middle = float(low[0] + filled.shape[0] / 2)
        sigma = np.array(self._optics.sigma_at(middle))
        pad = np.ceil(BLUR_REACH * sigma).astype(int)
        own = blur(np.pad(body, [(int(p), int(p)) for p in pad]), sigma)
        core = tuple(slice(int(p), int(p) + size) for p, size in zip(pad, filled.shape, strict=True))
        peak = float(np.percentile(own[own > PEAK_ABOVE * own.max()], PEAK_PERCENTILE))
        share = own / np.float32(peak)
        deep = np.zeros(share.shape, bool)
        deep[core] = inside & (depth < CORE)
        origin = low - pad
        start, stop = np.maximum(origin, 0), np.minimum(origin + own.shape, self.light.shape)
        if (start >= stop).any():
            return
        place = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        inner = tuple(slice(int(a - o), int(b - o)) for a, b, o in zip(start, stop, origin, strict=True))
        self.light[place] += own[inner] * self._optics.light_at(int(start[0]), int(stop[0]))
        self._shares.append((number, place, share[inner], deep[inner]))
        self.peaks[number] = peak * float(self._optics.light_at(int(middle), int(middle) + 1)[0, 0, 0])

    def _outline(self) -> None:
        """Label every voxel with the nucleus that is brightest there, relative to its peak, and not below its end."""
        seen = self.peaks[self.peaks > 0]
        middle = float(np.median(seen)) if seen.size else 1.0
        best = np.zeros(self.light.shape, np.float32)
        for number, place, share, deep in self._shares:
            common = (middle / max(float(self.peaks[number]), 1e-9)) ** self._config.outline_common
            level = np.float32(np.clip(self._config.outline_level * common, *self._limits()))
            # Only holes are filled: a dark nucleolus is at the level of the outline, whatever it is.
            share = np.where(deep, np.maximum(share, np.float32(1.01) * level), share)
            better = (share > level) & (share > best[place])
            best[place][better] = share[better]
            self.labels[place][better] = number
        self._shares.clear()

    def _limits(self) -> tuple[float, float]:
        """Lowest and highest level: light from afar and the noise of a peak are no outlines."""
        level = self._config.outline_level
        return min(level, LOWEST_LEVEL), max(level, HIGHEST_LEVEL)

    def settle(self) -> tuple[NDArray[np.uint16], float]:
        """Labels 1..n without fragments, tiny and invisible nuclei; and the median of the peaks of those that stay."""
        self._outline()
        pieces = np.asarray(cc3d.connected_components(self.labels, connectivity=6))
        sizes = np.bincount(pieces.ravel())
        owner = np.zeros(len(sizes), np.int64)
        owner[pieces.ravel()] = self.labels.ravel()
        sizes[0] = 0
        largest = np.zeros(len(self.peaks), np.int64)  # size of each nucleus' largest piece
        np.maximum.at(largest, owner, sizes)
        present = largest >= self._config.min_voxels
        present[0] = False
        unit = float(np.median(self.peaks[present])) if present.any() else 1.0
        present &= self.peaks >= self._config.faint * unit
        keep = present[owner] & (sizes == largest[owner])
        # Of two largest pieces of one size, the first stays.
        chosen = np.nonzero(keep)[0]
        chosen = chosen[np.unique(owner[chosen], return_index=True)[1]]
        number = np.zeros(len(sizes), np.uint16)
        number[chosen] = np.arange(1, len(chosen) + 1)
        return number[pieces], unit
