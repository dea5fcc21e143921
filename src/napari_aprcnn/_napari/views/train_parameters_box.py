"""Where a training starts, what network it trains, how long, on what part of the volumes; and the advanced options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)

from napari_aprcnn._napari.fields import FieldSpec, field_specs
from napari_aprcnn._napari.train_model import TrainModel
from napari_aprcnn._napari.views.inputs import ChoiceBox, NumberBox, WordsLabel, input_for, show_value
from napari_aprcnn.train.volume_settings import VolumeTrainConfig

__all__ = ["TrainAdvancedBox", "TrainParametersBox", "side_by_side"]

_SCRATCH = "from scratch"
_FORM_WORDS = {"auto": "fastest here", "apr": "particles", "pixel": "voxels"}
_FORM_HELP = (
    "What the network works on. particles: fast where images are sparse; voxels: its pixel twin;\n"
    "hybrid k: particles in the k finest stages, voxels below; fastest here: what is expected to be\n"
    "fastest on a few of the images. Weights of one form go on in another."
)
_HEAD_WORDS = {"flows": "flows (any shape)", "stardist": "stars (round nuclei)", "three_class": "inside, rim, outside"}
_HEAD_HELP = (
    "How touching nuclei are told apart. flows: any shape; stars: star-convex polyhedra, needs the stardist package;\n"
    "inside, rim, outside: three classes. A model to start from that has another one gives its body; the rest is new."
)
_RAYS_HELP = (
    "Voxel size along {axis} that the rays of stars are spread for (only the ratios count); "
    "taken from the first pair of layers."
)
# These have places of their own in the dock.
_ELSEWHERE = {("epochs",), ("seed",), ("simulated",)}
_NETWORK = {("network", "depth"), ("network", "filter_banks"), ("network", "block"), ("network", "norm")}
_DEVICE_HELP = (
    "Where the network is trained. auto: a GPU where there is one, else the CPU. Crops are made on the CPU either way."
)


class TrainParametersBox(QWidget):
    """Rows of the form between the data and the button.

    Parameters
    ----------
    model
        What it shows and changes.
    form
        The form that the rows are added to.
    """

    def __init__(self, model: TrainModel, form: QFormLayout, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.hide()  # the rows are in the form; this object only looks after them
        self._model = model
        self._add_mix(form)
        self._add_network(form)
        self._add_numbers(form)
        self._add_result(form)
        self.refresh()

    def _add_mix(self, form: QFormLayout) -> None:
        self.mix = QCheckBox("simulated volumes")
        self.mix.setToolTip(
            "Mix in simulated nuclei with exact labels: they keep the network general where there are few annotations."
        )
        self.share = NumberBox(0, 100, step=5, unit="%")
        self.share.setToolTip("Share of the crops that are simulated, 0 to 100 % (50 for fine-tuning).")
        self.share.setAccessibleName("share of simulated crops")
        self.mix.toggled.connect(lambda on: self._model.set_option(mix=on))
        self.share.valueChanged.connect(lambda value: self._model.set("simulated", value=round(value / 100, 4)))
        form.addRow("Mix in", side_by_side((self.mix, 1), (self.share, 0)))

    def _add_network(self, form: QFormLayout) -> None:
        self.start = ChoiceBox()
        self.start.setToolTip("The model whose weights the training starts from; from scratch needs many more steps.")
        self.start.setAccessibleName("model to start from")
        self.browse = QPushButton("File…")
        self.browse.setToolTip("Start from a model that was trained here: NAME.safetensors with NAME.json beside it.")
        self.start.activated.connect(lambda _: self._model.choose_start(self.start.currentData()))
        self.browse.clicked.connect(self._browse)
        form.addRow("Start from", side_by_side((self.start, 1), (self.browse, 0)))
        self.form = ChoiceBox()
        self.form.setToolTip(_FORM_HELP)
        self.form.setAccessibleName("form of the network")
        self.form.activated.connect(lambda _: self._model.choose_form(self.form.currentData()))
        self.channels = NumberBox(1, 512, integer=True).plain()
        self.channels.setToolTip(
            "Channels of the finest stage; every pooling doubles them (8: fast, 16: the papers').\n"
            "A model to start from has its own."
        )
        self.channels.setAccessibleName("channels")
        self.channels.valueChanged.connect(
            lambda _: self._model.set("network", "channels", value=self.channels.number())
        )
        form.addRow("Network", side_by_side((self.form, 2), (QLabel("channels"), 0), (self.channels, 1)))
        self.head = ChoiceBox()
        self.head.show_items([(words, head) for head, words in _HEAD_WORDS.items()], "flows")
        self.head.setToolTip(_HEAD_HELP)
        self.head.setAccessibleName("how nuclei are told apart")
        self.head.activated.connect(lambda _: self._model.choose_head(self.head.currentData()))
        form.addRow("Nuclei by", self.head)

    def _add_numbers(self, form: QFormLayout) -> None:
        self.epochs = NumberBox(1, 100_000, integer=True)
        self.epochs.setToolTip(
            "Parts of the training, each with a checkpoint (10 to 40 for fine-tuning).\n"
            "A training that is done goes on when more of them are set."
        )
        self.epochs.setAccessibleName("epochs")
        self.seed = NumberBox(0, 2**31 - 1, integer=True)
        self.seed.setToolTip("Seed of weights and crops: the same seed gives the same model.")
        self.seed.setAccessibleName("seed")
        self.epochs.valueChanged.connect(lambda _: self._model.set("epochs", value=self.epochs.number()))
        self.seed.valueChanged.connect(lambda _: self._model.set("seed", value=self.seed.number()))
        form.addRow("Epochs", side_by_side((self.epochs, 1), (QLabel("seed"), 0), (self.seed, 1)))
        self.crop = {letter: NumberBox(1, 4096, integer=True).plain() for letter in "zyx"}
        cells: list[tuple[QWidget, int]] = []
        for letter, box in self.crop.items():
            box.setToolTip(
                f"Voxels of a crop along {letter} (32 to 128): a few nuclei should fit. Time and memory grow with the "
                "volume of the crop.\nSmaller images are taken whole."
            )
            box.setAccessibleName(f"crop {letter}")
            box.valueChanged.connect(self._type_crop)
            cells += [(QLabel(letter), 0), (box, 1)]
        form.addRow("Crop", side_by_side(*cells, (QLabel("voxels"), 0)))

    def _add_result(self, form: QFormLayout) -> None:
        self.name, self.folder, self.choose = QLineEdit(), WordsLabel(), QPushButton("Choose…")
        self.name.setToolTip("Name of the model: NAME.safetensors with its card NAME.json, NAME_run with checkpoints.")
        self.name.setAccessibleName("name of the model")
        self.name.editingFinished.connect(lambda: self._model.set_option(name=self.name.text().strip()))
        self.choose.setToolTip("Choose the folder of the result, of its checkpoints and of the copies of your layers.")
        self.choose.clicked.connect(self._choose_folder)
        form.addRow("Name", self.name)
        form.addRow("Folder", side_by_side((self.folder, 1), (self.choose, 0)))

    # --- what the user does ------------------------------------------------------------------------------------------

    def _type_crop(self, _value: float) -> None:
        self._model.set("crop", value=tuple(box.number() for box in self.crop.values()))

    def _browse(self, _checked: bool = False) -> None:
        start = str(self._model.settings.output)
        path, _ = QFileDialog.getOpenFileName(self, "A model to start from", start, "Weights (*.safetensors)")
        if path:
            self._model.choose_start(path)

    def _choose_folder(self, _checked: bool = False) -> None:
        path = QFileDialog.getExistingDirectory(self, "Folder of the result", str(self._model.settings.output))
        if path:
            self._model.set_option(folder=path)

    # --- following the model -----------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show what the model says now."""
        model, settings, config = self._model, self._model.settings, self._model.settings.config
        show_value(self.mix, settings.mix)
        self.share.show_number(100 * config.simulated)
        self.share.setEnabled(settings.mix)
        items = [(card.name, card.name) for card in model.models]
        if settings.start and settings.start not in {name for _, name in items}:
            items.append((Path(settings.start).name, settings.start))
        self.start.show_items([*items, (_SCRATCH, "")], settings.start or "")
        self.form.show_items([(_FORM_WORDS.get(f) or f"hybrid {f[6:]}", f) for f in model.forms], model.form)
        self.head.setCurrentIndex(self.head.findData(config.network.head))
        self.channels.show_number(config.network.channels)
        self.channels.setEnabled(not settings.start)
        self.epochs.show_number(config.epochs)
        self.seed.show_number(config.seed)
        for box, n in zip(self.crop.values(), config.crop, strict=True):
            box.show_number(n)
        if self.name.text() != settings.name:
            self.name.setText(settings.name)
        self.folder.setText(_short(settings.output))
        self.folder.setToolTip(f"Folder of the result: {settings.output}.")


class TrainAdvancedBox(QWidget):
    """One input for each field of the training that is not shown elsewhere.

    Parameters
    ----------
    model
        What it shows and changes.
    """

    def __init__(self, model: TrainModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.inputs: dict[tuple[str, ...], QWidget] = {}
        form = QFormLayout(self)
        form.setContentsMargins(6, 0, 0, 0)
        form.setVerticalSpacing(3)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self.device = ChoiceBox()
        self.device.show_items([(name, name) for name in ("cpu", "cuda", "auto")], "cpu")
        self.device.setToolTip(_DEVICE_HELP)
        self.device.setAccessibleName("device")
        self.device.activated.connect(lambda _: model.set_option(accelerator=self.device.currentData()))
        form.addRow("device", self.device)
        for spec in field_specs(VolumeTrainConfig):
            if _is_shown(spec):
                self._add(form, spec)
        self._add_rays(form)
        self.refresh()

    def _add(self, form: QFormLayout, spec: FieldSpec) -> None:
        path = spec.path

        def changed(value: Any) -> None:
            self._model.set(*path, value=value)

        self.inputs[path] = widget = input_for(spec, changed)
        if isinstance(widget, NumberBox) and (spec.default or 0) < 0.01 and spec.kind == "float":
            widget.setSingleStep(1e-4)
        label = QLabel(" ".join(path).replace("_", " "))
        label.setToolTip(spec.tooltip)
        label.setBuddy(widget)
        form.addRow(label, widget)

    def _add_rays(self, form: QFormLayout) -> None:
        self.rays = {letter: NumberBox(0.01, 1000.0, step=0.1).plain() for letter in "zyx"}
        cells: list[tuple[QWidget, int]] = []
        for letter, box in self.rays.items():
            box.setToolTip(_RAYS_HELP.format(axis=letter))
            box.setAccessibleName(f"ray spacing {letter}")
            box.valueChanged.connect(self._type_rays)
            cells += [(QLabel(letter), 0), (box, 1)]
        form.addRow("ray spacing", side_by_side(*cells))

    def _type_rays(self, _value: float) -> None:
        spacing = tuple(box.number() for box in self.rays.values())
        self._model.set("network", "ray_spacing", value=spacing)

    def refresh(self) -> None:
        """Show the parameters as they are."""
        network = self._model.settings.config.network
        for box, n in zip(self.rays.values(), network.ray_spacing, strict=True):
            box.show_number(n)
            box.setEnabled(network.head == "stardist")
        self.device.setCurrentIndex(self.device.findData(self._model.settings.accelerator))
        for path, widget in self.inputs.items():
            show_value(widget, self._model.get(*path))
            if path[0] == "network":
                widget.setEnabled(not self._model.settings.start)


def _is_shown(spec: FieldSpec) -> bool:
    if spec.path[0] == "network":
        return spec.path in _NETWORK
    return spec.path not in _ELSEWHERE and spec.kind != "text"


def _short(path: Path) -> str:
    """Leave out the user's folder."""
    try:
        return f"~/{path.relative_to(Path.home()).as_posix()}"
    except ValueError:
        return str(path)


def side_by_side(*cells: tuple[QWidget, int]) -> QWidget:
    """Put widgets into a row; the numbers say how they share the room."""
    holder = QWidget()
    row = QHBoxLayout(holder)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(4)
    for widget, stretch in cells:
        row.addWidget(widget, stretch)
    return holder
