"""Errors as one line and an exit code, cancel by Ctrl-C, and the progress bar."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from napari_aprcnn.segment.progress import Progress

__all__ = ["CANCELLED", "Interrupt", "complain", "exit_code", "guarded", "progress_bar", "say"]

CANCELLED = 130
PIPE_CLOSED = 141
_BUG = 70


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error.

    Examples
    --------
    >>> from napari_aprcnn.errors import ConfigError, StageError, TrainingError
    >>> [exit_code(kind("")) for kind in (ConfigError, StageError, TrainingError, KeyboardInterrupt)]
    [2, 3, 7, 130]
    """
    from napari_aprcnn import errors

    codes: list[tuple[type[BaseException] | tuple[type[BaseException], ...], int]] = [
        ((errors.CancelledError, KeyboardInterrupt), CANCELLED),
        ((errors.ConfigError, errors.AxesError, errors.DeviceError), 2),
        (
            (
                errors.FileFormatError,
                errors.ImageError,
                errors.ImageDtypeError,
                errors.MissingDependencyError,
                errors.ParticleTreeError,
                errors.ConversionError,
                errors.TrainingDataError,
                errors.StageError,
            ),
            3,
        ),
        ((errors.ModelNotFoundError, errors.WeightsError), 4),
        ((errors.NotEnoughMemoryError, MemoryError), 5),
        (errors.OutputError, 6),
        (errors.TrainingError, 7),
    ]
    return next((code for kinds, code in codes if isinstance(error, kinds)), _BUG)


def say(text: str) -> None:
    """Write a note for people to standard error."""
    typer.echo(text, err=True)


def complain(error: BaseException, *, about: str = "") -> int:
    """Write an error as one line to standard error, and return its exit code."""
    code = exit_code(error)
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        text = "cancelled; nothing half-written was left"
    elif code == _BUG:
        text = f"unexpected {type(error).__name__}: {text}; this is a bug: run again with APRCNN_DEBUG=1 and report it"
    elif isinstance(error, MemoryError) and code == 5 and text == "MemoryError":
        text = "there is not enough memory; lower --memory-gb or --tile, or close other programs"
    prefix = f"{about}: " if about and about not in text else ""
    typer.echo(typer.style("error: ", fg="red") + prefix + text, err=True)
    return code


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get("APRCNN_DEBUG", "") not in ("", "0")


@contextmanager
def guarded() -> Iterator[None]:
    """Turn errors of a command into a line on standard error and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort, SystemExit):
        raise
    except BrokenPipeError:
        # Whoever read our output (`| head`) has seen enough: no error, and none from the flush at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
    except (Exception, KeyboardInterrupt) as error:
        if debugging():
            raise
        raise typer.Exit(complain(error)) from None


class Interrupt:
    """Ctrl-C as a wish to stop: the first is polite, the second immediate.

    Examples
    --------
    >>> with Interrupt() as interrupt:
    ...     interrupt.wanted()
    False
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._old: dict[int, Any] = {}

    def wanted(self) -> bool:
        """Whether to stop; goes to ``should_cancel``."""
        return self._event.is_set()

    def __enter__(self) -> Interrupt:
        # Signals belong to the main thread; elsewhere (tests, servers) there is nothing to catch.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._event.is_set():
            raise KeyboardInterrupt
        self._event.set()
        say("cancelling; press Ctrl-C again to stop at once")


@contextmanager
def progress_bar(title: str, *, shown: bool) -> Iterator[Callable[[Progress], None]]:
    """Show progress on standard error, if that is a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[message]}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0, message="")

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.fraction, message=f"{progress.stage}: {progress.message}")

        yield show
