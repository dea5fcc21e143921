"""The sample images of the package: small, real, labelled, and free to use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_aprcnn.errors import FileFormatError

__all__ = ["Sample", "list_samples", "sample_labels_path", "sample_path"]

_FOLDER = Path(__file__).parent.parent / "samples"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample image.

    Attributes
    ----------
    name
        Name to ask for.
    title
        What it shows, for menus.
    axes
        Axes of the image.
    n_nuclei
        Nuclei in the labels.
    licence, source, attribution
        Under what it may be used, where it is from, and whom to cite.
    """

    name: str
    title: str
    axes: str
    n_nuclei: int
    licence: str
    source: str
    attribution: str


_DSB = "Caicedo et al., Nature Methods 16, 1247 (2019)"
_SAMPLES = (
    Sample(
        name="culture",
        title="Dense culture (2D)",
        axes="YX",
        n_nuclei=52,
        licence="CC0-1.0",
        source="Data Science Bowl 2018 (BBBC038), image 2f929b067a59f885",
        attribution=_DSB,
    ),
    Sample(
        name="large-nuclei",
        title="Large nuclei (2D)",
        axes="YX",
        n_nuclei=29,
        licence="CC0-1.0",
        source="Data Science Bowl 2018 (BBBC038), image 5c235b945b25b990",
        attribution=_DSB,
    ),
    Sample(
        name="u2os",
        title="U2OS cells, Hoechst (2D, 16 bit)",
        axes="YX",
        n_nuclei=105,
        licence="CC0-1.0",
        source="BBBC039v1, image IXMtest_P15_s3",
        attribution="Caicedo et al., Cytometry A 95, 952 (2019); Ljosa et al., Nature Methods 9, 637 (2012)",
    ),
    Sample(
        name="muscle",
        title="Mouse muscle section, DAPI (2D, 16 bit)",
        axes="YX",
        n_nuclei=29,
        licence="Apache-2.0",
        source="BitDepth nuclear segmentation, image muscle_40x_air_3",
        attribution="Mahbod et al., Diagnostics 11, 967 (2021)",
    ),
    Sample(
        name="ovule-3d",
        title="Arabidopsis ovule (3D, with voxel size)",
        axes="ZYX",
        n_nuclei=54,
        licence="MIT",
        source="GoNuclear, volume 1135 (test crop)",
        attribution="Vijayan et al., Development 151 (2024)",
    ),
    Sample(
        name="stardist-3d",
        title="Small volume of 51 nuclei (3D)",
        axes="ZYX",
        n_nuclei=51,
        licence="BSD-3-Clause",
        source="sample volume of StarDist 0.9.2",
        attribution="Weigert et al., WACV (2020)",
    ),
)


def list_samples() -> list[Sample]:
    """Return the sample images, 2D first.

    Examples
    --------
    >>> [sample.name for sample in list_samples()]
    ['culture', 'large-nuclei', 'u2os', 'muscle', 'ovule-3d', 'stardist-3d']
    """
    return list(_SAMPLES)


def sample_path(name: str) -> Path:
    """Return the path of a sample image, an ImageJ TIFF.

    Raises
    ------
    FileFormatError
        If there is no sample of that name.

    Examples
    --------
    >>> sample_path("culture").name
    'culture.tif'
    """
    return _file(name, ".tif")


def sample_labels_path(name: str) -> Path:
    """Return the path of a sample's labels: 0 background, 1..n nuclei, of the image's shape.

    Raises
    ------
    FileFormatError
        If there is no sample of that name.
    """
    return _file(name, "_labels.tif")


def _file(name: str, ending: str) -> Path:
    names = [sample.name for sample in _SAMPLES]
    if name not in names:
        raise FileFormatError(f"there is no sample {name!r}; expected one of {', '.join(names)}")
    path = _FOLDER / f"{name}{ending}"
    if not path.is_file():
        raise FileFormatError(f"the sample {name} is not in this installation; install the package again")
    return path
