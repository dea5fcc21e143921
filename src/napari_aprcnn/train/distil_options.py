"""What `aprcnn distil` and `aprcnn cross-validate` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["PATCHES", "Data", "Kinds", "Output", "Student", "Teacher", "Views"]

PATCHES = "patches"
"""Folder of what the teacher said, in that of the results."""

Teacher = Annotated[str, typer.Argument(help="Model or weights file; an official Cellpose checkpoint serves, too.")]
Student = Annotated[str, typer.Argument(help="Network of the family; `aprcnn models --table`.")]
Data = Annotated[list[str], typer.Argument(help="Zips or folders of images; labels are not needed.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Folder of results, checkpoints and patches.")]
Views = Annotated[int, typer.Option(help="Patches of each image.")]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Only images of such a kind (20x). Repeatable.")]
