"""The badge on the canvas: one line about the shown map, why it is not seen, and its colour bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary, ref

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QCoreApplication

from napari_camanim.canvas.painted import (
    PaintedColorBar,
    PaintedText,
    colors_of,
)
from napari_camanim.layers.metadata import KEY
from napari_camanim.session import Session, unwrapped

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from camanim.result import Result

FONT_SIZE = 9
#: Average width of a character, and the margins of the box, in pixels.
CHARACTER, MARGINS = 7.6, 24
#: To this length a name is shortened before facts are left out.
NAME = 20
#: Name of the colour bar among the overlays of the canvas.
BAR = f"{KEY}_bar"
#: Separator of the facts on a line.
SEPARATOR = "   "
#: Events of a layer that change its colours.
COLORING = ("colormap", "contrast_limits", "gamma")
#: Blending modes in which an opaque layer hides what is below.
COVERING = ("opaque", "translucent", "translucent_no_depth")


def badge_line(result: Result, i: int, place: str, width: float, peak: float | None = None) -> str:
    """Return the facts about a map in one line that fits the canvas.

    Where the canvas is narrow, the name is shortened, and the less important facts are left out.

    Parameters
    ----------
    result : Result
    i : int
        Index of the layer.
    place : str
        The explained slice; empty without one.
    width : float
        Width of the canvas in pixels.
    peak : float, optional
        Highest value of the map on a common scale of all layers, which can be small.
    """
    length = max(12, int((width - MARGINS) / CHARACTER))
    name = result.layers[i].label
    count = f"{i + 1}/{len(result)}"
    unit = ".2f" if result.target.unit == "probability" else ".3g"
    # From the most important one.
    ranked = [
        count,
        "random weights" if result.random_weights else "",
        evidence(result, i),
        "" if peak is None or peak <= 0 else f"peak {peak:.2g}",
        *(finding.badge(i) for finding in result.findings.values()),
        place,
        f"{result.target.name} {result.probability:{unit}}{_mean(result)}",
    ]
    facts = list(filter(None, ranked))
    while len(facts) > 1 and len(SEPARATOR.join([name[:NAME], *facts])) > length:
        facts.pop()
    left = length - len(SEPARATOR.join(["", *facts]))
    return SEPARATOR.join([shortened(name, max(left, 8)), *facts])


def evidence(result: Result, i: int) -> str:
    """Return "no positive evidence" for a map without positive values, otherwise an empty string."""
    # Normalised by its maximum, weak evidence would look like strong evidence.
    return "" if result.highest(i) > 0 else "no positive evidence"


def _mean(result: Result) -> str:
    """Return that the value is a mean, if each slice of a volume was explained."""
    return f" (mean of {len(result.tensor)} slices)" if len(result.tensor) > 1 else ""


def shortened(name: str, length: int) -> str:
    """Shorten a name in its middle, as both ends of a module's name distinguish it."""
    if len(name) <= length:
        return name
    half = (length - 1) // 2
    return f"{name[: length - 1 - half]}…{name[len(name) - half :]}"


def raw_ends(stack: Image, index: int) -> tuple[str, str]:
    """Return the raw values that have the first and the last colour of a shown map.

    Parameters
    ----------
    stack : napari.layers.Image
    index : int
        Index of the layer of the network.
    """
    low, high = stack.data.limits(index)
    first, last = (low + float(share) * (high - low) for share in stack.contrast_limits)
    # Two digits, unless more of them tell the ends apart.
    digits = next((n for n in (2, 3, 4) if f"{first:.{n}g}" != f"{last:.{n}g}"), 2)
    return f"{first:.{digits}g}", f"{last:.{digits}g}"


def hindrance(viewer: ViewerModel, stack: Image, index: int | None) -> str:
    """Return why the canvas does not show the map over its image, in a few words; empty if it does.

    Parameters
    ----------
    viewer : napari viewer
    stack : napari.layers.Image
        The current stack.
    index : int or None
        Index of the shown layer of the network.
    """
    run = stack.data.run
    layers = [unwrapped(layer) for layer in viewer.layers]
    # The canvas is resized before the removal of a layer is announced.
    if stack not in layers:
        return ""
    if index is None:
        if any(axis - viewer.dims.ndim + stack.ndim == 0 for axis in viewer.dims.displayed):
            return ""
        return f"no map here: the maps are of {run.place or 'another position'}"
    image = run.image
    if image is None or image not in layers:
        return f"the image {run.image_name} was removed"
    if not image.visible or image.opacity == 0:
        return f"the image {image.name} is hidden"
    at, base = layers.index(stack), layers.index(image)
    for place, layer in enumerate(layers):
        if layer is image or layer is stack or not _covers(layer, stack):
            continue
        if place > at:
            return f"covered by {layer.name}"
        if place > base:
            return f"{layer.name} covers the image {image.name}"
    return (
        f"the maps are below the image {image.name}" if base > at and _covers(image, stack) else ""
    )


def _covers(layer: Any, stack: Image) -> bool:
    """Return whether a layer hides what is below it, somewhere within a stack."""
    # Pictures of the plugin, such as the edited image of a what-if, are shown on purpose.
    if not isinstance(layer, Image) or KEY in layer.metadata or not layer.visible:
        return False
    if layer.opacity < 0.5 or str(layer.blending) not in COVERING:
        return False
    one, two = layer.extent.world[:, -2:], stack.extent.world[:, -2:]
    return bool(np.all((one[0] < two[1]) & (two[0] < one[1])))


class Badge:
    """Updates badge and colour bar on the canvas until the last stack is removed.

    Parameters
    ----------
    session : Session
    """

    _of_session: ClassVar[WeakKeyDictionary[Session, Badge]] = WeakKeyDictionary()

    def __init__(self, session: Session, viewer: ViewerModel) -> None:
        # A weak reference, as the session is a key of `_of_session`.
        self._session = ref(session)
        #: Whether the whole caption is shown instead of one line.
        self._whole = False
        self._enabled = True
        if QCoreApplication.instance() is not None:
            # Needs OpenGL, which scripts without a window may lack.
            from napari_camanim.canvas.visuals import register

            register()
        # Without a colour, so that the text contrasts with the canvas in every theme.
        self.overlay = PaintedText(visible=True, position="top_left", font_size=FONT_SIZE)
        self.bar = PaintedColorBar(visible=False, position="bottom_right")
        viewer.canvas.overlays[KEY] = self.overlay
        viewer.canvas.overlays[BAR] = self.bar
        self._colored: Image | None = None
        session.moved.connect(self.update)
        session.updated.connect(self._on_updated)
        session.listed.connect(self._on_listed)
        viewer.canvas.events.size.connect(self.update)
        self.update()

    @classmethod
    def on(cls, session: Session) -> Badge | None:
        """Return the badge of a session; create it on first use. None if the viewer was deleted."""
        viewer = session.viewer
        if viewer is None:
            return None
        if session not in cls._of_session:
            cls._of_session[session] = cls(session, viewer)
        return cls._of_session[session]

    @property
    def whole(self) -> bool:
        """Whether all facts about the map are shown, on several lines, instead of one line."""
        return self._whole

    @whole.setter
    def whole(self, whole: bool) -> None:
        self._whole = whole
        self.update()

    @property
    def enabled(self) -> bool:
        """Whether badge and colour bar are shown at all; not where each of several cells has its own."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        self.update()

    def update(self, event: Any = None) -> None:
        """Show the badge of the shown map, or hide it."""
        session = self._session()
        viewer = None if session is None else session.viewer
        if session is None or viewer is None:
            return
        stack = session.current if self._enabled else None
        text = "" if stack is None else self._text(viewer, stack, session.index)
        if text and text != self.overlay.text:
            self.overlay.text = text
        if self.overlay.visible != bool(text):
            self.overlay.visible = bool(text)
        self._show_bar(stack, session.index)

    def _text(self, viewer: ViewerModel, stack: Image, index: int | None) -> str:
        width = viewer.canvas.size[1]
        lines: list[str] = []
        if index is not None:
            run = stack.data.run
            if self._whole:
                about = stack.metadata[KEY]["captions"][index].split("\n")
                lines += [*about, run.place] if run.place else about
            else:
                peak = stack.data.peaks[index] if stack.data.normalization == "global" else None
                lines.append(badge_line(run.animation, index, run.place, width, peak))
        problem = hindrance(viewer, stack, index)
        length = max(12, int((width - MARGINS) / CHARACTER))
        lines += [shortened(problem, length)] if problem else []
        return "\n".join(lines)

    def _show_bar(self, stack: Image | None, index: int | None) -> None:
        """Show the colours of the current stack, with the raw values at both ends."""
        if stack is not self._colored:
            self._color_by(stack)
        if stack is not None and index is not None:
            for name, value in zip(("low", "high"), raw_ends(stack, index), strict=True):
                if getattr(self.bar, name) != value:
                    setattr(self.bar, name, value)
        visible = stack is not None and index is not None
        if self.bar.visible != visible:
            self.bar.visible = visible

    def _color_by(self, stack: Image | None) -> None:
        """Follow the colours of a stack."""
        for name in COLORING:
            if self._colored is not None:
                self._colored.events[name].disconnect(self._on_colors)
            if stack is not None:
                stack.events[name].connect(self._on_colors)
        self._colored = stack
        if stack is not None:
            self.bar.colors = colors_of(stack)

    def _on_colors(self, event: Any = None) -> None:
        if self._colored is not None:
            self.bar.colors = colors_of(self._colored)
            self.update()

    def _on_updated(self, stack: Image) -> None:
        self.update()

    def _on_listed(self) -> None:
        session = self._session()
        viewer = None if session is None else session.viewer
        if session is not None and viewer is not None and not session.stacks:
            self._color_by(None)
            session.moved.disconnect(self.update)
            session.updated.disconnect(self._on_updated)
            session.listed.disconnect(self._on_listed)
            viewer.canvas.events.size.disconnect(self.update)
            viewer.canvas.overlays.pop(KEY, None)
            viewer.canvas.overlays.pop(BAR, None)
            self._of_session.pop(session, None)
