"""Sample images for napari's File menu."""

from __future__ import annotations

from typing import Any

from napari_aprcnn._napari.reader import LayerData, read

__all__ = [
    "culture",
    "large_nuclei",
    "muscle",
    "open_sample",
    "ovule_3d",
    "simulated_cauliflower_3d",
    "simulated_compact_3d",
    "simulated_cystic_3d",
    "simulated_embryo_3d",
    "simulated_scattered_3d",
    "stardist_3d",
    "u2os",
]

_OTHERS: dict[str, dict[str, Any]] = {
    "embryo": {"nuclei": (36, 40), "diameter_px": (17, 20)},
    "scattered": {"nuclei": (140, 140)},
}
# Seeds that show in the middle plane what the scene is.
_TITLES = {"embryo": "Simulated embryo (3D)", "scattered": "Simulated scattered cells (3D)"}
_SEEDS = {"cystic": 3, "compact": 3, "cauliflower": 3, "embryo": 3, "scattered": 3}


def open_sample(name: str) -> list[LayerData]:
    """Read a sample of the package by its name: `napari_aprcnn.io.samples.list_samples`."""
    from napari_aprcnn.io.samples import list_samples, sample_path

    layers = read(str(sample_path(name)))
    sample = next(sample for sample in list_samples() if sample.name == name)
    for _, options, _ in layers:
        options["metadata"] = {
            **options["metadata"],
            "title": sample.title,
            "licence": sample.licence,
            "source": sample.source,
            "attribution": sample.attribution,
        }
    return layers


def culture() -> list[LayerData]:
    """Dense culture, 2D, 8 bit."""
    return open_sample("culture")


def large_nuclei() -> list[LayerData]:
    """Large nuclei, 2D, 8 bit."""
    return open_sample("large-nuclei")


def u2os() -> list[LayerData]:
    """U2OS cells in Hoechst, 2D, 16 bit."""
    return open_sample("u2os")


def muscle() -> list[LayerData]:
    """Mouse muscle section in DAPI, 2D, 16 bit."""
    return open_sample("muscle")


def ovule_3d() -> list[LayerData]:
    """Arabidopsis ovule, 3D, with its voxel size."""
    return open_sample("ovule-3d")


def stardist_3d() -> list[LayerData]:
    """Small volume of 51 nuclei, 3D."""
    return open_sample("stardist-3d")


def simulated_cystic_3d() -> list[LayerData]:
    """Hollow organoid, simulated, with its labels."""
    return _simulate("cystic")


def simulated_compact_3d() -> list[LayerData]:
    """Solid organoid, simulated, with its labels."""
    return _simulate("compact")


def simulated_cauliflower_3d() -> list[LayerData]:
    """Organoid of several lobes, simulated, with its labels."""
    return _simulate("cauliflower")


def simulated_embryo_3d() -> list[LayerData]:
    """Early embryo of large nuclei, simulated, with its labels."""
    return _simulate("embryo")


def simulated_scattered_3d() -> list[LayerData]:
    """Scattered cells, simulated, with their labels."""
    return _simulate("scattered")


def _simulate(scene: str) -> list[LayerData]:
    from napari_aprcnn.train.simulation import CameraConfig, SimulationConfig, simulate_volume

    values: dict[str, Any] = {"shape": (64, 160, 160), "diameter_px": (12, 15), "z_scale": (0.45, 0.55)}
    config = SimulationConfig(
        scene=scene,
        **{**values, "extent": (0.8, 0.85), "density": (0.8, 1.0), **_OTHERS.get(scene, {})},
        camera=CameraConfig(photons=(30, 60), emccd=0, read_noise=(0.02, 0.05), contrast_grey=(300, 600), bits=(16,)),
    )
    volume = simulate_volume(config, seed=_SEEDS[scene])
    title = _TITLES.get(scene, f"Simulated organoid (3D), {scene}")
    options = {
        "scale": list(volume.spacing_um),
        "units": ["micrometer"] * 3,
        "axis_labels": ["z", "y", "x"],
        "metadata": {
            "axes": "ZYX",
            "spacing_um": volume.spacing_um,
            "title": title,
            "licence": "BSD-3-Clause",
            "source": f"simulated by napari-aprcnn, seed {_SEEDS[scene]}",
            "attribution": "",
        },
    }
    # The truth is there to look up; it would hide the image at first sight.
    truth = {**options, "name": f"{title}: true nuclei", "visible": False}
    return [(volume.labels, truth, "labels"), (volume.image, {**options, "name": title}, "image")]
