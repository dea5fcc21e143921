"""What the tests of the particle layers share: comparisons, inputs, small networks."""

from __future__ import annotations

import torch

from napari_aprcnn import nn

SETS = ("1x1x1", "1x3x3", "3x3x3", "5x5x5")
KERNELS = {name: tuple(int(n) for n in name.split("x")) for name in SETS}


def assert_close(got: torch.Tensor, expected: torch.Tensor, share: float = 1e-5, what: str = "") -> None:
    """The largest difference is a small share of the largest value (of one, where values are small)."""
    assert got.shape == expected.shape, f"{what}: {tuple(got.shape)} instead of {tuple(expected.shape)}"
    if got.numel():
        error = float((got.detach().double() - expected.detach().double()).abs().max())
        limit = share * max(1.0, float(expected.detach().abs().max()))
        assert error <= limit, f"{what}: off by {error:.3g}, allowed are {limit:.3g}"


def random_features(stage: nn.Stage, channels: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal values [rows, channels]; the same numbers in every dtype."""
    values = torch.randn(stage.rows, channels, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype)


class Block(torch.nn.Sequential):
    def __init__(self, inside: int, outside: int, kernel=3) -> None:
        super().__init__(
            nn.APRConv(inside, outside, kernel, filter_banks=2, bias=False), nn.GroupNorm(2, outside), nn.ReLU()
        )


class UNet(torch.nn.Module):
    """A U-Net of two poolings and 4, 8, 16 channels."""

    def __init__(self, kernel=3) -> None:
        super().__init__()
        self.down = torch.nn.ModuleList([Block(1, 4, kernel), Block(4, 8, kernel), Block(8, 16, kernel)])
        self.up = torch.nn.ModuleList([Block(24, 8, kernel), Block(12, 4, kernel)])
        self.head = nn.APRConv(4, 2, 1)
        self.pool, self.upsample = nn.APRMaxPool(), nn.APRUpsample()

    def forward(self, x: nn.ParticleTensor) -> nn.ParticleTensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = block(nn.concatenate([skip, self.upsample(x)]))
        return self.head(x)


def gradients(net: torch.nn.Module, x: torch.Tensor, stage: nn.Stage, seed: int = 1) -> list[torch.Tensor]:
    """Output, gradient of the input and of every parameter, for a random gradient of the output."""
    x = x.detach().clone().requires_grad_()
    net.zero_grad()
    out = net(nn.ParticleTensor(x, stage))
    out = out.features if isinstance(out, nn.ParticleTensor) else out
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(out.dtype))
    return [out.detach(), x.grad, *(p.grad.clone() for p in net.parameters())]
