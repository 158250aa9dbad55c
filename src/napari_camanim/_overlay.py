"""The caption on the canvas: name, target and findings of the shown layer."""

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
#: Average width of a character, and the margins of the box, in pixels.
CHARACTER, MARGINS = 8.3, 24
#: Separator of the facts on a line.
SEPARATOR = "   "
#: Possible line breaks within a fact: after a space, and between the parts of a module's name.
_BREAKS = re.compile(r"(?<=[ _/])|(?<=\.)(?=[^\W\d])")


def wrapped(caption: str, width: float) -> str:
    """Return a caption with lines that fit the canvas, broken between facts or within long ones.

    Parameters
    ----------
    caption : str
    width : float
        Width of the canvas in pixels.
    """
    max_length = max(12, int((width - MARGINS) / CHARACTER))
    return "\n".join(part for line in caption.split("\n") for part in _wrap_line(line, max_length))


def _wrap_line(line: str, max_length: int) -> list[str]:
    parts: list[str] = []
    for fact in line.split(SEPARATOR):
        longer = f"{parts[-1]}{SEPARATOR}{fact}" if parts else fact
        if len(longer) <= max_length:
            parts[-1:] = [longer]
        else:
            parts += _wrap_fact(fact, max_length)
    return parts


def _wrap_fact(fact: str, max_length: int) -> list[str]:
    parts = [""]
    for word in _BREAKS.split(fact):
        if parts[-1] and len(f"{parts[-1]}{word}".rstrip()) > max_length:
            parts.append("")
        whole = parts[-1] + word
        parts[-1:] = [whole[i : i + max_length] for i in range(0, len(whole), max_length)] or [""]
    return [part.rstrip() for part in parts if part.strip()] or [""]


class Caption:
    """Updates the caption on the canvas of a viewer until the last stack is removed."""

    _of_viewer: ClassVar[WeakKeyDictionary[ViewerModel, Caption]] = WeakKeyDictionary()

    def __init__(self, viewer: ViewerModel) -> None:
        # A weak reference, as the viewer is a key of `_of_viewer`.
        self._viewer = ref(viewer)
        # Without a colour, so that the text contrasts with the canvas in every theme.
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
        """Return the updated caption of a viewer; create it on first use."""
        viewer = unwrapped(viewer)
        if viewer not in cls._of_viewer:
            cls._of_viewer[viewer] = cls(viewer)
        caption = cls._of_viewer[viewer]
        caption.update()
        return caption

    def update(self, event: Any = None) -> None:
        """Show the caption of the shown layer, or hide it."""
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
        """Remove the text from the canvas, and disconnect from all events."""
        for event in self._events:
            event.disconnect(self.update)
        self._watch([])
        viewer.canvas.overlays.pop(KEY, None)
        self._of_viewer.pop(viewer, None)
