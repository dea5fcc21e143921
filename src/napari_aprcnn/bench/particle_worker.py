"""Measures particle layers in a process of its own: ``python -m napari_aprcnn.bench.particle_worker JSON``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from napari_aprcnn import nn
from napari_aprcnn._kernels.particle_norms import group_norm
from napari_aprcnn._kernels.particle_stages import cell_means, pool, reconstruct, upsample
from napari_aprcnn._kernels.particles import fill_tree
from napari_aprcnn.bench.trees import synthetic_tree

__all__ = ["convolutions", "index_tables", "main", "norms", "passes"]

Record = dict[str, Any]
Interval = Callable[[], Any]


def _best(repeats: int, *works: Interval) -> list[float]:
    """Shortest wall time of each work; they take turns."""
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for i, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


class _Dense:
    """The pixel twin on the whole volume, forward and backward."""

    def __init__(self, channels_in: int, channels_out: int, edge: int) -> None:
        layout = torch.channels_last_3d
        self.layer = torch.nn.Conv3d(channels_in, channels_out, 3, padding=1, bias=False)
        self.layer.to(memory_format=layout)  # type: ignore[call-overload]
        self.x = torch.randn(1, channels_in, edge, edge, edge).to(memory_format=layout)
        self.out: Tensor | None = None

    def forward(self) -> None:
        with torch.no_grad():
            self.layer(self.x)

    def prepare(self) -> None:
        self.x.requires_grad_()
        self.out = self.layer(self.x)
        self.grad = torch.randn_like(self.out)

    def backward(self) -> None:
        if self.out is not None:
            torch.autograd.grad(self.out, (self.x, self.layer.weight), self.grad, retain_graph=True)

    def free(self) -> None:
        self.out = None
        self.x.requires_grad_(False)


def convolutions(
    channels_in: int, channels_out: int, *, edge: int, dense_edge: int, prr: list[float], repeats: int
) -> list[Record]:
    """Times of a 3x3x3 convolution at several PRR, its pixel twin beside each; seconds a pass over edge^3 voxels."""
    records = []
    dense = _Dense(channels_in, channels_out, dense_edge)
    scale = (edge / dense_edge) ** 3
    for wanted in prr:
        tree = synthetic_tree(edge, wanted)
        stage = nn.Forest(tree).stage(0)
        layer = nn.APRConv(channels_in, channels_out, 3, filter_banks=3, bias=False)
        x = nn.ParticleTensor(torch.randn(len(tree), channels_in), stage)

        def forward(layer: nn.APRConv = layer, x: nn.ParticleTensor = x) -> None:
            with torch.no_grad():
                layer(x)

        rounded = x.to(torch.bfloat16)

        def half(layer: nn.APRConv = layer, x: nn.ParticleTensor = rounded) -> None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                layer(x)

        forward()  # the tables are built once
        half()
        times = _best(repeats, dense.forward, forward, half)
        features = x.features.requires_grad_()
        out = layer(x.with_features(features)).features
        grad = torch.randn_like(out)
        dense.prepare()

        def backward(
            layer: nn.APRConv = layer, features: Tensor = features, out: Tensor = out, grad: Tensor = grad
        ) -> None:
            torch.autograd.grad(out, (features, layer.weight), grad, retain_graph=True)

        def learn(layer: nn.APRConv = layer, x: nn.ParticleTensor = x, features: Tensor = features) -> None:
            layer(x.with_features(features))  # with a gradient to come: no minimal filtering

        times += _best(repeats, dense.backward, backward, learn)
        dense.free()
        records.append(
            {
                "prr": tree.prr,
                "particles": len(tree),
                "dense_forward_s": times[0] * scale,
                "forward_s": times[1],
                "bfloat16_s": times[2],
                "dense_backward_s": times[3] * scale,
                "backward_s": times[4],
                "learning_s": times[5],
            }
        )
    return records


def index_tables(*, edge: int, prr: float, repeats: int) -> list[Record]:
    """Time and memory of tables of a 3x3x3 kernel: neighbours for trainings, what lies around blocks for inference."""
    tree = synthetic_tree(edge, prr)
    stage = nn.Forest(tree).stage(0)
    kinds: list[tuple[str, Callable[[], Tensor]]] = [
        ("neighbours", lambda: stage.neighbours((3, 3, 3))),
        ("around blocks, with children", stage.around),
    ]
    found = []
    for name, make in kinds:

        def build(make: Callable[[], Tensor] = make) -> None:
            stage.release()
            make()

        (seconds,) = _best(repeats, build)
        found.append({"table": name, "particles": len(tree), "seconds": seconds, "bytes": stage.table_bytes})
    return found


def passes(*, edge: int, prr: float, channels: int, repeats: int) -> list[Record]:
    """Times of the layers that move bytes, beside a plain copy of the bytes that they touch."""
    tree = synthetic_tree(edge, prr)
    stage = nn.Forest(tree).stage(0)
    coarse = stage.coarser()
    children, ranges, cells = stage.children(), stage.node_ranges(), stage.cells()
    pooled, pool_ranges = stage.pool_children(), stage.pool_ranges()
    shape = list(stage.grid_shape(0))
    x = torch.randn(stage.rows, channels, requires_grad=True)
    y = torch.randn(coarse.rows, channels, requires_grad=True)
    dense = torch.randn(*shape, channels, requires_grad=True)
    row, fine, nodes = 4 * channels, stage.rows, stage.tree_rows
    works: list[tuple[str, Callable[[], Tensor], Tensor, int]] = [
        ("tree of means", lambda: fill_tree(x, children, ranges), x, (fine + 2 * nodes) * row + 32 * nodes),
        (
            "max pool",
            lambda: pool(x, pooled, pool_ranges, coarse.rows)[0],
            x,
            (fine + coarse.rows) * row + pooled.numel() * 4 + pooled.shape[0] * channels,
        ),
        (
            "upsample",
            lambda: upsample(y, pooled, pool_ranges, fine),
            y,
            (fine + coarse.rows) * row + pooled.numel() * 4,
        ),
        ("reconstruct", lambda: reconstruct(x, cells, shape), x, fine * (row + 16) + dense.numel() * 4),
        ("sample", lambda: cell_means(dense, cells), dense, fine * (row + 16) + dense.numel() * 4),
        (
            "group norm, ReLU",
            lambda: group_norm(x, stage.item_starts(), channels, None, None, 1e-5, True)[0],
            x,
            3 * fine * row,
        ),
    ]
    records = []
    for name, work, leaf, size in works:
        source = torch.randn(size // 8)
        target = torch.empty_like(source)

        def forward(work: Callable[[], Tensor] = work) -> None:
            with torch.no_grad():
                work()

        out = work()
        grad = torch.randn_like(out)

        def backward(out: Tensor = out, leaf: Tensor = leaf, grad: Tensor = grad) -> None:
            torch.autograd.grad(out, leaf, grad, retain_graph=True)

        def copy(target: Tensor = target, source: Tensor = source) -> None:
            target.copy_(source)

        times = _best(repeats, copy, forward, backward)
        names = ("copy_s", "forward_s", "backward_s")
        records.append({"layer": name, "bytes": size, **dict(zip(names, times, strict=True))})
    return records


def norms(*, edge: int, channels: int, repeats: int) -> Record:
    """Times of a group norm with ReLU over edge^3 rows, torch's on an image of as many voxels beside it."""
    rows, groups = edge**3, max(1, channels // 8)
    x = torch.randn(rows, channels, requires_grad=True)
    image = x.detach().view(1, edge, edge, edge, channels).permute(0, 4, 1, 2, 3).requires_grad_()  # channels last
    weight, bias = (torch.ones(channels, requires_grad=True) for _ in range(2))
    starts, target = torch.tensor([0, rows]), torch.empty(rows, channels)
    grad = torch.randn(rows, channels)

    def particles() -> Tensor:
        out: Tensor = group_norm(x, starts, groups, weight, bias, 1e-5, True)[0]
        return out

    def twin() -> Tensor:
        return torch.nn.functional.group_norm(image, groups, weight, bias).relu()

    def copies() -> None:
        target.copy_(x.detach())
        target.copy_(grad)

    with torch.no_grad():
        forward = _best(repeats, copies, twin, particles)
    own, other, layout = particles(), twin(), grad.view(1, edge, edge, edge, channels).permute(0, 4, 1, 2, 3)

    def backward() -> None:
        torch.autograd.grad(own, (x, weight, bias), grad, retain_graph=True)

    def backward_twin() -> None:
        torch.autograd.grad(other, (image, weight, bias), layout, retain_graph=True)

    names = ("copies_s", "dense_forward_s", "forward_s", "dense_backward_s", "backward_s")
    times = [*forward, *_best(repeats, backward_twin, backward)]
    return {"channels": channels, "rows": rows, **dict(zip(names, times, strict=True))}


def main(order: Record) -> Any:
    """Do what the order says and give its records."""
    torch.set_num_threads(order.pop("threads"))
    works: dict[str, Callable[..., Any]] = {
        "convolutions": convolutions,
        "index_tables": index_tables,
        "norms": norms,
        "passes": passes,
    }
    return works[order.pop("what")](**order)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))) + "\n")
