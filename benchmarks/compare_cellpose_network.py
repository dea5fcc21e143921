"""Check that our ``cellpose`` network is the one of the cellpose 3.1.1 package, bit for bit.

Run with a Python that has cellpose 3.1.1 (`benchmarks/peer_environment.sh` makes one)::

    python benchmarks/compare_cellpose_network.py --peer PEER/bin/python

The peer makes networks with random weights, writes them as it writes its own models, and runs them on random images;
we load the files as a user would and run the same images, in float32 on the CPU. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

CASES = ((0, 17.0, (1, 64, 64)), (1, 30.0, (2, 96, 160)), (2, 30.0, (1, 224, 224)))
"""Seed, diam_mean and the images' shape (N, H, W)."""


def run_peer(folder: Path) -> None:
    """Inside the peer's environment: write a model, its input and its output for each case."""
    from importlib.metadata import version

    from cellpose.resnet_torch import CPnet

    torch.set_num_threads(1)
    for seed, diameter, (n, height, width) in CASES:
        torch.manual_seed(seed)
        network = CPnet([2, 32, 64, 128, 256], 3, 3, diam_mean=diameter)
        network.diam_labels.data.fill_(diameter + 1.5)
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                for values in (layer.weight, layer.running_var):
                    torch.nn.init.uniform_(values, 0.5, 1.5)
                for values in (layer.bias, layer.running_mean):
                    torch.nn.init.normal_(values, std=0.3)
        network.eval().save_model(str(folder / f"case{seed}"))
        x = torch.randn(n, 2, height, width)
        with torch.no_grad():
            y, style, _ = network(x)
        np.savez(folder / f"case{seed}.npz", x=x.numpy(), y=y.numpy(), style=style.numpy())
    versions = {"cellpose": version("cellpose"), "torch": torch.__version__}
    (folder / "versions.json").write_text(json.dumps(versions))


def _row(folder: Path, seed: int, diameter: float) -> tuple:
    from napari_aprcnn.models.family import CellposeFamily
    from napari_aprcnn.models.optimise import for_inference
    from napari_aprcnn.models.zoo import load_model

    loaded = load_model(folder / f"case{seed}", device="cpu", threads=1)
    data = np.load(folder / f"case{seed}.npz")
    x = torch.from_numpy(data["x"])
    torch.set_num_threads(1)
    with torch.no_grad():
        y, style = loaded.module(x)
    bands, _ = for_inference(loaded.module)(x)
    missing, unexpected = CellposeFamily("dilated").load_state_dict(loaded.module.state_dict(), strict=False)
    scalars = (float(loaded.module.diam_mean.detach()), float(loaded.module.diam_labels.detach()))
    return (
        f"seed {seed}, {' x '.join(str(edge) for edge in data['x'].shape)}",
        np.array_equal(y.numpy(), data["y"]),
        np.array_equal(style.numpy(), data["style"]),
        float(np.abs(y.numpy() - data["y"]).max()),
        f"{np.abs(bands.numpy() - data['y']).max() / data['y'].std():.0e}",
        loaded.card.architecture == "cellpose" and scalars == (diameter, diameter + 1.5),
        f"{len(missing)} missing, {len(unexpected)} unexpected",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="Python of an environment with cellpose 3.1.1")
    parser.add_argument("--as-peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_peer is not None:
        run_peer(options.as_peer)
        return 0
    if options.peer is None or not options.peer.exists():
        parser.error(f"got --peer {options.peer}; give a Python with cellpose 3.1.1 (benchmarks/peer_environment.sh)")
    from napari_aprcnn.bench.table import BenchTable

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([options.peer, __file__, "--as-peer", folder], check=True)
        versions = json.loads((folder / "versions.json").read_text())
        rows = tuple(_row(folder, seed, diameter) for seed, diameter, _ in CASES)
    table = BenchTable(
        title=f"The `cellpose` network beside cellpose {versions['cellpose']}'s CPnet, float32, CPU, 1 thread",
        columns=(
            "case",
            "output bit-equal",
            "style bit-equal",
            "largest difference",
            "in bands, over the spread",
            "strict load, diameters kept",
            "into `dilated`",
        ),
        rows=rows,
        notes=(
            f"torch {torch.__version__} here, {versions['torch']} there; models as the peer's save_model writes them",
        ),
    )
    print(table.text())
    return 0 if all(row[1] and row[2] and row[5] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
