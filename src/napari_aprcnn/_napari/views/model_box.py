"""The model and the device that really runs it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from qtpy.QtWidgets import QButtonGroup, QFileDialog, QGridLayout, QPushButton, QRadioButton, QWidget

from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn._napari.views.inputs import ChoiceBox, WordsLabel
from napari_aprcnn._napari.volume_model import kind_words
from napari_aprcnn.models.cards import ModelCard

__all__ = ["ModelBox"]


class ModelBox(QWidget):
    """Radio buttons for the kinds of model; what cannot be used says why.

    Parameters
    ----------
    model
        What it shows and changes.
    """

    def __init__(self, model: SegmentModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.apr = QRadioButton(kind_words(None, volumes=True))
        self.apr.setToolTip("Networks for volumes, which work on particles: fine where there is something to see.")
        self.apr_variant = ChoiceBox()
        self.apr_variant.setAccessibleName("variant of the model for volumes")
        self.apr_words = WordsLabel("none is installed", small=True)
        self.zoo = QRadioButton(kind_words(None, volumes=False))
        self.zoo.setToolTip("The fast networks of the Cellpose family for planes; stacks by planes along three axes.")
        self.variant = ChoiceBox()
        self.variant.setAccessibleName("variant of the model")
        self.own = QRadioButton("Model file")
        self.own.setToolTip("Your own weights: .safetensors of this package, or an official Cellpose 2 or 3 model.")
        self.browse = QPushButton("Choose…")
        self.browse.setToolTip("Choose a weights file (.safetensors, .pth, .pt, or a Cellpose model without suffix).")
        self.device = WordsLabel(small=True)
        self.device.setToolTip("The device that the network will run on. Another one: Advanced, machine, device.")
        self._buttons = QButtonGroup(self)
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(3)
        for row, (button, choice) in enumerate(
            ((self.apr, self.apr_variant), (self.zoo, self.variant), (self.own, self.browse))
        ):
            self._buttons.addButton(button)
            layout.addWidget(button, row, 0)
            layout.addWidget(choice, row, 1)
        layout.addWidget(self.apr_words, 0, 1)
        layout.addWidget(self.device, 3, 0, 1, 2)
        layout.setColumnStretch(1, 1)
        for button, choice in ((self.apr, self.apr_variant), (self.zoo, self.variant)):
            button.clicked.connect(partial(self._choose_variant, choice))
            choice.activated.connect(partial(self._choose_variant, choice))
        self.own.clicked.connect(self._choose_own)
        self.browse.clicked.connect(self._browse)
        self._file = ""
        self.refresh()

    def _cards(self) -> tuple[ModelCard, ...]:
        return self._model.machine.models if self._model.machine else ()

    def _choose_variant(self, choice: ChoiceBox, _index: object = None) -> None:
        name = choice.currentData()
        if name:
            self._model.set("model", value=name)
        self.refresh()

    def _choose_own(self, _checked: object = None) -> None:
        if self._file:
            self._model.set("model", value=self._file)
        else:
            self._browse()
        self.refresh()

    def _browse(self, _checked: object = None) -> None:
        start = str(Path(self._file).parent) if self._file else self._model.settings.folder
        path, _ = QFileDialog.getOpenFileName(self, "Choose a weights file", start)
        if path:
            self.use_file(path)

    def use_file(self, path: str) -> None:
        """Take a weights file as the model."""
        self._file = path
        self._model.set_option(folder=str(Path(path).parent))
        self._model.set("model", value=path)
        self.refresh()

    def refresh(self) -> None:
        """Show what the model says now."""
        cards, chosen, machine = self._cards(), self._model.get("model"), self._model.machine
        is_file = _is_file(chosen)
        volumes = [card.name for card in cards if card.volume is not None]
        planes = [card.name for card in cards if card.volume is None]
        if not is_file and chosen not in volumes + planes:
            # Of a run file, or before the machine was looked at: it is shown, and a run says what is wrong with it.
            (volumes if self._model.for_volumes else planes).insert(0, chosen)
        for choice, names in ((self.apr_variant, volumes), (self.variant, planes)):
            current = chosen if chosen in names else choice.currentData()
            current = current if current in names else next(iter(names), None)
            choice.show_items([(_short(name), name) for name in names], current)
            choice.setToolTip(_card_words(cards, current))
        if is_file:
            self._file = chosen
        (self.own if is_file else self.apr if chosen in volumes else self.zoo).setChecked(True)
        self.browse.setText(Path(self._file).name if self._file else "Choose…")
        device = machine.device if machine is not None else None
        self.apr.setText(kind_words(device, volumes=True))
        self.zoo.setText(kind_words(device, volumes=False))
        self.apr.setEnabled(bool(volumes))
        self.apr_variant.setVisible(bool(volumes))
        self.apr_words.setVisible(not volumes)
        self.apr_words.setToolTip("No weights of a network for volumes came with this package; your own: Model file.")
        if self._model.machine_problem:
            self.device.setText(self._model.machine_problem)
        elif machine is None:
            self.device.setText("looking at this machine…")
        else:
            on_gpu = not machine.device.startswith("CPU")
            self.device.setText(f"runs on {machine.device}" + ("" if on_gpu else f" · {machine.gpu}"))


def _is_file(name: str) -> bool:
    return Path(name).suffix in (".safetensors", ".pth", ".pt") or len(Path(name).parts) > 1


def _short(name: str) -> str:
    """Leave out what the radio button says already."""
    return name.removeprefix("fastercellpose-").removeprefix("apr-")


def _card_words(cards: tuple[ModelCard, ...], name: object) -> str:
    card = next((card for card in cards if card.name == name), None)
    if card is None:
        return f"{name}: its weights are not installed with this package." if name else "No models are installed."
    figures = ", ".join(f"{key} {value:.3g}" for key, value in card.metrics.items() if isinstance(value, float))
    trained = f"nuclei of {card.diameter_px:g} px" if card.volume is None else f"APR error {card.relative_error:g}"
    lines = [
        f"{card.name}: {card.title}",
        f"Trained on {card.data}, {trained}.",
        f"Licence of the weights: {card.licence}.",
    ]
    return "\n".join([*lines, *([f"Measured: {figures}."] if figures else [])])
