"""Everything that decides what a student learns from its teacher."""

from __future__ import annotations

from pydantic import Field

from napari_aprcnn.config import TrainConfig
from napari_aprcnn.frozen import Frozen

__all__ = ["DistilConfig"]


class DistilConfig(Frozen):
    """A distillation (FasterCellpose thesis, section 3.4, and what we found to help).

    Attributes
    ----------
    training
        Architecture of the student, steps, batches, rate, patch edge (``crop_px``), diameter, seed. The thesis: Adam
        (``weight_decay`` 0), 1e-3, batches of 8, patches of 256 px, 25 px. Shares of simulated scenes are not looked
        at.
    views
        Patches of each image, turned and mirrored at random.
    scale_jitter
        Largest deviation of a patch's scale from the diameter, in octaves.
    foreground
        Patches of which the teacher takes a smaller share for nuclei are left out.
    consistency
        The student sees the patch with new noise, blur and contrast every time, the teacher saw it as it is. Off: both
        see the same.
    hard
        Weight of the labels, where there are any, against the teacher, 0..1.
    features
        Weight of the squared error of the coarsest features, brought to the teacher's width by a 1 x 1 convolution
        that is trained beside and thrown away. 0: responses only.
    held_out
        Share of the images on which the IoU with the teacher is looked at; planes of one file count as one image.
    validate_every
        Steps between two looks; 0: after every pass over the patches.
    max_drop
        The training ends when the IoU is so far below the best.
    patience, standstill
        It also ends when the IoU has changed by less than `standstill` for so many looks; 0: never.
    """

    training: TrainConfig = TrainConfig(crop_px=256, learning_rate=1e-3)
    views: int = Field(default=4, ge=1)
    scale_jitter: float = Field(default=0.5, ge=0, le=2)
    foreground: float = Field(default=0.01, ge=0, lt=1)
    consistency: bool = True
    hard: float = Field(default=0.0, ge=0, le=1)
    features: float = Field(default=0.0, ge=0)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    validate_every: int = Field(default=0, ge=0)
    max_drop: float = Field(default=0.05, gt=0, le=1)
    patience: int = Field(default=3, ge=0)
    standstill: float = Field(default=5e-4, ge=0)
