"""How much memory a network for volumes takes at the peak of a pass without gradients."""

from __future__ import annotations

from napari_aprcnn.models.volume_config import VolumeNetConfig, describe

__all__ = ["VOXEL_CHANNEL_BYTES", "peak_row_bytes", "stage_share"]

VOXEL_CHANNEL_BYTES = (24, 12)
"""Of networks on voxels alone whose output is on the image's grid, or the next: bytes a voxel and channel, measured."""

# Bytes of a row in the tables of its stage: around (108 for eight rows), children, places, cubes; of the finest: cells.
_TABLES, _CELLS = 28, 16
_FLOAT, _HALF = 4, 2
_WAITING = 0.5  # of a skip without its zeros and with what is rounded up, as measured


def stage_share(prr: float, stage: int) -> float:
    """Rows of a stage for each particle, roughly.

    A pooling makes one of eight of the finest particles and leaves the coarser ones; the sparser an image, the fewer of
    its particles are the finest. Fitted to images of nuclei and made-up trees of PRR 1.5 to 100.

    Examples
    --------
    >>> stage_share(1.0, 1), stage_share(60.0, 1)
    (0.125, 1.0)
    """
    return min(1.0, float(prr**0.85) / 8.0**stage)


def peak_row_bytes(config: VolumeNetConfig, prr: float, *, half: bool = False, lean: bool = False) -> float:
    """Bytes at the peak, for each particle (PRR 1: voxel) of the finest stage, of what a pass holds at once.

    Parameters
    ----------
    config
        The network, in any form.
    prr
        Voxels a particle.
    half
        Whether particles' features are kept in bfloat16; voxels are counted in float32.
    lean
        Whether skips wait without their zeros (`napari_aprcnn._kernels.waiting.can_wait`).

    Notes
    -----
    Particles: a convolution holds its input, the means of its tree and its output, beside what the encoder keeps for
    later; norms work in place, and so do convolutions of as many channels out as in whose input is a block's own or a
    skip. A skip is read where it lies, but by residual blocks, which also hold their input.
    Voxel stages of hybrids hold normalised copies.
    """
    if config.hybrid == 0:
        return float(VOXEL_CHANNEL_BYTES[config.out_stage] * config.channels)
    peak = held = entered = 0.0
    kept: dict[int, tuple[float, float]] = {}
    for spec in describe(config):
        if spec.key.endswith("shortcut.conv"):
            continue
        share = stage_share(prr, spec.stage) if spec.particles else prr / 8.0**spec.stage
        cells = share * (_HALF if half and spec.particles else _FLOAT)
        inside, outside = spec.inside * cells, spec.outside * cells
        working = inside * 1.125 + outside if spec.particles else inside + 2 * outside
        part, _, rest = spec.key.partition(".")
        if spec.particles and rest.endswith("second.conv"):
            working = inside * 1.125  # the output lies where the input did
        if rest.endswith("first.conv"):
            entered = inside
        elif config.block == "residual" and rest.endswith("second.conv"):
            working += entered + outside  # the block's input, to be added, and what its shortcut makes of it
        if part == "decoder" and rest.endswith("first.conv"):
            # Half of what it reads is the skip, the other half still lies on the coarser stage.
            skip, waits = kept.pop(spec.stage)
            held -= waits
            if spec.particles and config.block == "plain":
                working = 1.125 * (skip + skip * stage_share(prr, spec.stage + 1) / share)
        if part == "head" and rest != "output" and rest != "block.conv":
            working = inside + 2 * config.out_channels * cells
        peak = max(peak, held + working)
        if part == "encoder" and rest.endswith("second.conv") and config.out_stage <= spec.stage < config.depth:
            waits = outside * _WAITING if lean and spec.particles else outside
            kept[spec.stage] = outside, waits
            held += waits
    stages = range(min(config.hybrid, config.depth + 1))
    return peak + _CELLS + _TABLES * sum(stage_share(prr, stage) for stage in stages)
