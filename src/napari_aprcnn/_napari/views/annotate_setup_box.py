"""Before annotating: image, prediction, name, how slices are chosen, and where annotations are kept."""

from __future__ import annotations

from pathlib import Path

from napari.layers import Labels
from qtpy.QtWidgets import QFileDialog, QFormLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_aprcnn._napari.annotate_model import AnnotateModel
from napari_aprcnn._napari.annotate_plan import METHODS
from napari_aprcnn._napari.views.button_styles import BLUE, RED
from napari_aprcnn._napari.views.image_box import ImageBox
from napari_aprcnn._napari.views.inputs import ChoiceBox, NumberBox, WordsLabel
from napari_aprcnn._napari.views.train_parameters_box import side_by_side

__all__ = ["AnnotateSetupBox"]

_MODES = [("points: click centres of nuclei", "points"), ("labels: paint nuclei", "labels")]


class AnnotateSetupBox(QWidget):
    """The inputs, and the two ways to begin.

    Parameters
    ----------
    model
        What it shows and changes.
    """

    def __init__(self, model: AnnotateModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        self._inputs = QWidget()
        form = QFormLayout(self._inputs)
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(5)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self.images = ImageBox(model.images, form, self)
        self.images.layer.setToolTip("The image layer to annotate; only the slices that are shown are read.")
        self.images.words.setToolTip("The image as it will be annotated.")
        self._add_guide(form)
        self._add_person(form)
        self._add_slices(form)
        layout.addWidget(self._inputs)
        self._add_buttons(layout)
        self.refresh("state")

    def _add_guide(self, form: QFormLayout) -> None:
        self.guide = ChoiceBox()
        self.guide.setToolTip(
            "A layer of the image's size, if you like: labels of a prediction to take over and correct,\n"
            "or a probability to choose the slices where it is unsure."
        )
        self.guide.setAccessibleName("prediction layer")
        self.guide.activated.connect(lambda _: self._model.choose_guide(self.guide.currentData()))
        form.addRow("Prediction", self.guide)

    def _add_person(self, form: QFormLayout) -> None:
        self.annotator = QLineEdit()
        self.annotator.setMaxLength(40)
        self.annotator.setToolTip(
            "Your name or initials. Several people can annotate in one folder: each has files of their own."
        )
        self.annotator.setAccessibleName("annotator")
        self.annotator.editingFinished.connect(lambda: self._model.set(annotator=self.annotator.text()))
        form.addRow("Annotator", self.annotator)
        self.mode = ChoiceBox()
        self.mode.show_items(list(_MODES), None)
        self.mode.setToolTip(
            "points: one click for each nucleus that a slice cuts, fast, enough to count what is found and missed.\n"
            "labels: outlines too, for IoU and for training."
        )
        self.mode.setAccessibleName("what is annotated")
        self.mode.activated.connect(lambda _: self._model.set(mode=self.mode.currentData()))
        form.addRow("Annotate", self.mode)

    def _add_slices(self, form: QFormLayout) -> None:
        self.n_slices = NumberBox(1, 10_000, integer=True)
        self.n_slices.setToolTip("How many slices to annotate. Range: 1 to 10000. 10 to 20 give useful intervals.")
        self.n_slices.setAccessibleName("number of slices")
        self.method = ChoiceBox()
        self.method.show_items([(words, name) for name, words in METHODS.items()], None)
        self.method.setToolTip(
            "at random: the fair choice for an evaluation.\nevenly spaced: over depth and time.\n"
            "where the prediction is unsure: highest mean entropy of the probability, the best to train on next.\n"
            "from sparse to dense: as many slices of each density, by the labels' objects or the bright area."
        )
        self.method.setAccessibleName("how slices are chosen")
        self.distance = NumberBox(1, 10_000, integer=True).plain()
        self.distance.setToolTip(
            "Least distance between chosen slices, in slices. Range: 1 to 10000.\n"
            "With the height of a nucleus, none is annotated twice."
        )
        self.distance.setAccessibleName("least distance")
        self.seed = NumberBox(0, 2**31 - 1, integer=True).plain()
        self.seed.setToolTip("The same seed chooses the same slices. Range: 0 and above.")
        self.seed.setAccessibleName("seed")
        self.n_slices.valueChanged.connect(lambda _: self._model.set(n_slices=self.n_slices.number()))
        self.method.activated.connect(lambda _: self._model.set(method=self.method.currentData()))
        self.distance.valueChanged.connect(lambda _: self._model.set(min_distance=self.distance.number()))
        self.seed.valueChanged.connect(lambda _: self._model.set(seed=self.seed.number()))
        form.addRow("Slices", side_by_side((self.n_slices, 2), (self.method, 3)))
        form.addRow("Apart", side_by_side((self.distance, 1), (QLabel("seed"), 0), (self.seed, 1)))

    def _add_buttons(self, layout: QVBoxLayout) -> None:
        self.plan = WordsLabel()
        self.plan.setToolTip("What the button would do, or why it cannot.")
        self.begin = QPushButton("Choose slices and begin")
        self.begin.setMinimumHeight(40)
        self.begin.clicked.connect(self._begin)
        self.go_on = QPushButton("Continue")
        self.go_on.setMinimumHeight(32)
        self.go_on.clicked.connect(lambda _: self._model.go_on())
        self.folder, self.open = QPushButton("Keep in…"), QPushButton("Open…")
        self.folder.setToolTip("Choose where folders of annotations are made.")
        self.open.setToolTip("Open a folder of annotations, your own or a colleague's, under your name.")
        self.folder.clicked.connect(self._choose_folder)
        self.open.clicked.connect(self._open)
        for widget in (self.plan, self.begin, self.go_on, side_by_side((self.folder, 1), (self.open, 1))):
            layout.addWidget(widget)

    def _begin(self, _checked: bool = False) -> None:
        if self._model.state == "choosing":
            self._model.cancel()
            return
        self._model.set(annotator=self.annotator.text())
        self._model.begin()

    def _choose_folder(self, _checked: bool = False) -> None:
        path = QFileDialog.getExistingDirectory(self, "Keep annotations in", str(self._model.settings.root))
        if path:
            self._model.set(folder=path)

    def _open(self, _checked: bool = False) -> None:
        path = QFileDialog.getExistingDirectory(self, "A folder of annotations", str(self._model.settings.root))
        if path:
            self._model.open(Path(path))

    def refresh(self, what: str) -> None:
        """Show what the model says now."""
        model = self._model
        if what in ("layers", "settings", "state"):
            self.images.refresh("layers")
            self.images.refresh("image")
            items = [("none", None)]
            items += [(f"{one.name} ({'labels' if isinstance(one, Labels) else 'image'})", one) for one in model.guides]
            self.guide.show_items(items, model.guide)
            self.guide.setEnabled(len(items) > 1)
        if what in ("settings", "state"):
            self._show_settings()
        if what in ("layers", "settings", "state", "progress"):
            self._show_buttons()

    def _show_settings(self) -> None:
        settings = self._model.settings
        if not self.annotator.hasFocus():
            self.annotator.setText(settings.annotator)
        self.mode.setCurrentIndex(self.mode.findData(settings.mode))
        self.method.setCurrentIndex(self.method.findData(settings.method))
        self.n_slices.show_number(settings.n_slices)
        self.distance.show_number(settings.min_distance)
        self.seed.show_number(settings.seed)

    def _show_buttons(self) -> None:
        model, busy = self._model, self._model.state == "choosing"
        problem, left = model.problem, model.left_behind
        self._inputs.setEnabled(not busy)
        self.begin.setText("Cancel" if busy else "Choose slices and begin")
        self.begin.setStyleSheet(RED if busy else BLUE)
        self.begin.setEnabled(busy or not problem)
        self.begin.setToolTip(
            "Stop looking through the slices; nothing is written." if busy else problem or "Begin in a new folder."
        )
        self.plan.setText(model.progress_words if busy else problem or model.plan_words)
        self.go_on.setVisible(left is not None and not busy)
        if left is not None:
            self.go_on.setText(f"Continue {left.name}")
            self.go_on.setToolTip(f"Open the annotations in {left} where you left them.")
            self.go_on.setEnabled(model.frame is not None)
