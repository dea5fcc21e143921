"""What a run did and what it took, in figures that can be copied and compared."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from napari_aprcnn.frozen import Frozen
from napari_aprcnn.segment.memory import words_bytes

__all__ = ["Readout", "package_versions"]

PACKAGES = ("napari-aprcnn", "torch", "numpy", "scipy", "scikit-image", "zarr", "dask", "tifffile")


class Readout(Frozen):
    """Figures of one run.

    Attributes
    ----------
    model, model_sha256, precision
        The network: its name, the checksum of its weights, its arithmetic.
    device, threads, instruction_set
        What computed: in words; threads of torch and of the kernels; instruction set of the kernels.
    axes, shape, dimensionality
        Axes and shape of the labels, and how they were found.
    n_objects
        Number of nuclei; of all planes or time points together where each is numbered on its own.
    diameter_px, diameter_given, zoom
        Diameter of the nuclei in the plane that the run worked with, whether the caller gave it, and the rescaling.
        0: none was found and nothing was rescaled.
    prr
        Voxels a particle, over the whole run; 0 where no particles were made.
    seconds, stages
        Time of the run, and of its stages (they add up to nearly all of it).
    voxels, voxels_per_s
        Size of the labels and speed.
    peak_memory_bytes, memory_added_bytes, memory_estimate_bytes
        Largest resident memory of the process during the run, what the run added to it, and what was expected.
    tile_px, n_tiles, n_blocks
        How the run was cut. More than one block: the volume did not fit the memory budget in one.
    versions
        Of the packages, of Python and of the system.
    """

    model: str
    model_sha256: str
    precision: str
    device: str
    threads: int
    instruction_set: str
    axes: str
    shape: tuple[int, ...]
    dimensionality: str
    n_objects: int
    diameter_px: float
    diameter_given: bool
    zoom: float
    prr: float = 0.0
    seconds: float
    stages: dict[str, float]
    voxels: int
    voxels_per_s: float
    peak_memory_bytes: int
    memory_added_bytes: int
    memory_estimate_bytes: int
    tile_px: int
    n_tiles: int
    n_blocks: int
    versions: dict[str, str]

    def to_json(self) -> str:
        """Return the readout as indented JSON."""
        return self.model_dump_json(indent=2)

    def rows(self) -> list[tuple[str, str]]:
        """Return names and values in words, as the tables show them."""
        stages = ", ".join(f"{name} {_seconds(value)}" for name, value in self.stages.items())
        found = "given" if self.diameter_given else "estimated"
        particles = f", {self.prr:.2f} voxels a particle" if self.prr else ""
        diameter = f"{self.diameter_px:.1f} px, {found}" if self.diameter_px else "none found, image not rescaled"
        return [
            ("nuclei", f"{self.n_objects}"),
            ("labels", " x ".join(f"{a} {n}" for a, n in zip(self.axes, self.shape, strict=True))),
            ("time", f"{_seconds(self.seconds)} ({stages})"),
            ("speed", f"{self.voxels_per_s / 1e6:.2f} million voxels/s"),
            (
                "peak memory",
                f"{words_bytes(self.peak_memory_bytes)}, of which the run {words_bytes(self.memory_added_bytes)}",
            ),
            *([] if self.dimensionality == "volume" else [("diameter", diameter)]),
            ("mode", self._mode() + particles),
            ("model", f"{self.model} ({self.precision}), sha256 {self.model_sha256[:12]}"),
            ("device", f"{self.device}, kernels {self.instruction_set} on {self.threads} threads"),
            ("versions", ", ".join(f"{name} {value}" for name, value in self.versions.items())),
        ]

    def _mode(self) -> str:
        if self.dimensionality == "volume":
            return f"volume, blocks: {self.n_blocks}"
        return f"{self.dimensionality}, tiles of {self.tile_px} px: {self.n_tiles}, blocks: {self.n_blocks}"

    def markdown(self) -> str:
        """Return the readout as a Markdown table."""
        lines = [f"| {name} | {value} |" for name, value in self.rows()]
        return "\n".join(["| what | value |", "| --- | --- |", *lines])


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that decide a result, of Python and of the system."""
    versions = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
