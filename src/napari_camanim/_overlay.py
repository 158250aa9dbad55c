"""The line of text on the canvas: which layer this is, and how well it explains the prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary, ref

from napari.components.overlays import TextOverlay

from napari_camanim._layers import current_stack, is_stack, shown_index, unwrapped
from napari_camanim._metadata import KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel


class Caption:
    """Keeps the text on one viewer's canvas true, for as long as there is a stack.

    When the last stack is removed, the text goes and every connection with it.
    """

    _of_viewer: ClassVar[WeakKeyDictionary[ViewerModel, Caption]] = WeakKeyDictionary()

    def __init__(self, viewer: ViewerModel) -> None:
        # The viewer keeps us (`_of_viewer`), not we the viewer.
        self._viewer = ref(viewer)
        # Without a colour of its own the text contrasts with the canvas in every theme.
        self.overlay = TextOverlay(visible=True, position="bottom_left", font_size=9, box=True)
        viewer.canvas.overlays[KEY] = self.overlay
        self._events = [
            viewer.dims.events.point,
            viewer.dims.events.ndisplay,
            viewer.dims.events.order,
            viewer.layers.selection.events.active,
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.reordered,
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
            self.overlay.text = stack.metadata[KEY]["captions"][index]

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
