"""Simulated 3D fluorescence images of nuclei, with labels: training data that nobody had to draw."""

from __future__ import annotations

from napari_aprcnn.train.simulation.camera import degrade
from napari_aprcnn.train.simulation.config import CameraConfig, OpticsConfig, SimulationConfig, read_simulation
from napari_aprcnn.train.simulation.statistics import VolumeStatistics, statistics, summary_table
from napari_aprcnn.train.simulation.volume import SimulatedVolume, simulate_volume

__all__ = [
    "CameraConfig",
    "OpticsConfig",
    "SimulatedVolume",
    "SimulationConfig",
    "VolumeStatistics",
    "degrade",
    "read_simulation",
    "simulate_volume",
    "statistics",
    "summary_table",
]
