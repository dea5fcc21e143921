"""Take the picture of the Evaluate dock: the real window, a real segmentation of a sample against its labels.

xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/screenshot_evaluate.py docs/images/evaluate.png
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


def main() -> int:
    """Take one picture; return 1 if nothing was evaluated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--sample", default="culture")
    parser.add_argument("--size", default="1440x960", help="of the window, in pixels")
    parser.add_argument("--theme", default="dark")
    parser.add_argument("--models", nargs=2, default=["fastercellpose-v3", "fastercellpose-v1"])
    options = parser.parse_args()

    import napari
    import numpy as np
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    from napari_aprcnn import segment
    from napari_aprcnn._napari.evaluate_dock import EvaluateDock
    from napari_aprcnn.io.read import open_image
    from napari_aprcnn.io.samples import sample_labels_path, sample_path

    def turn(seconds: float, until: object = None) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (callable(until) and until()):
            QApplication.processEvents()
            time.sleep(0.01)

    source = open_image(sample_path(options.sample))
    truth = np.asarray(open_image(sample_labels_path(options.sample)).data)
    image = np.asarray(source.data)
    found, other = (
        segment(image, model=model, spacing_um=source.spacing_um, keep_flows=False).labels for model in options.models
    )

    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.theme = options.theme
    viewer.window._qt_window.resize(*(int(edge) for edge in options.size.split("x")))
    scale = source.spacing_um[-image.ndim :] if source.spacing_um else None
    viewer.add_image(image, name=options.sample, scale=scale)
    viewer.add_labels(truth, name=f"{options.sample} truth", scale=scale, visible=False)
    viewer.add_labels(other, name=options.models[1], scale=scale, visible=False)
    viewer.add_labels(found, name=options.models[0], scale=scale, visible=False)
    dock = EvaluateDock(viewer)
    viewer.window.add_dock_widget(dock, name="Evaluate labels", area="right")
    turn(2)
    dock.choice.predictions.item(1).setCheckState(Qt.CheckState.Checked)
    dock.run.button.click()
    turn(60, lambda: dock.model.state == "ready")
    turn(1)
    rows = dock.errors.rows
    middle = np.array(image.shape) / 2
    row = min(range(len(rows.rows)), key=lambda i: np.abs(rows.rows[i].centroid - middle)[-2:].max(), default=0)
    if rows.rows:  # to the error nearest to the middle of the picture
        dock.errors.table.scrollTo(rows.index(row, 0))
        place = dock.errors.table.visualRect(rows.index(row, 1)).center()
        QTest.mouseClick(dock.errors.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    turn(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    picture = viewer.window.screenshot(str(options.output), flash=False)
    done = dock.model.evaluation is not None
    print(f"{options.output}: {picture.shape[1]} x {picture.shape[0]}; {dock.model.markdown()}")
    dock.model.close()
    turn(0.5)
    viewer.close()
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
