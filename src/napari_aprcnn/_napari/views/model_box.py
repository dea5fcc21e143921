"""The model and the device that really runs it."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QButtonGroup, QFileDialog, QGridLayout, QPushButton, QRadioButton, QWidget

from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn._napari.views.inputs import ChoiceBox, WordsLabel
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
        self.zoo = QRadioButton("CPU FasterCellpose")
        self.zoo.setToolTip("The fast networks of the Cellpose family that come with this package.")
        self.variant = ChoiceBox()
        self.variant.setAccessibleName("variant of the model")
        self.own = QRadioButton("Model file")
        self.own.setToolTip("Your own weights: .safetensors of this package, or an official Cellpose 2 or 3 model.")
        self.browse = QPushButton("Choose…")
        self.browse.setToolTip("Choose a weights file (.safetensors, .pth, .pt, or a Cellpose model without suffix).")
        self.apr = QRadioButton("GPU APR-CNN")
        self.apr.setEnabled(False)
        self.apr_words = WordsLabel(small=True)
        self.device = WordsLabel(small=True)
        self.device.setToolTip("The device that the network will run on. Another one: Advanced, machine, device.")
        self._buttons = QButtonGroup(self)
        for button in (self.zoo, self.own, self.apr):
            self._buttons.addButton(button)
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(3)
        layout.addWidget(self.zoo, 0, 0)
        layout.addWidget(self.variant, 0, 1)
        layout.addWidget(self.own, 1, 0)
        layout.addWidget(self.browse, 1, 1)
        layout.addWidget(self.apr, 2, 0)
        layout.addWidget(self.apr_words, 2, 1)
        layout.addWidget(self.device, 3, 0, 1, 2)
        layout.setColumnStretch(1, 1)
        self.zoo.clicked.connect(self._choose_variant)
        self.own.clicked.connect(self._choose_own)
        self.variant.activated.connect(self._choose_variant)
        self.browse.clicked.connect(self._browse)
        self._file = ""
        self.refresh()

    def _cards(self) -> tuple[ModelCard, ...]:
        return self._model.machine.models if self._model.machine else ()

    def _choose_variant(self, _index: object = None) -> None:
        name = self.variant.currentData()
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
        known = {card.name for card in cards} | ({chosen} if not _is_file(chosen) else set())
        items = [(_short(card.name), card.name) for card in cards]
        if chosen in known and chosen not in {card.name for card in cards}:
            items.insert(0, (_short(chosen), chosen))
        if not _is_file(chosen):
            self.variant.show_items(items, chosen)
        elif self.variant.count() != len(items):
            self.variant.show_items(items, items[0][1] if items else None)
        self.variant.setToolTip(_card_words(cards, self.variant.currentData()))
        if _is_file(chosen):
            self._file = chosen
        (self.own if _is_file(chosen) else self.zoo).setChecked(True)
        self.browse.setText(Path(self._file).name if self._file else "Choose…")
        on_gpu = machine is not None and not machine.device.startswith("CPU")
        self.zoo.setText("GPU FasterCellpose" if on_gpu else "CPU FasterCellpose")
        gpu = machine.gpu if machine else "looking for a GPU"
        self.apr_words.setText("not in this version yet")
        self.apr_words.setToolTip(f"The particle networks come in a later version. Graphics device here: {gpu}.")
        self.apr.setToolTip(self.apr_words.toolTip())
        if self._model.machine_problem:
            self.device.setText(self._model.machine_problem)
        elif machine is None:
            self.device.setText("looking at this machine…")
        else:
            self.device.setText(f"runs on {machine.device}" + ("" if on_gpu else f" · {machine.gpu}"))


def _is_file(name: str) -> bool:
    return Path(name).suffix in (".safetensors", ".pth", ".pt") or len(Path(name).parts) > 1


def _short(name: str) -> str:
    """Leave out what the radio button says already."""
    return name.removeprefix("fastercellpose-") if name.startswith("fastercellpose-") else name


def _card_words(cards: tuple[ModelCard, ...], name: object) -> str:
    card = next((card for card in cards if card.name == name), None)
    if card is None:
        return f"{name}: its weights are not installed with this package." if name else "No models are installed."
    figures = ", ".join(f"{key} {value:.3g}" for key, value in card.metrics.items() if isinstance(value, float))
    lines = [
        f"{card.name}: {card.title}",
        f"Trained on {card.data}, nuclei of {card.diameter_px:g} px.",
        f"Licence of the weights: {card.licence}.",
    ]
    return "\n".join([*lines, *([f"Measured: {figures}."] if figures else [])])
