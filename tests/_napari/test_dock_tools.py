"""Threads of the docks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("PyQt6", reason="there is no Qt binding")

SCRIPT = """
import sys, time
from qtpy.QtWidgets import QApplication
from qtpy.QtCore import QThreadPool
app = QApplication([])
from napari_aprcnn._napari.dock_tools import in_worker
ended = []
def work():
    time.sleep(0.4)
    ended.append(True)
in_worker(work, "a long job")
time.sleep(0.1)
from PyQt6 import sip
import superqt.utils._qthreading as threads
for worker in list(threads.WorkerBase._worker_set):
    sip.delete(worker.signals)
QThreadPool.globalInstance().waitForDone(5000)
sys.stdout.write(f"ended {ended}")
sys.stdout.flush()
"""


def test_a_job_may_outlive_the_application():
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "QT_API": "pyqt6"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ended [True]" in done.stdout
