"""The runs of a viewer as a table: sorted, named, pinned, shown, compared and removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.utils.notifications import show_error
from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QSortFilterProxyModel,
    Qt,
)
from qtpy.QtGui import QFont
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHeaderView,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)
from superqt import QFlowLayout

from camanim.comparison import write_comparison
from camanim.errors import CamError
from camanim.findings import short
from napari_camanim.comparison.usual import compare_normalizations, subtract
from napari_camanim.comparison.view import FEWEST, MOST, TEMPORARY, CompareView
from napari_camanim.layers.metadata import KEY
from napari_camanim.session import Session

if TYPE_CHECKING:
    import napari
    from napari.components import ViewerModel

#: Key of the metadata of stacks that are kept when others are removed.
PINNED = f"{KEY} pinned"
#: Role of the values that rows are sorted by.
SORT = Qt.ItemDataRole.UserRole
CHECKED, UNCHECKED = Qt.CheckState.Checked, Qt.CheckState.Unchecked


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes
    ----------
    title, tip : str
    value : callable
        From a stack to its value; None or NaN for an empty cell.
    width : int
        Width in pixels at first.
    """

    title: str
    tip: str
    value: Callable[[Image], Any]
    width: int = 60


def _road(name: str) -> Callable[[Image], Any]:
    def value(stack: Image) -> Any:
        road = stack.data.animation.road
        return None if road is None else getattr(road, name)

    return value


def _best(stack: Image) -> Any:
    road = stack.data.animation.road
    return None if road is None or road.highest is None else road.highest.label


def is_pinned(stack: Image) -> bool:
    """Return whether a stack is kept when others are removed."""
    return bool(stack.metadata.get(PINNED, False))


def set_pinned(stack: Image, pinned: bool) -> None:
    """Keep a stack when others are removed, or no longer."""
    stack.metadata = {**stack.metadata, PINNED: pinned}


NAME, SHOWN, PIN = "run", "shown", "pinned"
#: From the most important one, as a narrow dock shows the first ones.
COLUMNS = (
    Column(NAME, "Name of the run; F2 edits it, a double click shows it.", lambda s: s.name, 118),
    Column("mean", "Mean of the ROAD scores over all layers (ybROAD mean).", _road("mean"), 50),
    Column("max", "Highest ROAD score of all layers (ybROAD max).", _road("max"), 50),
    Column("best layer", "Layer with the highest ROAD score.", _best, 80),
    Column("network", "Network.", lambda s: s.data.animation.model.name, 80),
    Column("method", "Method of the maps.", lambda s: s.data.animation.method, 70),
    Column("class", "Explained target.", lambda s: s.data.animation.target.name, 80),
    Column(
        "value",
        "Probability of the target, or its score if it has no probability.",
        lambda s: float(s.data.animation.probability),
        50,
    ),
    Column(PIN, "Whether the run is kept when others are removed.", is_pinned, 54),
    Column(SHOWN, "Whether the maps are visible.", lambda s: bool(s.visible), 54),
)
TITLES = [column.title for column in COLUMNS]


def runs_of(session: Session) -> list[Image]:
    """Return the stacks of a session, without those that exist during a comparison only."""
    return [stack for stack in session.stacks if TEMPORARY not in stack.metadata]


def write_runs(path: str | Path, stacks: Sequence[Image]) -> Path:
    """Write one row for each run as CSV; see `camanim.comparison.comparison_table`.

    Parameters
    ----------
    path : path-like
        Must end in ``.csv``.
    stacks : sequence of napari.layers.Image

    Returns
    -------
    pathlib.Path

    Raises
    ------
    camanim.RenderError
        If there is no run, the suffix differs, or the file cannot be written.
    """
    return write_comparison({stack.name: stack.data.animation for stack in stacks}, path)


def _plain(value: Any) -> Any:
    empty = value is None or (isinstance(value, float | np.floating) and np.isnan(value))
    return "" if empty else value


class RunModel(QAbstractTableModel):
    """Rows of runs, the newest first; checkboxes and names can be edited."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.stacks: list[Image] = []
        self.refresh()

    def refresh(self) -> None:
        """Show the stacks that there are now."""
        stacks = runs_of(self._session)
        # In the order of the list while no run is added or removed: rows do not move in a comparison.
        known = [stack for stack in self.stacks if stack in stacks]
        stacks = [*[stack for stack in reversed(stacks) if stack not in known], *known]
        if stacks != self.stacks:
            self.beginResetModel()
            self.stacks = stacks
            self.endResetModel()
        elif stacks:
            self.dataChanged.emit(self.index(0, 0), self.index(len(stacks) - 1, len(COLUMNS) - 1))

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.stacks)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section].title
        return COLUMNS[section].tip if role == Qt.ItemDataRole.ToolTipRole else None

    def flags(self, index: QModelIndex) -> Any:
        flags = super().flags(index)
        if TITLES[index.column()] == NAME:
            return flags | Qt.ItemFlag.ItemIsEditable
        if TITLES[index.column()] in (PIN, SHOWN):
            return flags | Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        if not index.isValid() or index.row() >= len(self.stacks):
            return None
        stack, column = self.stacks[index.row()], COLUMNS[index.column()]
        value = column.value(stack)
        if column.title in (PIN, SHOWN):
            if role == Qt.ItemDataRole.CheckStateRole:
                return CHECKED if value else UNCHECKED
            return int(value) if role == SORT else None
        if role == SORT:
            # Runs without scores below all others.
            return -1e9 if _plain(value) == "" and column.title in ("mean", "max") else value
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return _text(value)
        if role == Qt.ItemDataRole.ToolTipRole:
            return str(_plain(value)) or "Not scored."
        if role == Qt.ItemDataRole.FontRole and stack is self._session.current:
            font = QFont()
            font.setBold(True)
            return font
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = 0) -> bool:
        stack, title = self.stacks[index.row()], TITLES[index.column()]
        if title == NAME and role == Qt.ItemDataRole.EditRole and str(value).strip():
            stack.name = str(value).strip()
        elif title == PIN and role == Qt.ItemDataRole.CheckStateRole:
            set_pinned(stack, Qt.CheckState(value) == CHECKED)
            self.dataChanged.emit(index, index)
        elif title == SHOWN and role == Qt.ItemDataRole.CheckStateRole:
            stack.visible = Qt.CheckState(value) == CHECKED
        else:
            return False
        return True


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) and not np.isnan(value) else short(value)


class RunTable(QWidget):
    """Table of all runs of a viewer, with what can be done with them.

    A separate widget and not a part of the dock: its ten columns can be read at any width, below the
    canvas or beside it. In 300 pixels the first ones are seen, and the others by scrolling.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._open = True
        session.retain()
        self.model = RunModel(session, self)
        self.sorted = QSortFilterProxyModel(self)
        self.sorted.setSourceModel(self.model)
        self.sorted.setSortRole(SORT)
        self.sorted.setSortCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.view = _view(self.sorted)
        self.view.doubleClicked.connect(self._on_double_click)
        self.view.selectionModel().selectionChanged.connect(self._on_selection)
        self.compare = _button(
            "Compare", "Show the selected runs side by side.", self.compare_selected
        )
        self.difference = _button(
            "A − B",
            "Subtract the maps of the second selected run from those of the first one, layer by layer.",
            self.subtract_selected,
        )
        self.normalizations = _button(
            "Local | global",
            "Show the selected run twice: normalised by layer, and over all layers.",
            self.compare_normalizations,
        )
        self.remove = _button("Remove", "Remove the selected runs.", self.remove_selected)
        self.remove_others = _button(
            "Remove others",
            "Remove all runs, except for the selected and the pinned ones.",
            self.remove_all_others,
        )
        self.export = _button("Save table…", "Write the table as CSV.", self.save)
        self.end = _button("End comparison", "Show one run again, as before.", self.end_comparison)
        row = QWidget(self)
        # Wrapped, so that they do not widen the dock.
        flow = QFlowLayout(row)
        flow.setContentsMargins(0, 0, 0, 0)
        flow.setSpacing(3)
        for button in self._buttons():
            flow.addWidget(button)
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 4, 4, 4)
        box.addWidget(self.view, stretch=1)
        box.addWidget(row)
        session.listed.connect(self._on_listed)
        session.updated.connect(self._on_updated)
        session.current_changed.connect(self._on_current)
        #: The comparison whose end is observed.
        self._watched: CompareView | None = None
        # In the order in which they were selected: A is the first one.
        self._picked: list[Image] = []
        self._on_selection()

    def _buttons(self) -> list[QPushButton]:
        return [
            self.compare, self.difference, self.normalizations, self.remove, self.remove_others,
            self.export, self.end,
        ]  # fmt: skip

    # -- What is selected --------------------------------------------------------------------------

    @property
    def selected(self) -> list[Image]:
        """The selected runs, in the order in which they were selected."""
        return list(self._picked)

    def select(self, stacks: Sequence[Image]) -> None:
        """Select the rows of some runs."""
        chosen = QItemSelection()
        for stack in stacks:
            index = self.sorted.mapFromSource(self.model.index(self.model.stacks.index(stack), 0))
            chosen.select(index, index)
        flags = QItemSelectionModel.SelectionFlag
        self._picked = list(stacks)
        self.view.selectionModel().select(chosen, flags.ClearAndSelect | flags.Rows)

    def stack_at(self, index: QModelIndex) -> Image:
        """Return the run of a row of the view."""
        return self.model.stacks[self.sorted.mapToSource(index).row()]

    def _on_selection(self, *args: Any) -> None:
        chosen = [self.stack_at(i) for i in self.view.selectionModel().selectedRows()]
        self._picked = [stack for stack in self._picked if stack in chosen]
        self._picked += [stack for stack in chosen if stack not in self._picked]
        self._enable()

    def _enable(self) -> None:
        count = len(self._picked)
        comparison = CompareView.of(self._session)
        if comparison is not self._watched:
            self._watched = comparison
            if comparison is not None:
                comparison.changed.connect(self._enable)
        self.compare.setEnabled(FEWEST <= count <= MOST)
        self.difference.setEnabled(count == 2)
        self.normalizations.setEnabled(count == 1)
        self.remove.setEnabled(count > 0)
        kept = [s for s in self.model.stacks if s in self._picked or is_pinned(s)]
        self.remove_others.setEnabled(count > 0 and len(kept) < len(self.model.stacks))
        self.export.setEnabled(bool(self.model.stacks))
        self.end.setEnabled(comparison is not None and not comparison.closed)

    # -- Actions -----------------------------------------------------------------------------------

    def jump(self, stack: Image) -> None:
        """Show a run at its best layer; a comparison without it ends."""
        comparison = CompareView.of(self._session)
        if comparison is not None and stack not in comparison.stacks:
            comparison.close()
            comparison = None
        if comparison is None:
            self._session.show(stack)
        else:
            self._viewer.layers.selection.active = stack
            self._session.go_to(stack.data.animation.initial_index)

    def compare_selected(self) -> None:
        """Show the selected runs side by side."""
        self._try(lambda: CompareView(self._session, self.selected))

    def subtract_selected(self) -> None:
        """Add the difference of the two selected runs, and show it beside them."""
        first, second = self.selected

        def show() -> None:
            result = subtract(self._viewer, first, second)
            CompareView(self._session, [first, second, result])

        self._try(show)

    def compare_normalizations(self) -> None:
        """Show the selected run with both normalisations."""
        self._try(lambda: compare_normalizations(self._viewer, self.selected[0]))

    def end_comparison(self) -> None:
        """End the comparison."""
        comparison = CompareView.of(self._session)
        if comparison is not None:
            comparison.close()

    def remove_selected(self) -> None:
        """Remove the selected runs."""
        self._remove(self.selected)

    def remove_all_others(self) -> None:
        """Remove all runs, except for the selected and the pinned ones."""
        kept = self.selected
        self._remove([s for s in self.model.stacks if s not in kept and not is_pinned(s)])

    def save(self) -> None:
        """Ask for a file, and write the table as CSV, in the order of the rows."""
        path, _ = QFileDialog.getSaveFileName(self, "Save table", "runs.csv", "CSV (*.csv)")
        if path:
            path = path if path.lower().endswith(".csv") else f"{path}.csv"
            self._try(lambda: write_runs(path, self.rows()))

    def rows(self) -> list[Image]:
        """Return the runs in the order of the rows."""
        return [self.stack_at(self.sorted.index(i, 0)) for i in range(self.sorted.rowCount())]

    @property
    def _viewer(self) -> ViewerModel:
        viewer = self._session.viewer
        assert viewer is not None, "the viewer was deleted"
        return viewer

    def _remove(self, stacks: Sequence[Image]) -> None:
        # One batch: napari collects garbage once, and not after each layer.
        with self._viewer.layers.batched_update():
            for stack in stacks:
                self._viewer.layers.remove(stack)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except CamError as error:
            show_error(str(error))
        self._enable()

    # -- Events ------------------------------------------------------------------------------------

    def resizeEvent(self, event: Any) -> None:
        # Names get the width that the other columns leave.
        left = self.width() - sum(column.width for column in COLUMNS[1:]) - 40
        self.view.setColumnWidth(0, int(np.clip(left, COLUMNS[0].width, 3 * COLUMNS[0].width)))
        super().resizeEvent(event)

    def _on_double_click(self, index: QModelIndex) -> None:
        self.jump(self.stack_at(index))

    def _on_listed(self) -> None:
        picked = self._picked
        self.model.refresh()
        kept = [stack for stack in picked if stack in self.model.stacks]
        if kept != self._picked:
            self.select(kept)
        self._enable()

    def _on_updated(self, stack: Image) -> None:
        self.model.refresh()

    def _on_current(self, stack: Image | None) -> None:
        self.model.refresh()
        self._enable()

    def closeEvent(self, event: Any) -> None:
        self.disconnect_session()
        super().closeEvent(event)

    def disconnect_session(self) -> None:
        """End the comparison, and stop following the session; the widget is closed after it."""
        if not self._open:
            return
        self._open = False
        self.end_comparison()
        self._session.listed.disconnect(self._on_listed)
        self._session.updated.disconnect(self._on_updated)
        self._session.current_changed.disconnect(self._on_current)
        self._session.release()


class CompareWidget(RunTable):
    """The table of the runs as a widget of napari.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(Session.of(napari_viewer))


def _view(model: QSortFilterProxyModel) -> QTableView:
    view = QTableView()
    view.setModel(model)
    view.setSortingEnabled(True)
    # In the order of the model, until a header is clicked.
    view.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.DescendingOrder)
    model.sort(-1)
    view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
    triggers = QAbstractItemView.EditTrigger
    view.setEditTriggers(triggers.EditKeyPressed | triggers.SelectedClicked)
    view.setTextElideMode(Qt.TextElideMode.ElideMiddle)
    view.setWordWrap(False)
    view.verticalHeader().hide()
    view.verticalHeader().setDefaultSectionSize(24)
    view.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
    for i, column in enumerate(COLUMNS):
        view.setColumnWidth(i, column.width)
    view.setToolTip("Double click: show the run at its best layer. Select 2 to 6 rows to compare.")
    return view


def _button(text: str, tip: str, slot: Callable[[], None]) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(slot)
    return button
