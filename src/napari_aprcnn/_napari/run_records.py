"""What docks tell each other about runs: a run was noted or scored, the machine was measured."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_aprcnn.errors import OutputError

if TYPE_CHECKING:
    from napari_aprcnn.segment.readout import Readout

__all__ = ["RunEvents", "events", "note_run", "note_score"]

logger = logging.getLogger(__name__)


class RunEvents:
    """Signals of all docks; listeners are held weakly.

    Attributes
    ----------
    noted : Signal()
        The log of the runs has changed.
    calibrated : Signal()
        Estimates follow other speeds from now on.
    """

    noted = Signal()
    calibrated = Signal()


events = RunEvents()


def note_run(readout: Readout, image: str) -> str:
    """Keep a run for the comparison; its key, empty where it could not be kept."""
    from napari_aprcnn.bench.run_log import RunLog, RunRecord

    record = RunRecord(image=image, readout=readout)
    kept = RunLog().add(record)
    events.noted.emit()
    return record.key if kept else ""


def note_score(key: str, f1: float, *, threshold: float) -> None:
    """Note the F1 of the labels of a run; without such a run nothing happens."""
    from napari_aprcnn.bench.run_log import RunLog

    try:
        found = bool(key) and RunLog().note_score(key, f1, threshold=threshold)
    except OutputError as error:
        logger.warning("the score cannot be noted: %s", error)
        return
    if found:
        events.noted.emit()
