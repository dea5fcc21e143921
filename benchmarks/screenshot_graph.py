"""Take the picture of the Graph dock: the real window, the graph of a simulated cystic organoid.

xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/screenshot_graph.py docs/images/graph.png
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
    """Take one picture; return 1 if there is no graph."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--sample", default="simulated-cystic-3d")
    parser.add_argument("--edges", default="touching")
    parser.add_argument("--planes", action="store_true", help="in 2D")
    parser.add_argument("--theme", default="dark")
    parser.add_argument("--size", default="1280x800", help="of the window, in pixels")
    options = parser.parse_args()

    import napari
    from qtpy.QtWidgets import QApplication

    from napari_aprcnn._napari.graph_dock import GraphDock

    def turn(seconds: float, until: object = None) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (callable(until) and until()):
            QApplication.processEvents()
            time.sleep(0.01)

    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.theme = options.theme
    viewer.window._qt_window.resize(*(int(edge) for edge in options.size.split("x")))
    viewer.open_sample("napari-aprcnn", options.sample)
    dock = GraphDock(viewer)
    viewer.window.add_dock_widget(dock, name="Graph of nuclei", area="right")
    dock.model.set_option(edges=options.edges, gap=1.0)
    turn(2)
    dock.run.button.click()
    turn(120, lambda: dock.model.built is not None and dock.model.state == "ready")
    turn(1)
    labels = dock.model.choice.labels
    if not options.planes:
        for layer in viewer.layers:
            layer.visible = layer.name.endswith(("graph nodes", "graph edges"))
        viewer.dims.ndisplay = 3
        viewer.camera.angles = (10, 30, 50)
        turn(1)
        viewer.reset_view()
        viewer.camera.zoom *= 1.15
    else:
        labels.visible, labels.opacity = True, 0.4
    if dock.model.nodes is not None:
        viewer.layers.selection.active = dock.model.nodes
        dock.model.nodes.selected_data = {len(dock.model.nodes.data) // 2}
    turn(2)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    picture = viewer.window.screenshot(str(options.output), flash=False)
    print(f"{options.output}: {picture.shape[1]} x {picture.shape[0]}, {dock.model.summary}")
    done = dock.model.built is not None
    dock.model.close()
    turn(1)
    viewer.close()
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
