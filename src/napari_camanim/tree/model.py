"""The Qt model of the layer tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QAbstractItemModel, QModelIndex, QObject, Qt, Signal
from qtpy.QtGui import QColor

from camanim.findings import short
from camanim.result import Result
from napari_camanim.tree.nodes import (
    Node,
    brief_count,
    list_matching,
    module_tree,
    reason,
    score_column,
)

NAME, KIND, SHAPE, PARAMETERS, SCORE = range(5)

#: (value, lowest, highest) of a score for the delegate; the range includes 0.
BAR = Qt.ItemDataRole.UserRole + 1

_ROOT = QModelIndex()


class LayerModel(QAbstractItemModel):
    """Modules of a network as rows; the check states are the layers that a stack shows.

    Signals
    -------
    ticked : (list of int,)
        Indices of the layers that the user wants to be shown; `set_shown` changes the model.
    """

    ticked = Signal(list)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.root = Node("", "", None)
        #: Nodes by the index of their map.
        self.node_of: dict[int, Node] = {}
        #: Colour of rows without a map.
        self.faded = QColor()
        self._labels: dict[int, str] = {}
        self._shown: npt.NDArray[np.bool_] = np.zeros(0, bool)
        self._score: tuple[str, npt.NDArray[np.float64]] | None = None
        self._range = (0.0, 0.0)
        self._words: list[str] = []
        self._only_ticked = False

    # -- Content -----------------------------------------------------------------------------------

    def set_result(self, result: Result | None, shown: Sequence[int] = ()) -> None:
        """Show the modules of a result, or nothing.

        Parameters
        ----------
        result : Result or None
        shown : sequence of int
            Indices of the layers that the stack shows.
        """
        self.beginResetModel()
        # Indices of the view hold pointers to nodes until the reset has ended.
        before = self.root
        self.root = Node("", "", None) if result is None else module_tree(result)
        self.node_of = {node.index: node for node in self.root if node.index is not None}
        self._labels = {} if result is None else {c.index: c.label for c in result.layer_calls}
        self._shown = np.zeros(len(self.node_of), bool)
        self._shown[list(shown)] = True
        self._set_score(result)
        self._list()
        self.endResetModel()
        del before

    def set_filter(self, words: list[str], *, only_ticked: bool = False) -> None:
        """List only the rows that match, and their ancestors.

        Parameters
        ----------
        words : list of str
            In lower case; all of them are parts of the name or the kind.
        only_ticked : bool
            Whether rows without a ticked layer are left out.
        """
        # A reset, since a view takes seconds for hundreds of rows that are removed one by one.
        self.beginResetModel()
        self._words, self._only_ticked = words, only_ticked
        self._list()
        self.endResetModel()

    def _list(self) -> None:
        list_matching(self.root, self._accepts if self.is_filtered else None)

    def _accepts(self, node: Node) -> bool:
        if self._only_ticked and not self._shown[node.covered].any():
            return False
        return node.matches(self._words)

    @property
    def is_filtered(self) -> bool:
        """Whether some rows can be left out."""
        return bool(self._words) or self._only_ticked

    def is_listed(self, node: Node) -> bool:
        """Return whether a node is not filtered out."""
        while node.parent is not None:
            if node not in node.parent.listed[node.row : node.row + 1]:
                return False
            node = node.parent
        return node is self.root

    def set_findings(self, result: Result) -> None:
        """Update the scores of the shown result."""
        self._set_score(result)
        self._announce(SCORE)
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, SCORE, SCORE)

    def set_shown(self, shown: Sequence[int]) -> None:
        """Tick the layers that the stack shows."""
        self._shown[:] = False
        self._shown[list(shown)] = True
        self._announce(NAME)

    def _set_score(self, result: Result | None) -> None:
        self._score = None if result is None else score_column(result)
        if self._score is not None:
            finite = self._score[1][np.isfinite(self._score[1])]
            self._range = min(0.0, float(finite.min())), max(0.0, float(finite.max()))

    def _announce(self, column: int) -> None:
        # Views paint all of their rows again; a signal per parent would take longer.
        if self.root.listed:
            last = len(self.root.listed) - 1
            self.dataChanged.emit(self.index(0, column), self.index(last, column))

    # -- What is shown ---------------------------------------------------------------------------

    @property
    def shown(self) -> list[int]:
        """Indices of the ticked layers."""
        return [int(i) for i in np.flatnonzero(self._shown)]

    def is_shown(self, index: int) -> bool:
        """Return whether the stack shows a layer."""
        return bool(self._shown[index])

    def check_state(self, node: Node) -> Qt.CheckState | None:
        """Return whether all, some or none of the layers of a node are shown; None if it has none."""
        if not node.covered.size:
            return None
        count = np.count_nonzero(self._shown[node.covered])
        if not count:
            return Qt.CheckState.Unchecked
        return (
            Qt.CheckState.Checked if count == node.covered.size else Qt.CheckState.PartiallyChecked
        )

    def toggle(self, node: Node, *, alone: bool = False) -> None:
        """Ask to show the layers of a node and of all nodes below it, or no longer, if all are shown.

        Parameters
        ----------
        node : Node
        alone : bool
            Only the layer of the node itself.
        """
        covered = node.covered
        if alone:
            covered = np.array([] if node.index is None else [node.index], np.intp)
        if covered.size:
            wanted = self._shown.copy()
            wanted[covered] = not self._shown[covered].all()
            self.ticked.emit([int(i) for i in np.flatnonzero(wanted)])

    # -- Access by index -------------------------------------------------------------------------

    def node(self, index: QModelIndex) -> Node:
        """Return the node of an index."""
        return index.internalPointer() if index.isValid() else self.root

    def index_of(self, node: Node, column: int = 0) -> QModelIndex:
        """Return the index of a node."""
        return self.createIndex(node.row, column, node)

    def index(self, row: int, column: int, parent: QModelIndex = _ROOT) -> QModelIndex:
        children = self.node(parent).listed
        if 0 <= row < len(children) and 0 <= column <= SCORE:
            return self.createIndex(row, column, children[row])
        return QModelIndex()

    def parent(self, index: QModelIndex) -> QModelIndex:
        above = self.node(index).parent
        return QModelIndex() if above is None or above is self.root else self.index_of(above)

    def rowCount(self, parent: QModelIndex = _ROOT) -> int:
        return 0 if parent.column() > 0 else len(self.node(parent).listed)

    def columnCount(self, parent: QModelIndex = _ROOT) -> int:
        return SCORE + 1

    def hasChildren(self, parent: QModelIndex = _ROOT) -> bool:
        return bool(self.rowCount(parent))

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() == NAME and self.node(index).covered.size:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    # -- Data --------------------------------------------------------------------------------------

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        node, column = self.node(index), index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(node, column)
        if role == Qt.ItemDataRole.CheckStateRole and column == NAME:
            return self.check_state(node)
        if role == Qt.ItemDataRole.ForegroundRole:
            return self.faded if node.index is None else None
        if role == Qt.ItemDataRole.TextAlignmentRole and column == PARAMETERS:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == BAR and column == SCORE:
            value = self._value(node)
            return None if value is None else (value, *self._range)
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tip(node)
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        if role != Qt.ItemDataRole.CheckStateRole or index.column() != NAME:
            return False
        self.toggle(self.node(index))
        return True

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        score = "Score" if self._score is None else self._score[0]
        if role == Qt.ItemDataRole.DisplayRole:
            return ("Name", "Kind", "Output", "Params", score)[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return (
                "Module; ticked layers are those that the slider shows.",
                "Class of the module.",
                "Shape of the output, without its batch axis.",
                "Number of parameters of the module and its submodules.",
                "Score of the map of the layer; empty until the layers are scored."
                if self._score is None
                else f"{score} of the map of the layer.",
            )[section]
        return None

    def _text(self, node: Node, column: int) -> str:
        if column == NAME:
            return node.name
        if column == KIND:
            return node.kind
        if column == SHAPE:
            return node.shape
        if column == PARAMETERS:
            return "" if node.call is None else brief_count(node.call.parameters)
        return short(self._value(node))

    def _value(self, node: Node) -> float | None:
        if self._score is None or node.index is None:
            return None
        value = float(self._score[1][node.index])
        return value if np.isfinite(value) else None

    def _tip(self, node: Node) -> str:
        lines = [node.path]
        if node.call is not None:
            facts = [node.kind, node.shape, f"{node.call.parameters:,} parameters"]
            lines.append(", ".join(filter(None, facts)))
            if node.call.layout:
                lines.append(f"Layout: {node.call.layout}")
        value = self._value(node)
        if self._score is not None and value is not None:
            lines.append(f"{self._score[0]}: {short(value)}")
        why = reason(node, self._labels)
        if why:
            lines.append(f"No map: {why}.")
        return "\n".join(lines)
