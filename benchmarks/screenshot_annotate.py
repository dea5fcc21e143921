"""Take the picture of the Annotate dock: the real window, a simulated organoid, slices annotated as a user would.

xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/screenshot_annotate.py docs/images/annotate.png
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
    """Take one picture; return 1 if nothing was saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--mode", default="points", choices=["points", "labels"])
    parser.add_argument("--setup", action="store_true", help="before slices are chosen")
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    parser.add_argument("--size", default="1440x900", help="of the window, in pixels")
    options = parser.parse_args()

    import napari
    from qtpy.QtWidgets import QApplication

    from napari_aprcnn._napari.annotate_dock import AnnotateDock
    from napari_aprcnn._napari.annotate_settings import AnnotateSettings, save_annotate_settings

    def turn(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    with tempfile.TemporaryDirectory() as folder:
        save_annotate_settings(
            AnnotateSettings(annotator="MK", folder=str(Path(folder) / "annotations"), n_slices=12, mode=options.mode)
        )
        viewer = napari.Viewer(show_welcome_screen=False)
        viewer.theme = options.theme
        viewer.window._qt_window.resize(*(int(edge) for edge in options.size.split("x")))
        viewer.open_sample("napari-aprcnn", "simulated-compact-3d")
        truth = next(layer for layer in viewer.layers if isinstance(layer, napari.layers.Labels))
        dock = AnnotateDock(viewer)
        viewer.window.add_dock_widget(dock, name="Annotate", area="right")
        turn(3)
        truth.visible = False
        dock.model.choose_guide(truth)
        done = 1
        if not options.setup:
            dock.setup.begin.click()
            turn(1)
            # The labels of the simulation stand in for whoever annotates.
            for _ in range(5):
                dock.work.take.click()
                turn(0.6)
                dock.work.done.click()
                turn(0.4)
            dock.work.take.click()
            turn(1)
            done = dock.model.session.n_done
        options.output.parent.mkdir(parents=True, exist_ok=True)
        picture = viewer.window.screenshot(str(options.output), flash=False)
        print(f"{options.output}: {picture.shape[1]} x {picture.shape[0]}, {dock.model.progress_words}")
        dock.model.close()
        turn(1)
        viewer.close()
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
