"""Take the picture of the Training dock: the real window, a real short training on a simulated sample.

xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/screenshot_train.py docs/images/train_dock.png
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
    """Take one picture; return 1 if the training failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--stop-at", type=int, default=10, help="epoch after which the picture is taken")
    parser.add_argument("--size", default="1440x900", help="of the window, in pixels")
    options = parser.parse_args()

    import napari
    from qtpy.QtWidgets import QApplication

    from napari_aprcnn._napari.train_settings import TrainSettings, save_train_settings
    from napari_aprcnn.models.volume_config import VolumeNetConfig
    from napari_aprcnn.train.volume_settings import VolumeTrainConfig

    def turn(seconds: float, until: object = None) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (callable(until) and until()):
            QApplication.processEvents()
            time.sleep(0.01)

    network = VolumeNetConfig(channels=4, head="flows", in_channels=2)
    config = VolumeTrainConfig(
        network=network, epochs=options.epochs, steps_per_epoch=10, crop=(24, 48, 48), simulated=0.0, elastic=0.0
    )
    with tempfile.TemporaryDirectory() as folder:
        save_train_settings(TrainSettings(config=config, start="", folder=folder, name="organoids"))
        viewer = napari.Viewer(show_welcome_screen=False)
        viewer.window._qt_window.resize(*(int(edge) for edge in options.size.split("x")))
        viewer.open_sample("napari-aprcnn", "simulated-compact-3d")
        _, dock = viewer.window.add_plugin_dock_widget("napari-aprcnn", "Train a model")
        turn(5)
        dock.data.add.click()
        turn(2)
        dock.run.button.click()
        turn(600, lambda: len(dock.model.runner.epochs) >= options.stop_at)
        viewer.layers.selection.active = viewer.layers[-1]
        turn(1)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        picture = viewer.window.screenshot(str(options.output), flash=False)
        done = len(dock.model.runner.epochs)
        print(f"{options.output}: {picture.shape[1]} x {picture.shape[0]}, {done} epochs, {dock.model.problem}")
        dock.model.close()
        turn(5)
        viewer.close()
    return 0 if done >= options.stop_at else 1


if __name__ == "__main__":
    sys.exit(main())
