"""The line of text on the canvas: which layer this is, and how well it explains the prediction."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary, ref

from napari.components.overlays import TextOverlay

from napari_camanim._layers import current_stack, is_stack, shown_index, unwrapped
from napari_camanim._metadata import KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel

FONT_SIZE = 9
#: Pixels that a character takes on average, and those that the box leaves at both edges.
CHARACTER, EDGES = 8.3, 24
#: What stands between two facts on a line.
BETWEEN = "   "
#: Where a fact may be broken: after a space, and between the parts of a module's name.
_JOINTS = re.compile(r"(?<=[ _/])|(?<=\.)(?=[^\W\d])")


def wrapped(caption: str, width: float) -> str:
    """Break a caption's lines where they would leave the canvas: between two facts, or else words.

    Parameters
    ----------
    caption : str
    width : float
        Of the canvas in pixels.
    """
    fitting = max(12, int((width - EDGES) / CHARACTER))
    return "\n".join(part for line in caption.split("\n") for part in _broken(line, fitting))


def _broken(line: str, fitting: int) -> list[str]:
    parts: list[str] = []
    for fact in line.split(BETWEEN):
        longer = f"{parts[-1]}{BETWEEN}{fact}" if parts else fact
        if len(longer) <= fitting:
            parts[-1:] = [longer]
        else:
            parts += _split(fact, fitting)
    return parts


def _split(fact: str, fitting: int) -> list[str]:
    parts = [""]
    for word in _JOINTS.split(fact):
        if parts[-1] and len(f"{parts[-1]}{word}".rstrip()) > fitting:
            parts.append("")
        whole = parts[-1] + word
        parts[-1:] = [whole[i : i + fitting] for i in range(0, len(whole), fitting)] or [""]
    return [part.rstrip() for part in parts if part.strip()] or [""]


class Caption:
    """Keeps the text on one viewer's canvas true, for as long as there is a stack.

    When the last stack is removed, the text goes and every connection with it.
    """

    _of_viewer: ClassVar[WeakKeyDictionary[ViewerModel, Caption]] = WeakKeyDictionary()

    def __init__(self, viewer: ViewerModel) -> None:
        # The viewer keeps us (`_of_viewer`), not we the viewer.
        self._viewer = ref(viewer)
        # Without a colour of its own the text contrasts with the canvas in every theme.
        self.overlay = TextOverlay(
            visible=True, position="bottom_left", font_size=FONT_SIZE, box=True
        )
        viewer.canvas.overlays[KEY] = self.overlay
        self._events = [
            viewer.dims.events.point,
            viewer.dims.events.ndisplay,
            viewer.dims.events.order,
            viewer.layers.selection.events.active,
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.reordered,
            viewer.canvas.events.size,
        ]
        for event in self._events:
            event.connect(self.update)
        self._watched: list[Any] = []

    @classmethod
    def on(cls, viewer: ViewerModel) -> Caption:
        """Return the viewer's caption, made when there is none, and bring it up to date."""
        # The caption belongs to the viewer itself, however it was reached.
        viewer = unwrapped(viewer)
        if viewer not in cls._of_viewer:
            cls._of_viewer[viewer] = cls(viewer)
        caption = cls._of_viewer[viewer]
        caption.update()
        return caption

    def update(self, event: Any = None) -> None:
        """Write what the shown slice is."""
        viewer = self._viewer()
        if viewer is None:
            return
        stacks = [layer for layer in viewer.layers if is_stack(layer)]
        if not stacks:
            self._remove(viewer)
            return
        self._watch(stacks)
        stack = current_stack(viewer)
        index = None if stack is None else shown_index(viewer, stack)
        self.overlay.visible = index is not None
        if stack is not None and index is not None:
            caption = stack.metadata[KEY]["captions"][index]
            self.overlay.text = wrapped(caption, viewer.canvas.size[1])

    def _watch(self, stacks: list[Any]) -> None:
        for layer in self._watched:
            if layer not in stacks:
                layer.events.visible.disconnect(self.update)
        for layer in stacks:
            if layer not in self._watched:
                layer.events.visible.connect(self.update)
        self._watched = stacks

    def _remove(self, viewer: ViewerModel) -> None:
        """Take the text off the canvas and disconnect."""
        for event in self._events:
            event.disconnect(self.update)
        self._watch([])
        viewer.canvas.overlays.pop(KEY, None)
        self._of_viewer.pop(viewer, None)
