"""`LayerTree`, the widget of the layers of the current stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary, WeakMethod

from napari.layers import Image
from qtpy.QtCore import (
    QByteArray,
    QEvent,
    QModelIndex,
    QSize,
    Qt,
    Signal,
)
from qtpy.QtGui import QKeyEvent, QKeySequence, QPalette
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QToolButton,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from napari_camanim.session import Session
from napari_camanim.tree.delegates import CheckOutline, ScoreBar
from napari_camanim.tree.model import NAME, SCORE, LayerModel
from napari_camanim.tree.nodes import Node

if TYPE_CHECKING:
    from camanim import Animation

EMPTY = "Run a method on an image, or select a stack of maps: its layers are listed here."
#: Widths of the columns in pixels; together they fit the dock.
WIDTHS = (84, 53, 71, 42, 38)
HEIGHT, WIDTH = 260, 290


class TreeView(QTreeView):
    """A tree whose keys tick rows.

    Signals
    -------
    ticked : (QModelIndex, bool)
        The user pressed the space bar at a row, with Shift (True) or without.
    """

    ticked = Signal(QModelIndex, bool)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        index = self.currentIndex()
        if event.key() == Qt.Key.Key_Space and index.isValid():
            shift = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            self.ticked.emit(index.siblingAtColumn(NAME), shift)
            return
        if event.matches(QKeySequence.StandardKey.Find):
            # For the parent, instead of a search for a row that begins with this key.
            event.ignore()
            return
        super().keyPressEvent(event)


class LayerTree(QWidget):
    """The layers of the current stack's network, as the tree of its modules.

    Ticked layers are those that the stack shows; the selected row is the layer that is seen.

    Parameters
    ----------
    session : Session
    parent : QWidget, optional

    Attributes
    ----------
    model : LayerModel
    view : TreeView
    filter : QLineEdit
    buttons : dict of str to QToolButton
        ``only_ticked``, ``all``, ``none`` and ``matches``.
    """

    #: Widths and order of the columns, kept while napari is open.
    _headers: ClassVar[WeakKeyDictionary[Session, QByteArray]] = WeakKeyDictionary()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._animation: Animation | None = None
        self._findings: tuple[Any, ...] = ()
        #: Whether the selection follows the slider, so that it does not move it in turn.
        self._following = False
        #: The expanded nodes before rows were filtered.
        self._expanded: list[Node] | None = None
        self._create()
        self._lay_out()
        self._connect()
        self._show_stack(session.current)

    def sizeHint(self) -> QSize:
        return QSize(WIDTH, HEIGHT)

    # -- Widgets -----------------------------------------------------------------------------------

    def _create(self) -> None:
        self.model = LayerModel(self)
        self.view = TreeView()
        self.view.setModel(self.model)
        self.view.setItemDelegateForColumn(NAME, CheckOutline(self.view))
        self.view.setItemDelegateForColumn(SCORE, ScoreBar(self.view))
        self.view.setUniformRowHeights(True)
        self.view.setIndentation(10)
        self.view.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.view.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        header = self.view.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(24)
        # Seen without scrolling.
        header.moveSection(SCORE, NAME + 1)
        for column, width in enumerate(WIDTHS):
            header.resizeSection(column, width)
        if self._session in self._headers:
            header.restoreState(self._headers[self._session])
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Filter by name or kind")
        self.filter.setClearButtonEnabled(True)
        self.filter.setToolTip(
            "Show rows whose name or kind contains all of these words (Ctrl+F; Escape clears)."
        )
        self.buttons = {
            "only_ticked": _button("Only ticked", "List only rows with ticked layers."),
            "all": _button("All", "Tick all layers."),
            "none": _button("None", "Untick all layers but the one that is shown."),
            "matches": _button("Matches", "Tick the layers that match the filter, and no others."),
        }
        self.buttons["only_ticked"].setCheckable(True)
        self.status = QLabel()
        self.empty = QLabel(EMPTY)
        self.empty.setWordWrap(True)
        self.view.setToolTip("Arrows move, Space ticks, Shift+Space ticks the row alone.")

    def _lay_out(self) -> None:
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(3)
        row = QHBoxLayout()
        row.setSpacing(2)
        for button in self.buttons.values():
            row.addWidget(button)
        row.addStretch()
        box.addWidget(self.empty)
        box.addWidget(self.filter)
        self.actions_row = QWidget()
        row.setContentsMargins(0, 0, 0, 0)
        self.actions_row.setLayout(row)
        box.addWidget(self.actions_row)
        box.addWidget(self.view, 1)
        box.addWidget(self.status)
        box.addStretch()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._set_colors()

    def _set_colors(self) -> None:
        text = self.palette().color(QPalette.ColorRole.WindowText)
        # Legible in either theme, and clearly weaker than other rows.
        text.setAlphaF(0.5)
        self.model.faded = text
        self.view.viewport().update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        # Keys that the child with the focus has not used.
        if event.matches(QKeySequence.StandardKey.Find):
            self.filter.setFocus(Qt.FocusReason.ShortcutFocusReason)
            self.filter.selectAll()
        elif event.key() == Qt.Key.Key_Escape and self.filter.text():
            self.filter.clear()
            self._focus_view()
        else:
            super().keyPressEvent(event)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self._set_colors()

    # -- Connections -----------------------------------------------------------------------------

    def _connect(self) -> None:
        session = self._session
        session.retain()
        slots: list[tuple[Any, Callable[..., None]]] = [
            (session.current_changed, self._show_stack),
            (session.updated, self._on_updated),
            (session.index_changed, self._on_index),
        ]
        for signal, slot in slots:
            signal.connect(slot)
        # Deleted with its parent, a widget gets no event. Weak, so that nothing keeps it from that.
        weak = [(signal, WeakMethod(slot)) for signal, slot in slots]
        self.destroyed.connect(partial(_disconnect, session, weak))
        self.filter.textChanged.connect(self._on_filter)
        self.filter.returnPressed.connect(self._focus_view)
        self.buttons["only_ticked"].toggled.connect(self._on_filter)
        self.buttons["all"].clicked.connect(self.tick_all)
        self.buttons["none"].clicked.connect(self.tick_none)
        self.buttons["matches"].clicked.connect(self.tick_matches)
        self.model.ticked.connect(self._tick)
        self.view.ticked.connect(self._on_key)
        self.view.selectionModel().currentChanged.connect(self._on_current)
        header = self.view.header()
        header.sectionResized.connect(self._on_header)
        header.sectionMoved.connect(self._on_header)

    # -- The session -------------------------------------------------------------------------------

    def _show_stack(self, stack: Image | None) -> None:
        """List the layers of a stack; None for the empty state."""
        animation = None if stack is None else stack.data.animation
        for widget in (self.filter, self.actions_row, self.view, self.status):
            widget.setVisible(stack is not None)
        self.empty.setVisible(stack is None)
        shown = () if stack is None else stack.data.indices
        findings = () if animation is None else tuple(animation.findings.values())
        if animation is not self._animation:
            self._animation = animation
            self._list(animation, shown)
        elif animation is not None:
            if shown != tuple(self.model.shown):
                self.model.set_shown(shown)
                if self.buttons["only_ticked"].isChecked():
                    self._on_filter()
            if [id(f) for f in findings] != [id(f) for f in self._findings]:
                self.model.set_findings(animation)
        self._findings = findings
        self.view.viewport().update()
        self._show_status()
        self._on_index(self._session.index)

    def _list(self, animation: Animation | None, shown: Sequence[int]) -> None:
        with self._resetting():
            self.model.set_result(animation, shown)
        self._expanded = None
        if self.model.is_filtered:
            self.view.expandAll()

    @contextmanager
    def _resetting(self) -> Iterator[None]:
        """Keep widths of columns, which a reset of the model sets to their defaults."""
        header = self.view.header()
        state = header.saveState()
        header.blockSignals(True)
        self._following = True
        try:
            yield
        finally:
            header.restoreState(state)
            header.blockSignals(False)
            self._following = False

    def _on_updated(self, stack: Image) -> None:
        if stack is self._session.current:
            self._show_stack(stack)

    def _on_index(self, index: int | None) -> None:
        """Select the row of the layer that is seen, and expand the tree to it."""
        if index is None or index not in self.model.node_of:
            return
        current = self._node(self.view.currentIndex())
        # Otherwise selected by the user, possibly another row with the same tensor.
        if current is None or current.shows != index:
            self._select(self.model.node_of[index])

    def _select(self, node: Node | None) -> None:
        """Select a row and expand the tree to it, without moving the slider; None selects nothing."""
        listed = node is not None and self.model.is_listed(node)
        at = self.model.index_of(node) if listed and node is not None else QModelIndex()
        self._following = True
        try:
            self.view.setCurrentIndex(at)
        finally:
            self._following = False
        if listed:
            self.view.scrollTo(at)

    def _on_current(self, current: QModelIndex, previous: QModelIndex) -> None:
        node = self._node(current)
        if self._following or node is None or node.shows is None:
            return
        # The slider has no position for a layer that is not ticked.
        if node.shows != self._session.index and self.model.is_shown(node.shows):
            self._session.go_to(node.shows)

    def _node(self, index: QModelIndex) -> Node | None:
        return self.model.node(index) if index.isValid() else None

    # -- Ticks -------------------------------------------------------------------------------------

    def tick_all(self) -> None:
        """Show all layers."""
        self._session.select_layers(None)

    def tick_none(self) -> None:
        """Show only the layer that is seen now, as a stack shows at least one."""
        index = self._session.index
        shown = self.model.shown
        if index is not None or shown:
            self._session.select_layers([shown[-1] if index is None else index])

    def tick_matches(self) -> None:
        """Show the layers that match the filter, and no others."""
        words = self._words()
        matching = {n.shows for n in self.model.root if n.shows is not None and n.matches(words)}
        self._tick(sorted(matching))

    def _tick(self, indices: list[int]) -> None:
        if indices:
            selected = self._node(self.view.currentIndex())
            self._session.select_layers(indices)
            # Where the seen layer was unticked, the slider moves; the keys stay at their row.
            self._select(selected)
        else:
            self.status.setText("A stack shows at least one layer.")

    def _on_key(self, at: QModelIndex, alone: bool) -> None:
        node = self._node(at)
        if node is not None:
            self.model.toggle(node, alone=alone)

    # -- Filter ------------------------------------------------------------------------------------

    def _words(self) -> list[str]:
        words: list[str] = self.filter.text().lower().split()
        return words

    def _on_filter(self, value: object = None) -> None:
        """List the rows that match, and their ancestors."""
        words, only_ticked = self._words(), self.buttons["only_ticked"].isChecked()
        if not self.model.is_filtered:
            self._expanded = self._expanded_nodes()
        selected = self._node(self.view.currentIndex())
        with self._resetting():
            self.model.set_filter(words, only_ticked=only_ticked)
        if self.model.is_filtered:
            self.view.expandAll()
        else:
            for node in self._expanded or ():
                self.view.expand(self.model.index_of(node))
            self._expanded = None
        self._show_status()
        self._select(selected)
        self._on_index(self._session.index)

    def _expanded_nodes(self) -> list[Node]:
        """Return the nodes whose children are visible, parents first."""
        return [
            node
            for node in self.model.root
            if node.children and self.view.isExpanded(self.model.index_of(node))
        ]

    def _show_status(self) -> None:
        maps = len(self.model.node_of)
        text = f"{len(self.model.shown)} of {maps} maps ticked"
        words = self._words()
        if words:
            text += f", {sum(node.matches(words) for node in self.model.root)} rows match"
        self.status.setText(text)
        self.buttons["matches"].setEnabled(bool(words))

    def _focus_view(self) -> None:
        self.view.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def _on_header(self, *change: int) -> None:
        self._headers[self._session] = self.view.header().saveState()


def _disconnect(session: Session, slots: list[tuple[Any, WeakMethod[Any]]], *_: object) -> None:
    for signal, weak in slots:
        slot = weak()
        if slot is not None:
            signal.disconnect(slot, missing_ok=True)
    session.release()


def _button(text: str, tip: str) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    button.setAutoRaise(True)
    # napari's themes style tool buttons for icons, so that a checked text button looks unchecked.
    button.setStyleSheet(
        "QToolButton { border: none; border-bottom: 2px solid transparent; padding: 2px 5px; "
        "background: transparent; }"
        "QToolButton:hover { background: palette(button); }"
        "QToolButton:checked { border-bottom: 2px solid palette(highlight); font-weight: bold; }"
    )
    return button
