"""A training on volumes as a process of its own: JSON lines on standard output, "stop" on standard input.

``python -m napari_aprcnn.train.child RUN`` repeats the training whose ``request.json`` lies in the folder RUN, or goes
on with it. Each line of standard output is an object with a ``kind``:

``start``
    ``history``: the reports of the epochs that are done.
``form``
    ``form``: that of the network, where it was to be chosen here.
``step``, ``epoch``
    The fields of `StepReport` and `EpochReport`.
``done``
    ``weights``: the file that was written.
``cancelled``
    ``message``.
``error``
    ``type``, ``message``, ``traceback``.

What other libraries print goes to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from napari_aprcnn.errors import CancelledError
from napari_aprcnn.train.extras import need_extras
from napari_aprcnn.train.reports import EpochReport
from napari_aprcnn.train.signals import stop_on_signals
from napari_aprcnn.train.volume_request import TrainRequest, find_checkpoint, read_request

__all__ = ["HISTORY", "main", "run_request"]

HISTORY = "epochs.jsonl"
CANCELLED, FAILED = 130, 1
# A step, or a volume that is being simulated, may take long: nobody waits for it once the parent is gone. Nothing is
# lost by that: every file is written beside its place and renamed.
_GRACE_S = 20.0

Tell = Callable[[dict[str, Any]], None]


def run_request(request: TrainRequest, tell: Tell, should_cancel: Callable[[], bool]) -> None:
    """Run a training, or go on with it, and tell of it.

    Parameters
    ----------
    request
        What to train.
    tell
        Takes the messages that the module describes, but ``cancelled`` and ``error``, which are raised.
    should_cancel
        Asked after every step.

    Raises
    ------
    AprcnnError
        As `train_volumes`.
    """
    need_extras()
    request.run_dir.mkdir(parents=True, exist_ok=True)
    history = request.run_dir / HISTORY
    found = find_checkpoint(request.run_dir)
    done = _read_history(history) if found is not None else []
    history.write_text("".join(f"{json.dumps(line)}\n" for line in done), encoding="utf-8")
    tell({"kind": "start", "history": done})
    from napari_aprcnn.train.volume_command import fastest_form, train_volumes

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    def epoch_done(report: EpochReport) -> None:
        line = asdict(report)
        with history.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")
        tell({"kind": "epoch", **line})

    config = request.config
    if request.auto_form:
        config = found.with_form(config) if found else fastest_form(config, request.labelled)
        tell({"kind": "form", "form": config.network.form})
    path = train_volumes(
        output=request.output,
        name=request.name,
        config=config,
        labelled=request.labelled,
        validation=request.validation,
        initial=request.initial,
        data_words=request.data_words,
        command=f"python -m napari_aprcnn.train.child {request.run_dir.name}",
        threads=request.threads,
        accelerator=request.accelerator,
        progress=epoch_done,
        on_step=lambda report: tell({"kind": "step", **asdict(report)}),
        should_cancel=should_cancel,
    )
    tell({"kind": "done", "weights": str(path)})


def _read_history(path: Path) -> list[dict[str, Any]]:
    """Read the reports of the epochs that are done; a line that was cut by a crash ends them."""
    found: list[dict[str, Any]] = []
    with suppress(OSError, ValueError, TypeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            report = EpochReport(**json.loads(line))
            found.append(asdict(report))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the request of the command line; returns the exit code: 0, 130 cancelled, 1 failed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    watched = "--watch" in arguments
    paths = [word for word in arguments if word != "--watch"]
    lines = _own_standard_output()
    lock = threading.Lock()

    def tell(message: dict[str, Any]) -> None:
        with lock:
            lines.write(json.dumps(message) + "\n")
            lines.flush()

    _step_back()
    with stop_on_signals() as stop:
        if watched:
            threading.Thread(target=_listen, args=(stop,), daemon=True).start()
        try:
            if len(paths) != 1:
                raise ValueError(f"got {len(paths)} arguments, expected the folder of a run")
            run_request(read_request(Path(paths[0])), tell, stop.is_set)
        except BrokenPipeError:  # the parent is gone: there is nobody to tell
            return CANCELLED
        except (CancelledError, KeyboardInterrupt) as error:
            with suppress(BrokenPipeError):
                tell({"kind": "cancelled", "message": str(error)})
            return CANCELLED
        except Exception as error:  # noqa: BLE001 - told to the parent, whatever it is
            words = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
            with suppress(BrokenPipeError):
                tell({"kind": "error", **words})
            return FAILED
    return 0


def _own_standard_output() -> IO[str]:
    """Keep standard output for messages: what libraries print goes to standard error from now on."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w", encoding="utf-8")


def _step_back() -> None:
    """Leave the processor to the program that somebody looks at."""
    with suppress(OSError, AttributeError):
        if hasattr(os, "nice"):
            os.nice(5)
        else:
            import psutil

            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)  # type: ignore[attr-defined,unused-ignore]


def _listen(stop: threading.Event) -> None:
    """Stop when the parent says so, or is gone."""
    said = b""
    with suppress(OSError):
        # Not by sys.stdin: Python cannot end while a thread waits in its buffer.
        while b"stop" not in said and (part := os.read(0, 64)):
            said = (said + part)[-64:]
    stop.set()
    threading.Event().wait(_GRACE_S)
    os._exit(CANCELLED)


if __name__ == "__main__":
    sys.exit(main())
