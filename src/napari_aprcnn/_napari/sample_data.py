"""Sample images for napari's File menu."""

from __future__ import annotations

from napari_aprcnn._napari.reader import LayerData, read

__all__ = ["culture", "large_nuclei", "muscle", "ovule_3d", "stardist_3d", "u2os"]


def _open(name: str) -> list[LayerData]:
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
    return _open("culture")


def large_nuclei() -> list[LayerData]:
    """Large nuclei, 2D, 8 bit."""
    return _open("large-nuclei")


def u2os() -> list[LayerData]:
    """U2OS cells in Hoechst, 2D, 16 bit."""
    return _open("u2os")


def muscle() -> list[LayerData]:
    """Mouse muscle section in DAPI, 2D, 16 bit."""
    return _open("muscle")


def ovule_3d() -> list[LayerData]:
    """Arabidopsis ovule, 3D, with its voxel size."""
    return _open("ovule-3d")


def stardist_3d() -> list[LayerData]:
    """Small volume of 51 nuclei, 3D."""
    return _open("stardist-3d")
