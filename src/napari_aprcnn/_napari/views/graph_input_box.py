"""Which labels, which edges."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QFormLayout, QWidget

from napari_aprcnn._napari.graph_model import GraphModel
from napari_aprcnn._napari.views.inputs import ChoiceBox, NumberBox, WordsLabel

__all__ = ["GraphInputBox"]

_KINDS = [
    ("touching", "touching"),
    ("within a radius", "distance"),
    ("Delaunay", "delaunay"),
    ("k nearest", "knn"),
]
_NO_IMAGE = "none: no intensities"


class GraphInputBox(QWidget):
    """The inputs of a graph; only those that its kind of edges needs are shown.

    Parameters
    ----------
    model
        What it shows and changes.
    """

    def __init__(self, model: GraphModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setVerticalSpacing(5)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self.labels, self.image, self.kind = ChoiceBox(), ChoiceBox(), ChoiceBox()
        self.words = WordsLabel(small=True)
        self.gap = NumberBox(0.0, 1e6, step=0.5)
        self.radius = NumberBox(0.0, 1e6, auto="auto", step=1.0)
        self.k = NumberBox(1, 1000, integer=True)
        self.surfaces = QCheckBox("gap along every edge")
        self._explain()
        rows = (
            ("Labels", self.labels),
            ("", self.words),
            ("Image", self.image),
            ("Neighbours", self.kind),
            ("Gap up to", self.gap),
            ("Radius", self.radius),
            ("Nearest", self.k),
            ("Measure", self.surfaces),
        )
        for name, widget in rows:
            self._form.addRow(*((name, widget) if name else (widget,)))
        self.labels.activated.connect(lambda _: model.choice.select_labels(self.labels.currentData()))
        self.image.activated.connect(lambda _: model.choice.select_image(self.image.currentData()))
        self.kind.activated.connect(lambda _: model.set_option(edges=self.kind.currentData()))
        self.gap.valueChanged.connect(lambda _: model.set_option(gap=self.gap.number()))
        self.radius.valueChanged.connect(lambda _: model.set_option(radius=self.radius.number()))
        self.k.valueChanged.connect(lambda _: model.set_option(k=self.k.number()))
        self.surfaces.toggled.connect(lambda on: model.set_option(surface_distance=on))
        self.refresh("layers")
        self.refresh("parameters")

    def _explain(self) -> None:
        self.labels.setToolTip("The nuclei: a labels layer (Z, Y, X or Y, X); of a time series the shown time point.")
        self.image.setToolTip("An image of the same shape: mean and standard deviation of each nucleus are measured.")
        self.kind.setToolTip(
            "Which nuclei are joined by an edge.\n"
            "touching: their surfaces touch, or are nearer than the gap\n"
            "within a radius: their centroids are nearer than the radius\n"
            "Delaunay: their centroids are neighbours in the Delaunay triangulation, and nearer than the radius\n"
            "k nearest: one is among the k nearest of the other"
        )
        self.gap.setToolTip(
            "Largest distance of two surfaces that count as touching (typically 0 to 3 µm).\n"
            "0: voxels have a side, an edge or a corner in common."
        )
        self.radius.setToolTip(
            "Longest edge, between centroids (typically 1.5 to 4 diameters of a nucleus).\n"
            "auto: 2 median diameters within a radius, 3 for Delaunay, no limit for k nearest. Type 0 for auto."
        )
        self.k.setToolTip("How many nearest nuclei each nucleus is joined with (typically 4 to 12).")
        self.surfaces.setToolTip(
            "Measure the distance of the two surfaces along every edge.\n"
            "With thousands of nuclei that do not touch it takes longer than all the rest."
        )
        for widget, name in (
            (self.labels, "labels layer"), (self.image, "image layer"), (self.kind, "kind of edges"),
            (self.gap, "gap"), (self.radius, "radius"), (self.k, "nearest"), (self.surfaces, "measure gaps"),
        ):  # fmt: skip
            widget.setAccessibleName(name)

    def refresh(self, what: str) -> None:
        """Show what the model says now."""
        choice, settings = self._model.choice, self._model.settings
        if what == "layers":
            self.labels.show_items([(layer.name, layer) for layer in choice.labels_layers], choice.labels)
            self.labels.setEnabled(bool(choice.labels_layers))
            self.labels.setPlaceholderText("no labels layer")
            images = [(layer.name, layer) for layer in choice.image_layers]
            self.image.show_items([(_NO_IMAGE, None), *images], choice.image)
            self.image.setEnabled(bool(images))
            self.words.setText(choice.words)
            for box in (self.gap, self.radius):
                box.setSuffix(f" {choice.unit}")
        elif what == "parameters":
            self.kind.show_items(list(_KINDS), settings.edges)
            self.gap.show_number(settings.gap)
            self.radius.show_number(settings.radius)
            self.k.show_number(settings.k)
            blocked = self.surfaces.blockSignals(True)
            self.surfaces.setChecked(settings.surface_distance)
            self.surfaces.blockSignals(blocked)
            for widget, shown in (
                (self.gap, settings.edges == "touching"),
                (self.radius, settings.edges != "touching"),
                (self.k, settings.edges == "knn"),
                (self.surfaces, settings.edges != "touching"),
            ):
                self._form.setRowVisible(widget, shown)
