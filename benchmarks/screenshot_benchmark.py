"""Take the picture of the Benchmark dock: the real window, after real runs of several models on a sample.

xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/screenshot_benchmark.py docs/images/benchmark.png
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_API", "pyqt6")
os.environ.setdefault("APRCNN_CONFIG_DIR", tempfile.mkdtemp(prefix="aprcnn-screenshot-"))
MODELS = ("fastcellpose", "fastercellpose-v1", "fastercellpose-v2", "fastercellpose-v3")


def main() -> int:
    """Take one picture; return 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", default="1440x900", help="of the window, in pixels")
    parser.add_argument("--theme", default="dark")
    options = parser.parse_args()

    import napari
    from napari.settings import get_settings
    from qtpy.QtWidgets import QApplication

    def turn(seconds: float, until: object = None) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (callable(until) and until()):
            QApplication.processEvents()
            time.sleep(0.01)

    get_settings().appearance.theme = options.theme
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window._qt_window.resize(*(int(edge) for edge in options.size.split("x")))
    viewer.open_sample("napari-aprcnn", "u2os")
    holder, segment = viewer.window.add_plugin_dock_widget("napari-aprcnn", "Segment nuclei")
    turn(5, lambda: segment.model.machine is not None)
    for name in MODELS:
        segment.model.set("model", value=name)
        for _ in range(2):  # the first loads the network
            segment.model.segment()
            turn(1)
            turn(60, lambda: segment.model.state == "ready")
    viewer.window.remove_dock_widget(holder)
    _, dock = viewer.window.add_plugin_dock_widget("napari-aprcnn", "Benchmark")
    first = [record.key for record in dock.model.records[1::2]]
    dock.model.select(first)
    dock.model.remove_selected()
    turn(0.5)
    dock.measure.click()
    turn(300, lambda: dock.model.state == "ready")
    turn(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    picture = viewer.window.screenshot(str(options.output), flash=False)
    n_runs = len(dock.model.records)
    print(f"{options.output}: {picture.shape[1]} x {picture.shape[0]}, {n_runs} runs")
    viewer.close()
    return 0 if n_runs == len(MODELS) else 1


if __name__ == "__main__":
    sys.exit(main())
