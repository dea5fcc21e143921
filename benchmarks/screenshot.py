"""Take the pictures of the documentation: the real window, the real dock, a real run on a sample image.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/screenshot.py culture docs/images/segment_2d.png
    ... python benchmarks/screenshot.py ovule-3d docs/images/segment_3d.png --ndisplay 3

Run it again after a change of the dock and look at the result. Trial pictures in the light theme (``--theme light``)
and at double scaling (``QT_SCALE_FACTOR=2``) are for looking at, not for the repository.
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
    """Take one picture; return 1 if the run failed or the picture is empty."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sample", help="name of a sample image, or the path of an image file")
    parser.add_argument("output", type=Path)
    parser.add_argument("--ndisplay", type=int, choices=(2, 3), default=2)
    parser.add_argument("--theme", default="dark")
    parser.add_argument("--model", help="name of a model or path of a weights file")
    parser.add_argument("--size", default="1440x900", help="of the window, in pixels")
    parser.add_argument("--unfold", choices=("advanced", "readout"), action="append", default=[])
    parser.add_argument("--at", type=float, help="take the picture at this share of the run, 0..1")
    parser.add_argument("--flows", action="store_true", help="show flows and probability too")
    parser.add_argument("--warm", type=int, default=1, help="runs before the one in the picture")
    parser.add_argument("--wait", type=float, default=600.0, help="seconds that the run may take")
    options = parser.parse_args()

    import napari
    from napari.settings import get_settings
    from napari.utils.notifications import notification_manager
    from qtpy.QtWidgets import QApplication

    def turn(seconds: float, until: object = None) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            if callable(until) and until():
                return True
            time.sleep(0.01)
        return until is None

    get_settings().appearance.theme = options.theme
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window._qt_window.resize(*(int(edge) for edge in options.size.split("x")))
    if Path(options.sample).exists():
        viewer.open(options.sample, plugin="napari-aprcnn")
    else:
        viewer.open_sample("napari-aprcnn", options.sample)
    _, dock = viewer.window.add_plugin_dock_widget("napari-aprcnn", "Segment nuclei")
    if options.model:
        dock.model.set("model", value=options.model)
    dock.model.set_option(show_flows=options.flows, show_probability=options.flows)
    turn(60, lambda: not dock.model.pending)
    for _ in range(options.warm):  # the first run of a session also loads torch and the network
        dock.run.button.click()
        turn(options.wait, lambda: dock.model.state == "ready")
    dock.run.button.click()

    def far_enough() -> bool:
        progress = dock.model.runner.progress
        return dock.model.state == "ready" or (
            options.at is not None and progress is not None and progress.fraction >= options.at
        )

    turn(options.wait, far_enough)
    viewer.dims.ndisplay = options.ndisplay
    if options.ndisplay == 3:
        viewer.layers[-1].opacity = 1.0
        for layer in viewer.layers[:-1]:
            layer.visible = False
        turn(3)
        viewer.scene.camera.angles = (-20, 35, 150)
    viewer.reset_view(reset_camera_angle=False)
    for name in options.unfold:
        getattr(dock, f"{name}_fold").unfold()
    viewer.layers.selection.active = viewer.layers[-1]
    turn(1.5 if options.ndisplay == 2 else 6)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    picture = viewer.window.screenshot(str(options.output), flash=False)
    errors = [str(record.message) for record in notification_manager.records if record.severity == "error"]
    layers = [layer.name for layer in viewer.layers]
    print(f"{options.output}: {picture.shape[1]} x {picture.shape[0]}, layers {layers}, errors {errors}")
    dock.model.close()
    viewer.close()
    return 1 if errors or picture[..., :3].std() < 10 or len(layers) < 2 else 0


if __name__ == "__main__":
    sys.exit(main())
