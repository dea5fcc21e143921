"""What `aprcnn distil` and `aprcnn cross-validate` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "PATCHES",
    "Channel",
    "Data",
    "Device",
    "Foreground",
    "Jitter",
    "Kinds",
    "Output",
    "Start",
    "Student",
    "Teacher",
    "Threads",
    "Views",
    "WeightDecay",
    "Workers",
]

PATCHES = "patches"
"""Folder of what the teacher said, in that of the results."""

Teacher = Annotated[str, typer.Argument(help="Model or weights file; an official Cellpose checkpoint serves, too.")]
Student = Annotated[str, typer.Argument(help="Network of the family; `aprcnn models --table`.")]
Data = Annotated[list[str], typer.Argument(help="Zips or folders of images; labels are not needed.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Folder of results, checkpoints and patches.")]
Views = Annotated[int, typer.Option(help="Patches of each image.")]
Jitter = Annotated[float, typer.Option("--scale-jitter", help="Largest deviation from the diameter, octaves.")]
Foreground = Annotated[float, typer.Option(help="Patches with a smaller share of nuclei are left out, 0..1.")]
Kinds = Annotated[
    list[str] | None, typer.Option("--kind", help="Only images of such a kind or objective (20x). Repeatable.")
]
Channel = Annotated[int | None, typer.Option(help="Of images with several channels, from 0.", min=0)]
WeightDecay = Annotated[float, typer.Option(help="Of AdamW; 0: Adam, as in the thesis.")]
Start = Annotated[str | None, typer.Option("--from", help="Model or weights file to start from.")]
Threads = Annotated[int | None, typer.Option(help="Threads; default: all.", min=1)]
Device = Annotated[str, typer.Option(help="cpu, cuda, auto.")]
Workers = Annotated[int, typer.Option(help="Processes that prepare batches; 0: a thread.", min=0)]
