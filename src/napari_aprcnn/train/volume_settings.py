"""Parameters of a training on volumes."""

from __future__ import annotations

from pydantic import Field, field_validator

from napari_aprcnn.frozen import Frozen
from napari_aprcnn.models.volume_config import VolumeNetConfig

__all__ = ["VolumeTrainConfig"]


class VolumeTrainConfig(Frozen):
    """A training of a `VolumeNet`.

    Attributes
    ----------
    network
        What is trained.
    epochs
        Parts of the training, each with a checkpoint, a line of the log and the validation, where there is one.
    steps_per_epoch, batch_size
        Steps of the optimiser in an epoch, crops in a step.
    crop
        Voxels of a crop along z, y, x; smaller images are taken whole. Crops with as many voxels along y as along x
        are turned by 90 degrees, others are only mirrored.
    simulated
        Share of the crops that are simulated, 0..1; without labelled images all are.
    simulated_volumes
        Volumes that are simulated; each is cropped, turned and given new noise again and again.
    relative_error
        Of the conversion to particles; a pair (low, high) draws it anew for each crop.
    learning_rate, warmup_steps, weight_decay, clip_norm, ema_decay
        AdamW, with a linear rise and a cosine down to 1 %, gradients cut at a norm, and a running average of the
        weights, which is what is kept.
    rescale
        Largest factor by which labelled crops are enlarged or shrunk.
    elastic
        Standard deviation of elastic deformations of labelled crops, in voxels; 0 switches them off.
    gamma
        Largest exponent, and the inverse of the smallest, of the grey values of labelled crops.
    noise
        Largest standard deviation of Gaussian noise that is added to labelled crops, as a share of their contrast.
    loss_on
        ``particles``: every particle weighs as much as its voxels, which gives the loss of the voxels without making
        them; ``voxels``: on the reconstruction, as the paper has it.
    precision
        ``float32`` or ``bfloat16`` (autocast).
    patience
        Epochs without a better validation after which the training ends; 0: never. It needs validation images.
    seed
        Of weights and crops.
    workers
        Processes that make crops.
    """

    network: VolumeNetConfig = VolumeNetConfig(head="flows", in_channels=2)
    epochs: int = Field(default=40, ge=1, le=100_000)
    steps_per_epoch: int = Field(default=100, ge=1, le=1_000_000)
    batch_size: int = Field(default=1, ge=1, le=256)
    crop: tuple[int, int, int] = (64, 96, 96)
    simulated: float = Field(default=0.9, ge=0, le=1)
    simulated_volumes: int = Field(default=400, ge=1, le=1_000_000)
    relative_error: tuple[float, float] = (0.08, 0.15)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    warmup_steps: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    clip_norm: float = Field(default=2.0, gt=0)
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    rescale: float = Field(default=1.2, ge=1, le=4)
    elastic: float = Field(default=1.5, ge=0, le=32)
    gamma: float = Field(default=1.3, ge=1, le=4)
    noise: float = Field(default=0.05, ge=0, le=1)
    loss_on: str = Field(default="particles", pattern="^(particles|voxels)$")
    precision: str = Field(default="float32", pattern="^(float32|bfloat16)$")
    patience: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**31)
    workers: int = Field(default=1, ge=0, le=64)

    @field_validator("crop")
    @classmethod
    def _positive(cls, crop: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(crop) < 1:
            raise ValueError("expected positive numbers of voxels along z, y, x")
        return crop

    @field_validator("relative_error")
    @classmethod
    def _ordered(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if not 0 < pair[0] <= pair[1] <= 1:
            raise ValueError("expected two numbers 0 < low <= high <= 1")
        return pair

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.epochs * self.steps_per_epoch
