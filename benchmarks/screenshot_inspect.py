"""Take the picture of the Inspect dock: the real window, a real sample, coloured labels, a filter, orthogonal views.

xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/screenshot_inspect.py docs/images/inspect.png
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
    """Take one picture; return 1 if the labels were not measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--sample", default="ovule-3d")
    parser.add_argument("--size", default="1440x900", help="of the window, in pixels")
    parser.add_argument("--theme", default="dark")
    options = parser.parse_args()

    import napari
    import tifffile
    from qtpy.QtWidgets import QApplication

    from napari_aprcnn._napari.inspect_dock import InspectDock
    from napari_aprcnn.io.samples import sample_labels_path

    def turn(seconds: float, until: object = None) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (callable(until) and until()):
            QApplication.processEvents()
            time.sleep(0.01)

    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.theme = options.theme
    viewer.window._qt_window.resize(*(int(edge) for edge in options.size.split("x")))
    viewer.open_sample("napari-aprcnn", options.sample)
    image = viewer.layers[0]
    objects = tifffile.imread(sample_labels_path(options.sample))
    place = {"scale": image.scale, "units": image.units, "axis_labels": image.axis_labels}
    viewer.add_labels(objects, name=f"{image.name} nuclei", opacity=0.6, **place)
    dock = InspectDock(viewer)
    viewer.window.add_dock_widget(dock, name="Inspect", area="right")
    turn(40, lambda: dock.model.sheet.table is not None and not dock.model.pending)
    model = dock.model
    measured = model.sheet.table is not None and len(model.sheet.table) > 0
    dock.planes.click()
    dock.filter.setText("volume_um3 > 1 and sphericity > 0.6")
    dock.table.horizontalHeader().setSortIndicator(
        1, dock.table.horizontalHeader().sortIndicatorOrder().DescendingOrder
    )
    turn(1)
    dock.colours.setChecked(True)
    turn(20, lambda: model.painter.colouring is not None)
    row = int(model.sheet.rows[min(4, len(model.sheet.rows) - 1)])
    model.sheet.select_rows([row])
    model.go_to(model.sheet.key(row))
    voxel = [float(model.sheet.table[f"centroid_{axis}_px"][row]) for axis in "zyx"]
    if dock.ortho is not None:
        dock.ortho.model.move({axis: int(value) for axis, value in enumerate(voxel)})
    model.edit("smooth", radius_voxels=1.0)
    turn(20, lambda: not model.pending)
    viewer.reset_view()
    viewer.layers.selection.active = viewer.layers[-1]
    turn(2)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    picture = viewer.window.screenshot(str(options.output), flash=False)
    print(f"{options.output}: {picture.shape[1]} x {picture.shape[0]}, {model.words}")
    model.close()
    viewer.close()
    return 0 if measured else 1


if __name__ == "__main__":
    sys.exit(main())
