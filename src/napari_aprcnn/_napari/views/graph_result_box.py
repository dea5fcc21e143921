"""What a graph says: the phenotype, the selected nucleus, the descriptors; and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFileDialog,
    QFormLayout,
    QGridLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_aprcnn._napari.graph_model import GraphModel
from napari_aprcnn._napari.views.fold import Fold
from napari_aprcnn._napari.views.inputs import ChoiceBox, WordsLabel

__all__ = ["DescriptorTable", "GraphResultBox"]

# Blue, orange and green of the Okabe-Ito palette, as every phenotype has its own.
_COLOURS = {"cystic": "#0072B2", "compact": "#E69F00", "cauliflower": "#009E73"}
_VISIBLE_ROWS = 9
_BAR = """
QProgressBar {{ border: none; background-color: rgba(128, 128, 128, 60); }}
QProgressBar::chunk {{ background-color: {colour}; }}
"""


class DescriptorTable(QTableWidget):
    """Names and values; Ctrl+C copies the selected rows, or all."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, 2, parent)
        self.horizontalHeader().hide()
        self.verticalHeader().hide()
        self.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.horizontalHeader().setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().lineSpacing() + 5)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setShowGrid(False)
        self.setAlternatingRowColors(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName("descriptors")
        self.setFixedHeight(_VISIBLE_ROWS * (self.fontMetrics().lineSpacing() + 5) + 4)

    def show_rows(self, rows: list[tuple[str, str, str]]) -> None:
        """Show names, values, and what they mean as tooltips."""
        self.setRowCount(len(rows))
        for index, (name, value, meaning) in enumerate(rows):
            for column, text in enumerate((name, value)):
                item = QTableWidgetItem(text)
                item.setToolTip(meaning)
                if column:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(index, column, item)

    def text(self) -> str:
        """Return the selected rows, or all, as lines with tabs."""
        rows = sorted({index.row() for index in self.selectedIndexes()}) or range(self.rowCount())
        return "\n".join("\t".join(self.item(row, column).text() for column in (0, 1)) for row in rows)

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Copy."""
        if event.matches(QKeySequence.StandardKey.Copy):
            QApplication.clipboard().setText(self.text())
        else:
            super().keyPressEvent(event)


class GraphResultBox(QWidget):
    """Shown once there is a graph.

    Parameters
    ----------
    model
        What it shows.
    """

    def __init__(self, model: GraphModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.colour = ChoiceBox()
        self.colour.setToolTip("Measurement that the nodes are coloured by: dark is low, bright is high (2 to 98 %).")
        self.colour.setAccessibleName("colour of the nodes")
        self.colour.activated.connect(lambda _: model.choose_colour(self.colour.currentData()))
        self.node = WordsLabel()
        self.node.setToolTip("The selected node of the points layer; its label is selected in the labels layer.")
        form = QFormLayout()
        form.setVerticalSpacing(5)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.addRow("Colour by", self.colour)
        self.bars: dict[str, tuple[QProgressBar, QLabel]] = {}
        self._phenotype = self._make_bars()
        self.why_not = WordsLabel(small=True)
        form.addRow("Phenotype", self._phenotype)
        form.addRow(self.why_not)
        self._form = form
        self.table = DescriptorTable()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(form)
        layout.addWidget(self.node)
        layout.addWidget(Fold("Descriptors", self.table, is_open=True))
        layout.addWidget(self._make_buttons())
        self.refresh("result")

    def _make_bars(self) -> QWidget:
        holder = QWidget()
        grid = QGridLayout(holder)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(2)
        holder.setToolTip(
            "Probability of each phenotype, from the graph and the shape of the organoid.\n"
            "Fitted to simulated organoids that are whole, in 3D; it knows these three only."
        )
        for row, (name, colour) in enumerate(_COLOURS.items()):
            bar, number = QProgressBar(), QLabel()
            bar.setRange(0, 1000)
            bar.setTextVisible(False)
            bar.setFixedHeight(10)
            bar.setStyleSheet(_BAR.format(colour=colour))
            number.setMinimumWidth(number.fontMetrics().horizontalAdvance("100 %"))
            number.setAlignment(Qt.AlignmentFlag.AlignRight)
            for column, widget in enumerate((QLabel(name), bar, number)):
                grid.addWidget(widget, row, column)
            self.bars[name] = bar, number
        grid.setColumnStretch(1, 1)
        return holder

    def _make_buttons(self) -> QWidget:
        holder = QWidget()
        grid = QGridLayout(holder)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        self.csv, self.graphml = QPushButton("Save tables…"), QPushButton("Save GraphML…")
        self.tensors, self.json = QPushButton("Save tensors…"), QPushButton("Save descriptors…")
        self.csv.setToolTip("nodes.csv and edges.csv in a folder of your choice; files of these names are replaced.")
        self.graphml.setToolTip("For networkx, Gephi, Cytoscape, igraph.")
        self.tensors.setToolTip("x, edge_index, edge_attr and pos for PyTorch Geometric, as safetensors.")
        self.json.setToolTip("The descriptors and the phenotype as JSON.")
        for index, button in enumerate((self.csv, self.graphml, self.tensors, self.json)):
            grid.addWidget(button, index // 2, index % 2)
        self.csv.clicked.connect(self._save_tables)
        self.graphml.clicked.connect(lambda _: self._save("graph.graphml", "GraphML (*.graphml)"))
        self.tensors.clicked.connect(lambda _: self._save("graph.safetensors", "Tensors (*.safetensors)"))
        self.json.clicked.connect(lambda _: self._save("descriptors.json", "JSON (*.json)"))
        return holder

    def _save_tables(self, _checked: bool = False) -> None:
        folder = self._model.settings.folder
        path = QFileDialog.getExistingDirectory(self, "Folder for nodes.csv and edges.csv", folder)
        if path:
            self._model.export(path)

    def _save(self, name: str, kind: str) -> None:
        start = Path(self._model.settings.folder or Path.home()) / name
        path, _ = QFileDialog.getSaveFileName(self, "Save the graph", str(start), kind)
        if path:
            self._model.export(Path(path).with_suffix(Path(name).suffix))

    def refresh(self, what: str) -> None:
        """Show what the model says now."""
        if what == "result":
            self._show_result()
        if what in ("result", "selection"):
            words = self._model.selected_words
            self.node.setText(words)
            self.node.setVisible(bool(words))

    def _show_result(self) -> None:
        built = self._model.built
        self.setVisible(built is not None and len(built.graph) > 0)
        if built is None:
            return
        current = self._model.colour_stem
        items = [(name.replace("_", " ").replace(" um", " µm"), stem) for name, stem in self._model.colours]
        self.colour.show_items(items, current)
        for name, (bar, number) in self.bars.items():
            share = built.phenotype.get(name, 0.0)
            bar.setValue(round(1000 * share))
            number.setText(f"{100 * share:.0f} %")
        self._form.setRowVisible(self._phenotype, bool(built.phenotype))
        self.why_not.setText(f"no phenotype: {built.phenotype_problem}" if built.phenotype_problem else "")
        self._form.setRowVisible(self.why_not, bool(built.phenotype_problem))
        self.table.show_rows(self._model.rows())
