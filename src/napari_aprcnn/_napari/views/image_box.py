"""Image, axes and voxel size: the first lines of the dock."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QPushButton, QWidget

from napari_aprcnn._napari.image_model import ImageModel
from napari_aprcnn._napari.views.inputs import ChoiceBox, NumberBox, WordsLabel

__all__ = ["ImageBox"]


class ImageBox(QWidget):
    """The chosen layer, what its axes mean, and its voxel size.

    Parameters
    ----------
    model
        What it shows and changes.
    form
        The form that the rows are added to.
    """

    def __init__(self, model: ImageModel, form: QFormLayout, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.hide()  # the rows are in the form; this object only looks after them
        self._model = model
        self.layer = ChoiceBox()
        self.layer.setToolTip("The image layer to segment. Multiscale layers are segmented at full resolution.")
        self.layer.setAccessibleName("image layer")
        self.axes = ChoiceBox()
        self.axes.setToolTip(
            "What each axis of the array is: T time, C channel, Z depth, Y rows, X columns.\n"
            "Guessed from the layer's axis labels, else from its shape; the choice is kept with the layer."
        )
        self.axes.setAccessibleName("axes")
        self.channel = ChoiceBox()
        self.channel.setToolTip("The channel that shows the nuclei, counted from 0.")
        self.channel.setAccessibleName("channel")
        self.channel_label = QLabel("channel")
        self.words = WordsLabel()
        self.words.setToolTip("The image as it will be segmented.")
        self.spacing = {letter: NumberBox(1e-6, 1e6, step=0.05).plain() for letter in "zyx"}
        self.spacing_unit = QLabel("µm")
        self.spacing_words = WordsLabel(small=True)
        self.apply = QPushButton("Set on layer")
        self._fill(form)
        self._connect()
        self.refresh("layers")
        self.refresh("image")

    def _fill(self, form: QFormLayout) -> None:
        form.addRow("Image", self.layer)
        form.addRow("Axes", _row((self.axes, 1), (self.channel_label, 0), (self.channel, 1)))
        form.addRow("", self.words)
        cells: list[tuple[QWidget, int]] = []
        self._letters = {}
        for letter, box in self.spacing.items():
            self._letters[letter] = QLabel(letter)
            box.setToolTip(
                f"Edge of a voxel along {letter}, in micrometres (typically 0.05 to 5). Only the ratio of z to y and x "
                "matters to the network:\n3D nuclei are rescaled by it. Read from the layer; what you type is used "
                "for this layer."
            )
            box.setAccessibleName(f"voxel size {letter}")
            cells += [(self._letters[letter], 0), (box, 1)]
        form.addRow("Voxel", _row(*cells, (self.spacing_unit, 0)))
        self.apply.setToolTip("Give the layer this voxel size, so that the viewer shows it in its true shape.")
        self._words_row = _row((self.spacing_words, 1), (self.apply, 0))
        form.addRow("", self._words_row)

    def _connect(self) -> None:
        self.layer.activated.connect(self._choose_layer)
        self.axes.activated.connect(self._choose_axes)
        self.channel.activated.connect(self._choose_axes)
        for box in self.spacing.values():
            box.valueChanged.connect(self._type_spacing)
        self.apply.clicked.connect(self._model.write_spacing_to_layer)

    def _choose_layer(self, _index: int) -> None:
        self._model.select(self.layer.currentData())

    def _choose_axes(self, _index: int) -> None:
        self._model.set_axes(self.axes.currentData(), self.channel.currentData() or 0)

    def _type_spacing(self, _value: float) -> None:
        z, y, x = (box.value() for box in self.spacing.values())
        if self._model.mapping is not None and "Z" not in self._model.mapping.order:
            z = y
        shown = self._model.spacing.um or (1.0, 1.0, 1.0)
        # The boxes show five digits: passing through one of them is no change.
        if any(abs(new - old) > 1e-4 * old for new, old in zip((z, y, x), shown, strict=True)):
            self._model.set_spacing((z, y, x))

    def refresh(self, what: str) -> None:
        """Show what the model says now."""
        if what == "layers":
            self.layer.show_items([(layer.name, layer) for layer in self._model.layers], self._model.layer)
            self.layer.setEnabled(bool(self._model.layers))
        elif what == "image":
            self._show_image()

    def _show_image(self) -> None:
        model, mapping = self._model, self._model.mapping
        self.layer.setCurrentIndex(next((i for i, one in enumerate(model.layers) if one is model.layer), -1))
        self.axes.show_items([(order, order) for order in model.orders], mapping.order if mapping else None)
        self.axes.setEnabled(len(model.orders) > 0)
        channels = model.n_channels
        self.channel.show_items([(str(i), i) for i in range(channels)], mapping.channel if mapping else 0)
        for widget in (self.channel, self.channel_label):
            widget.setVisible(channels > 0)
        self.words.setText(model.shape_words)
        spacing, has_z = model.spacing, mapping is None or "Z" in mapping.order
        for letter, value in zip("zyx", spacing.um or (1.0, 1.0, 1.0), strict=True):
            self.spacing[letter].show_number(value)
            self.spacing[letter].setEnabled(mapping is not None)
        for widget in (self.spacing["z"], self._letters["z"]):
            widget.setVisible(has_z)
        self.spacing_unit.setText("µm" if spacing.um else "px")
        self.spacing_words.setText(spacing.words)
        self.apply.setVisible(spacing.words == "set here")
        self._words_row.setVisible(bool(spacing.words))


def _row(*cells: tuple[QWidget, int]) -> QWidget:
    holder = QWidget()
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for widget, stretch in cells:
        layout.addWidget(widget, stretch, Qt.AlignmentFlag.AlignVCenter)
    return holder
