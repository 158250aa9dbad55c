"""The panel below the canvas: scores of all layers, with a cursor that follows the slider."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
import numpy.typing as npt
from napari.layers import Image
from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QPoint, QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtGui import QCloseEvent, QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from camanim.curves import title_of
from camanim.render.figures import DARK, LIGHT, Theme, themed
from napari_camanim.canvas.fitting import keep_fitted
from napari_camanim.plots.drawing import Choice, Drawing, Request, draw
from napari_camanim.plots.navigation import next_best, next_stage
from napari_camanim.plots.popup import LayerPopup
from napari_camanim.plots.track import slider_track
from napari_camanim.plots.view import CurveView
from napari_camanim.session import Session, shown_plane, unwrapped

if TYPE_CHECKING:
    from napari import Viewer

    from camanim import Animation
    from camanim.findings import Finding

NAME = "Scores"
NO_STACK = "Scores of all layers appear here."
COMPUTING = "Scores are being computed."
NO_SCORES = "Scores appear here: check Score every layer (ROAD), and press Run."
NO_SECOND = "none"
#: Height of the dock at first, in pixels.
HEIGHT = 132
#: Width below which the summary is below the lists of curves, in pixels.
NARROW = 560
#: Milliseconds until a change is drawn, so that changes in sequence are drawn once; and between looks
#: whether a drawing is finished.
DELAY, POLL = 40, 15
#: Time between drawings of incoming scores, in units of the time that a drawing takes.
PAUSE = 3.0


@lru_cache(maxsize=1)
def _painter() -> ThreadPoolExecutor:
    """Return the thread in which plots are drawn: matplotlib takes longer than the window may wait."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="camanim-plots")


class CurvePanel(QWidget):
    """The curves of the current stack over the layers.

    A click moves the slider to a layer, a drag scrubs, and the pointer over a layer shows its name,
    values and map. Keys: left and right for the layers, up and down for better and worse ones, page up
    and page down for the stages of the network.

    Parameters
    ----------
    session : Session
    parent : QWidget, optional

    Signals
    -------
    drawn : ()
        A drawing is shown.
    """

    drawn = Signal()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._first = self._second = ""
        self._extras: dict[str, npt.NDArray[np.float64]] = {}
        self._job: Future[Drawing] | None = None
        self._drawing_of: Animation | None = None
        #: Seconds between the drawing in progress and the next one; None if none is requested.
        self._again: float | None = None
        self._started = self._seconds = 0.0
        #: The main window, and the areas of its corners before the panel was added.
        self._main: ref[Any] | None = None
        self._corners: list[tuple[Qt.Corner, Qt.DockWidgetArea]] = []
        self.first, self.second = QComboBox(), QComboBox()
        self.all_runs, self.words = QCheckBox(), QElidingLabel()
        self.view = CurveView()
        self.popup = LayerPopup(self)
        self._arrange()
        self._delay, self._poll = QTimer(self), QTimer(self)
        self._delay.setSingleShot(True)
        self._delay.timeout.connect(self._draw)
        self._poll.setInterval(POLL)
        self._poll.timeout.connect(self._take)
        self.first.activated.connect(self._on_first)
        self.second.activated.connect(self._on_second)
        self.all_runs.toggled.connect(self._redraw)
        self.view.moved.connect(self._go_to)
        self.view.hovered.connect(self._on_hovered)
        self.view.stepped.connect(self._on_stepped)
        self.view.resized.connect(self._redraw)
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        self._connect()
        # Closing napari deletes the widget without an event.
        self.destroyed.connect(partial(_disconnect, self._connections, session))
        self._on_current(session.current)

    def _arrange(self) -> None:
        self.first.setToolTip("The curve or plot that is shown.")
        self.second.setToolTip(
            "A second curve over the layers, dashed, with its axis on the right."
        )
        self.first.setAccessibleName("first curve")
        self.second.setAccessibleName("second curve")
        for box in (self.first, self.second):
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.all_runs.setText("all runs")
        self.all_runs.setToolTip("Show the first curve of every stack in the list of layers.")
        self.words.setElideMode(Qt.TextElideMode.ElideRight)
        self.words.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._and = QLabel("and")
        self._row = row = QHBoxLayout()
        row.setContentsMargins(4, 0, 4, 0)
        row.setSpacing(6)
        for widget in (self.first, self._and, self.second, self.all_runs):
            row.addWidget(widget)
        row.addWidget(self.words, 1)
        row.addStretch()
        self._box = box = QVBoxLayout(self)
        box.setContentsMargins(0, 2, 0, 0)
        box.setSpacing(2)
        box.addLayout(row)
        box.addWidget(self.view, 1)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def _connect(self) -> None:
        session, viewer = self._session, self._session.viewer
        session.retain()
        pairs: list[tuple[Any, Callable[..., None]]] = [
            (session.current_changed, self._on_current),
            (session.index_changed, self._on_index),
            (session.updated, self._on_updated),
            (session.listed, self._on_listed),
        ]
        if viewer is not None:
            pairs.append((viewer.events.theme, self._redraw))
        for signal, slot in pairs:
            signal.connect(slot)
            self._connections.append((signal, slot))

    # -- What is shown -----------------------------------------------------------------------------

    @property
    def drawing(self) -> Drawing:
        """What is drawn, and the positions of the layers in it."""
        return self.view.drawing

    @property
    def finding(self) -> Finding | None:
        """The finding of the first curve."""
        animation, title = self._session.animation, self.drawing.title
        if animation is None:
            return None
        for finding in animation.findings.values():
            offers = [offer.title for offer in finding.plots().values()]
            if title in (title_of(finding), *offers):
                return finding
        return None

    def choose(self, first: str | None = None, second: str | None = None) -> None:
        """Choose the curves by their titles in the lists; an empty second one for none."""
        self._first = self._first if first is None else first
        self._second = self._second if second is None else second
        self._redraw()

    def set_extra(self, name: str, values: Sequence[float] | npt.NDArray[Any]) -> None:
        """Draw an additional line; it replaces one of the same name, and is removed with the stack.

        Parameters
        ----------
        name : str
            Name in the legend.
        values : (L,) array
            A value for each layer of the current animation; NaN makes a gap.

        Raises
        ------
        ValueError
            If there is no current stack, or the number of values differs from that of its layers.
        """
        animation = self._session.animation
        count = 0 if animation is None else len(animation)
        array = np.asarray(values, np.float64)
        if array.shape != (count,):
            raise ValueError(f"{name} needs {count} values, one for each layer, not {array.shape}.")
        self._extras = {**self._extras, name: array}
        self._redraw()

    def clear_extra(self, name: str | None = None) -> None:
        """Remove an additional line, or all of them."""
        kept = {key: y for key, y in self._extras.items() if name is not None and key != name}
        if len(kept) != len(self._extras):
            self._extras = kept
            self._redraw()

    # -- Steps -------------------------------------------------------------------------------------

    def next_best(self, by: int = 1) -> None:
        """Go to the layer that follows the shown one in the order from the best to the worst."""
        stack, finding = self._session.current, self.finding
        if stack is not None and finding is not None:
            self._go_to(next_best(finding, self._session.index, by, stack.data.indices))

    def next_stage(self, by: int = 1) -> None:
        """Go to the first layer of the next stage of the network, or of a previous one."""
        stack = self._session.current
        if stack is not None:
            data = stack.data
            layers = data.animation.layers
            self._go_to(next_stage(layers, self._session.index, by, data.indices))

    def _go_to(self, index: int | None) -> None:
        if index is not None:
            self._session.go_to(index)

    def _on_stepped(self, step: str) -> None:
        stack = self._session.current
        if stack is None:
            return
        steps: Mapping[str, Callable[[], None]] = {
            "next": partial(self._session.step, 1),
            "previous": partial(self._session.step, -1),
            "first": partial(self._go_to, stack.data.indices[0]),
            "last": partial(self._go_to, stack.data.indices[-1]),
            "next stage": self.next_stage,
            "previous stage": partial(self.next_stage, -1),
            "better": partial(self.next_best, -1),
            "worse": self.next_best,
        }
        steps[step]()

    # -- Events ------------------------------------------------------------------------------------

    def _on_current(self, stack: Image | None) -> None:
        self._extras = {}
        self.popup.forget()
        self.view.set_index(None)
        self._redraw()

    def _on_index(self, index: int | None) -> None:
        # Nothing else, as this runs with each step of the slider.
        self.view.set_index(index)
        if self.drawing.of_layer:
            self._redraw()

    def _on_updated(self, stack: Image) -> None:
        if stack is self._session.current or self.all_runs.isChecked():
            self._extras = self._fitting_extras()
            self._redraw(pause=PAUSE * self._seconds)

    def _fitting_extras(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return the additional lines, without those of another number of layers."""
        animation = self._session.animation
        count = 0 if animation is None else len(animation)
        return {name: y for name, y in self._extras.items() if len(y) == count}

    def _on_listed(self) -> None:
        several = len(self._session.stacks) > 1
        self.all_runs.setVisible(several)
        if self.all_runs.isChecked():
            self._redraw()

    def _on_first(self, at: int) -> None:
        self.choose(first=self.first.itemText(at))

    def _on_second(self, at: int) -> None:
        self.choose(second=self.second.itemText(at) if at > 0 else "")

    def _on_hovered(self, index: int | None) -> None:
        stack, viewer = self._session.current, self._session.viewer
        if index is None or stack is None or viewer is None or index >= len(stack.data.animation):
            self.popup.hide()
            return
        texts = self.drawing.texts
        value = texts[index] if index < len(texts) else ""
        at = QPoint(round(self.view.position_of(index)), 0)
        plane = shown_plane(viewer, stack)
        self.popup.show_layer(stack.data, plane, index, value, self.view.mapToGlobal(at))

    # -- Drawing -----------------------------------------------------------------------------------

    def _redraw(self, event: Any = None, *, pause: float = 0.0) -> None:
        """Draw soon, or after the drawing in progress."""
        if self._job is not None:
            self._again = pause if self._again is None else min(pause, self._again)
        elif not self._delay.isActive():
            self._delay.start(max(DELAY, round(1000 * pause)))
        elif not pause:
            # Not later than what was asked for before.
            self._delay.start(min(DELAY, max(self._delay.remainingTime(), 0)))

    def _draw(self) -> None:
        """Start to draw in another thread."""
        stack, viewer = self._session.current, self._session.viewer
        if not self.isVisible() or viewer is None:
            # Drawn when it is shown.
            return
        if stack is None:
            self._show(Drawing())
            return
        track = slider_track(self.window(), len(stack.data), self.view)
        request = Request(
            animation=stack.data.animation,
            index=self._session.index,
            first=self._first,
            second=self._second,
            runs=self._runs(stack),
            extras=self._extras,
            size=(self.view.width(), self.view.height()),
            ratio=self.devicePixelRatioF(),
            theme=self._theme(),
            track=track,
        )
        self._started, self._drawing_of = perf_counter(), request.animation
        self._job = _painter().submit(draw, request)
        self._poll.start()

    def _take(self) -> None:
        """Show the drawing if it is finished."""
        job = self._job
        if job is None or not job.done():
            return
        self._poll.stop()
        self._job = None
        self._seconds = perf_counter() - self._started
        if self._again is not None:
            pause, self._again = self._again, None
            self._redraw(pause=pause)
        drawing, drawn_of = job.result(), self._drawing_of
        self._drawing_of = None
        # Another stack can have become the current one in the meantime.
        if self._session.animation is drawn_of:
            self._show(drawing)

    def _show(self, drawing: Drawing) -> None:
        self._fill(self.first, drawing.firsts, drawing.title)
        none = Choice(NO_SECOND, "No second curve.")
        self._fill(self.second, [none, *drawing.seconds], self._second or NO_SECOND)
        for widget in (self._and, self.second):
            widget.setVisible(bool(drawing.seconds))
        self.first.setVisible(bool(drawing.firsts))
        self.all_runs.setVisible(len(self._session.stacks) > 1)
        self.words.setText(drawing.summary)
        self.words.setToolTip(drawing.summary)
        stack = self._session.current
        computing = stack is not None and stack.data.run.computing
        message = COMPUTING if computing else NO_STACK if stack is None else NO_SCORES
        self.view.message = "" if drawing.pixels is not None else message
        self.view.setAccessibleDescription(drawing.summary or self.view.message)
        self.view.show_drawing(drawing, self._theme().colors["third"])
        self.view.set_index(self._session.index)
        self.drawn.emit()

    @staticmethod
    def _fill(box: QComboBox, choices: Sequence[Choice], chosen: str) -> None:
        """List choices, and select one."""
        titles = [choice.title for choice in choices]
        with QSignalBlocker(box):
            if titles != [box.itemText(i) for i in range(box.count())]:
                box.clear()
                box.addItems(titles)
                for i, choice in enumerate(choices):
                    box.setItemData(i, choice.tip, Qt.ItemDataRole.ToolTipRole)
            box.setCurrentIndex(titles.index(chosen) if chosen in titles else 0)

    def _runs(self, current: Image) -> dict[str, Any]:
        """Return the results of all stacks by name, the current one first; none unless asked for."""
        if not self.all_runs.isChecked():
            return {}
        others = [stack for stack in reversed(self._session.stacks) if stack is not current]
        return {stack.name: stack.data.animation for stack in (current, *others)}

    def _theme(self) -> Theme:
        """Return the theme of plots with the colours of napari's theme."""
        viewer = self._session.viewer
        if viewer is None:
            return DARK
        colors = get_theme(viewer.theme)
        text, background = str(colors.text), str(colors.background)
        theme = DARK if QColor(background).lightnessF() < 0.5 else LIGHT
        return themed(theme, text=QColor(text).name(), background=QColor(background).name())

    # -- Events of Qt ------------------------------------------------------------------------------

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self._redraw()

    def resizeEvent(self, event: Any) -> None:
        super().resizeEvent(event)
        narrow = self.width() < NARROW
        if narrow == (self._box.indexOf(self.words) < 0):
            # In a narrow panel, the summary has a line to itself.
            self._row.removeWidget(self.words)
            self._box.removeWidget(self.words)
            if narrow:
                self._box.insertWidget(1, self.words)
            else:
                # Before the space at the end.
                self._row.insertWidget(self._row.count() - 1, self.words, 1)

    def hideEvent(self, event: Any) -> None:
        self.popup.hide()
        super().hideEvent(event)

    def changeEvent(self, event: QEvent) -> None:
        # napari removes a dock by setting the widget's parent to None, without closing the widget.
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._close()
        super().changeEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        self._close()
        super().closeEvent(event)

    def keep_corners(self, window: QMainWindow) -> None:
        """Let the docks at both sides of a window reach its bottom, until the panel is closed."""
        sides = (
            (Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.LeftDockWidgetArea),
            (Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea),
        )
        # A weak reference, as the wrapper of the panel outlives the window.
        self._main = ref(window)
        for corner, area in sides:
            self._corners.append((corner, window.corner(corner)))
            window.setCorner(corner, area)

    def _close(self) -> None:
        """Disconnect from the session, and drop what is shown."""
        self._delay.stop()
        self._poll.stop()
        self._job = self._again = self._drawing_of = None
        self.popup.forget()
        window = None if self._main is None else self._main()
        while self._corners:
            corner, area = self._corners.pop()
            if window is not None:
                window.setCorner(corner, area)
        _disconnect(self._connections, self._session)


def _disconnect(
    connections: list[tuple[Any, Callable[..., None]]], session: Session, *_: object
) -> None:
    """Disconnect slots from signals, and release the session, once."""
    if not connections:
        return
    while connections:
        signal, slot = connections.pop()
        signal.disconnect(slot)
    session.release()


def show_panel(viewer: Viewer) -> CurvePanel:
    """Add the panel of scores below the canvas, as wide as the canvas; return the existing one if any.

    Parameters
    ----------
    viewer : napari.Viewer
        With a window.

    Returns
    -------
    CurvePanel
        In a dock that can be detached, resized and closed.
    """
    viewer = unwrapped(viewer)
    existing = viewer.window.dock_widgets.get(NAME)
    if isinstance(existing, CurvePanel):
        existing.parentWidget().show()
        return existing
    panel = CurvePanel(Session.of(viewer))
    keep_fitted(viewer)
    dock = viewer.window.add_dock_widget(panel, name=NAME, area="bottom")
    window = dock.window()
    panel.keep_corners(window)
    window.resizeDocks([dock], [HEIGHT], Qt.Orientation.Vertical)
    return panel
