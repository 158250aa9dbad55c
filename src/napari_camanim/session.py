"""State of the plugin in one viewer: the stacks, which of them is seen, and at which layer.

Badge, curves, layer tree, comparison and dock connect to the signals of a `Session` instead of to events
of napari, and change what is seen through its methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary, ref

import numpy as np
from napari.layers import Image
from psygnal import Signal

from napari_camanim.layers.metadata import CamMetadata
from napari_camanim.layers.run import Run
from napari_camanim.layers.stack import (
    StackData,
    guided_layer,
    is_stack,
    name_of,
    set_data,
    set_metadata,
    stack_layer,
    stack_placement,
    update_metadata,
)
from napari_camanim.layers.views import index_in

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from camanim import Animation
    from camanim.stack import Normalization


def unwrapped(proxied: Any) -> Any:
    """Return the layer or viewer behind the proxy that napari passes to plugins."""
    return getattr(proxied, "__wrapped__", proxied)


class Session:
    """Results shown in one viewer.

    Of the visible stacks, the current one is the selected one if it has a map at the position of the
    sliders, otherwise the topmost with a map, otherwise the topmost.

    Parameters
    ----------
    viewer : napari viewer

    Attributes
    ----------
    current : napari.layers.Image or None
        The current stack.
    index : int or None
        Index of the shown layer of the network in the animation of the current stack; None if no map or
        several maps are shown.

    Signals
    -------
    current_changed : (Image or None,)
        Another stack is the current one.
    index_changed : (int or None,)
        Another layer of the network is shown.
    updated : (Image,)
        Data, findings or normalisation of a stack were changed.
    listed : ()
        A stack was added, removed, renamed, shown, hidden or moved in the list.
    moved : ()
        The sliders, the layers or the current stack were changed in any way.
    """

    current_changed = Signal(object)
    index_changed = Signal(object)
    updated = Signal(object)
    listed = Signal()
    moved = Signal()

    _of_viewer: ClassVar[WeakKeyDictionary[ViewerModel, Session]] = WeakKeyDictionary()

    def __init__(self, viewer: ViewerModel) -> None:
        # A weak reference, as the viewer is a key of `_of_viewer`.
        self._viewer = ref(viewer)
        self.current: Image | None = None
        self.index: int | None = None
        #: The open comparison, if any; see `napari_camanim.comparison.view`.
        self.comparison: Any = None
        #: Whether the panel of scores was shown with a result; the user may have closed it.
        self.panel_shown = False
        self._users = 0
        #: Layers whose visibility, opacity and blending are observed.
        self._watched: list[Any] = []
        layers, dims = viewer.layers.events, viewer.dims.events
        self._connections: list[tuple[Any, Callable[..., None]]] = [
            (layers.inserted, self._on_layers),
            (layers.removed, self._on_layers),
            (layers.reordered, self._on_layers),
            (layers.renamed, self._on_layers),
            (viewer.layers.selection.events.active, self._on_move),
            (dims.point, self._on_move),
            (dims.ndisplay, self._on_move),
            (dims.order, self._on_move),
        ]
        for event, slot in self._connections:
            event.connect(slot)
        self._on_layers()

    # -- One session per viewer --------------------------------------------------------------------

    @classmethod
    def of(cls, viewer: ViewerModel) -> Session:
        """Return the session of a viewer; create it on first use."""
        viewer = unwrapped(viewer)
        if viewer not in cls._of_viewer:
            cls._of_viewer[viewer] = cls(viewer)
        return cls._of_viewer[viewer]

    @property
    def viewer(self) -> ViewerModel | None:
        """The viewer; None once it was deleted."""
        return self._viewer()

    def retain(self) -> None:
        """Keep the session connected although the viewer has no stacks, until `release`."""
        self._users += 1

    def release(self) -> None:
        """Undo `retain`; without users and stacks, disconnect from the viewer."""
        self._users -= 1
        self._close_unused()

    def _close_unused(self) -> None:
        viewer = self.viewer
        if self._users > 0 or self.stacks or viewer is None:
            return
        while self._connections:
            event, slot = self._connections.pop()
            event.disconnect(slot)
        for layer in self._watched:
            self._unwatch(layer)
        self._watched = []
        self._of_viewer.pop(viewer, None)

    # -- Stacks ------------------------------------------------------------------------------------

    @property
    def stacks(self) -> list[Image]:
        """All stacks, from bottom to top."""
        viewer = self.viewer
        layers = [] if viewer is None else [unwrapped(layer) for layer in viewer.layers]
        return [layer for layer in layers if is_stack(layer)]

    @property
    def run(self) -> Run | None:
        """The run of the current stack."""
        stack = self.current
        return None if stack is None else stack.data.run

    @property
    def animation(self) -> Animation | None:
        """The result of the current stack."""
        stack = self.current
        return None if stack is None else stack.data.animation

    def add(
        self,
        run: Run,
        image: Image,
        normalization: Normalization = "local",
        *,
        signed: bool = False,
        about: CamMetadata | None = None,
    ) -> Image:
        """Add a stack above its image, select it, and show its first layer of interest.

        If the layer of the network that is seen belongs to a run of the same image, it remains.

        Stacks that it would blend with are hidden.

        Parameters
        ----------
        run : Run
        image : napari.layers.Image
            Layer of the viewer.
        normalization : {"local", "global"}
        signed : bool
            See `StackData`.
        about : CamMetadata, optional
            Metadata of the layer; by default it is computed.

        Returns
        -------
        napari.layers.Image
        """
        viewer = self._require_viewer()
        stack = stack_layer(StackData(run, normalization, signed=signed), image, about)
        index = self.index_for(run)
        self._hide_below(stack)
        above = viewer.layers.index(image) + 1
        # Inserted into the list, which makes their names unique.
        guided = guided_layer(run, image)
        if guided is not None:
            viewer.layers.insert(above, guided)
        viewer.layers.insert(above, stack)
        viewer.layers.selection.active = stack
        # The position is set in any case, so that the current stack is up to date.
        viewer.dims.set_point(viewer.dims.ndim - stack.ndim, index)
        self._on_move()
        return stack

    def index_for(self, run: Run) -> int:
        """Return the index of the layer to show of a new run: the one that is seen, if it has it."""
        labels = [layer.label for layer in run.animation.layers]
        seen, before = self.index, self.run
        if seen is not None and before is not None and before.image is run.image:
            label = before.animation.layers[seen].label
            same = len(labels) == len(before.animation.layers)
            if same and label in labels:
                return labels.index(label)
        return run.animation.initial_index

    def replace(self, stack: Image, run: Run, about: CamMetadata | None = None) -> None:
        """Show another run in an existing stack, at the same layer of the network if it has it.

        Parameters
        ----------
        stack : napari.layers.Image
            A stack of the same image.
        run : Run
            A run with as many axes.
        about : CamMetadata, optional
            Metadata of the layer; by default it is computed.
        """
        image = run.image
        label = None
        before: StackData = stack.data
        if stack is self.current and self.index is not None:
            label = before.animation.layers[self.index].label
        # Unless the user has renamed it.
        is_named = stack.name.startswith(name_of(before.run))
        data = before.altered(run=run, indices=_same_layers(before, run.animation))
        set_data(stack, data, about)
        if about is None:
            update_metadata(stack)
        if is_named and not stack.name.startswith(name_of(run)):
            stack.name = name_of(run)
        if image is not None:
            place = stack_placement(data, image)
            for name in ("scale", "translate"):
                if not np.allclose(getattr(stack, name), place[name]):
                    setattr(stack, name, place[name])
        labels = [layer.label for layer in run.animation.layers]
        if label in labels:
            self._set_position(stack, data.position_of(labels.index(label)))
        self.updated.emit(stack)
        self._on_move()

    def refresh(self, stack: Image, about: CamMetadata | None = None) -> None:
        """Show findings that were added to the animation of a stack.

        Parameters
        ----------
        stack : napari.layers.Image
        about : CamMetadata, optional
            Updated metadata; by default it is computed.
        """
        if about is None:
            update_metadata(stack)
        else:
            set_metadata(stack, about)
        self.updated.emit(stack)
        self._on_move()

    # -- What is seen ------------------------------------------------------------------------------

    def go_to(self, index: int) -> None:
        """Move the slider to a layer of the network, or to the nearest one that the stack shows."""
        if self.current is not None:
            self._set_position(self.current, self.current.data.position_of(index))

    def show(self, stack: Image, index: int | None = None) -> None:
        """Select a stack, show it at a layer of the network, and hide those that it blends with.

        Sliders move to the slice that it explains.

        Parameters
        ----------
        stack : napari.layers.Image
        index : int, optional
            Index of the layer of the network; by default the one of first interest.
        """
        self._hide_below(stack)
        stack.visible = True
        self._require_viewer().layers.selection.active = stack
        self.move_to(stack, stack.data.animation.initial_index if index is None else index)

    def move_to(self, stack: Image, index: int) -> None:
        """Move the sliders to the slice that a stack explains, and to a layer of the network."""
        viewer = self._require_viewer()
        before = viewer.dims.ndim - stack.ndim
        corner = stack.data_to_world((0,) * stack.ndim)
        for axis, along in enumerate(stack.data.axes, start=1):
            # Also channels are no axis of the maps, which are the same for all of them.
            if not along and stack.data.shape[axis] == 1:
                viewer.dims.set_point(before + axis, corner[axis])
        self._set_position(stack, stack.data.position_of(index))
        self._on_move()

    def step(self, by: int) -> None:
        """Move the slider by a number of layers."""
        viewer = self.viewer
        if viewer is not None and self.current is not None and self.index is not None:
            # Where the slider is: a layer can be shown at several positions.
            at = index_in(viewer, self.current)[0] + by
            self._set_position(self.current, int(np.clip(at, 0, len(self.current.data) - 1)))

    def set_normalization(self, normalization: Normalization) -> None:
        """Set the normalisation of the current stack."""
        self._alter(normalization=normalization)

    def set_signed(self, signed: bool) -> None:
        """Show negative evidence in the current stack, or only positive evidence."""
        self._alter(signed=signed)

    def select_layers(self, indices: Sequence[int] | None) -> None:
        """Restrict the current stack to some layers of the network; None for all.

        Nothing is computed again, and a common scale remains that of all layers.
        """
        stack, index = self.current, self.index
        if stack is None:
            return
        everything = range(len(stack.data.animation))
        self._alter(indices=tuple(everything if indices is None else sorted(indices)))
        if index is not None:
            self._set_position(stack, stack.data.position_of(index))
            self._on_move()

    def _alter(self, **changes: Any) -> None:
        stack = self.current
        if stack is None:
            return
        if all(getattr(stack.data, name) == value for name, value in changes.items()):
            return
        set_data(stack, stack.data.altered(**changes))
        self.updated.emit(stack)
        self._on_move()

    def _hide_below(self, stack: Image) -> None:
        for other in self.stacks:
            if other is not stack and other.visible and _overlap(other.data.run, stack.data.run):
                other.visible = False

    def _set_position(self, stack: Image, position: int) -> None:
        viewer = self._require_viewer()
        viewer.dims.set_point(viewer.dims.ndim - stack.ndim, position)

    def _require_viewer(self) -> ViewerModel:
        viewer = self.viewer
        assert viewer is not None, "the viewer was deleted"
        return viewer

    # -- Events of the viewer ----------------------------------------------------------------------

    def _on_layers(self, event: Any = None) -> None:
        viewer = self.viewer
        layers = [] if viewer is None else [unwrapped(layer) for layer in viewer.layers]
        for layer in self._watched:
            if layer not in layers:
                self._unwatch(layer)
        for layer in layers:
            if layer not in self._watched:
                self._watch(layer)
        had_stacks = any(is_stack(layer) for layer in self._watched)
        self._watched = layers
        self._on_move()
        self.listed.emit()
        if had_stacks:
            self._close_unused()

    def _watch(self, layer: Any) -> None:
        layer.events.visible.connect(self._on_visible)
        # These decide whether a layer covers what is below it.
        layer.events.opacity.connect(self._on_move)
        layer.events.blending.connect(self._on_move)

    def _unwatch(self, layer: Any) -> None:
        layer.events.visible.disconnect(self._on_visible)
        layer.events.opacity.disconnect(self._on_move)
        layer.events.blending.disconnect(self._on_move)

    def _on_visible(self, event: Any = None) -> None:
        self._on_move()
        self.listed.emit()

    def _on_move(self, event: Any = None) -> None:
        viewer = self.viewer
        if viewer is None:
            return
        # The sliders change before the removal of a layer is announced.
        current, index = _seen(viewer, self.stacks)
        if current is not self.current:
            self.current, self.index = current, index
            self.current_changed.emit(current)
            self.index_changed.emit(index)
        elif index != self.index:
            self.index = index
            self.index_changed.emit(index)
        self.moved.emit()


def _seen(viewer: ViewerModel, stacks: Sequence[Image]) -> tuple[Image | None, int | None]:
    """Return the current stack of a viewer and the index of its shown layer; see `Session`."""
    visible = [stack for stack in stacks if stack.visible]
    if not visible:
        return None, None
    active = unwrapped(viewer.layers.selection.active)
    # From top to bottom, the selected one first.
    visible.reverse()
    visible.sort(key=lambda stack: stack is not active)
    for stack in visible:
        index = shown_index(viewer, stack)
        if index is not None:
            return stack, index
    return visible[0], None


def shown_index(viewer: ViewerModel, stack: Image) -> int | None:
    """Return the index of the shown layer of the network; None if none or several are shown."""
    before = viewer.dims.ndim - stack.ndim
    displayed = [axis - before for axis in viewer.dims.displayed]
    if 0 in displayed:
        return None
    index = index_in(viewer, stack)
    sliced = [axis for axis in range(stack.ndim) if axis not in displayed]
    if any(not 0 <= index[axis] < stack.data.shape[axis] for axis in sliced):
        return None
    return int(stack.data.indices[index[0]])


def shown_plane(viewer: ViewerModel, stack: Image) -> int | None:
    """Return the index of the shown plane of a volume; None for images, or if several are shown."""
    geometry = stack.data.animation.geometry
    if len(geometry.size) == 2:
        return None
    axis = 1 + stack.data.axes.index(True)
    if axis + viewer.dims.ndim - stack.ndim in viewer.dims.displayed:
        return None
    position = stack.world_to_data(viewer.dims.point[-stack.ndim :])[axis]
    cell, start = geometry.affine(geometry.size)
    return round(float(cell[0] * position + start[0]))


def _overlap(run: Run, other: Run) -> bool:
    """Return whether two runs have maps at the same place, if they are of the same image."""
    if run.image is None or run.image is not other.image:
        return True
    if run.region.axes == other.region.axes:
        ranges = zip(run.region.ranges, other.region.ranges, strict=True)
        if any(a[1] <= b[0] or b[1] <= a[0] for a, b in ranges):
            # Two boxes beside each other.
            return False
    along = (*run.region.axes, *other.region.axes)
    pairs = enumerate(zip(run.region.position, other.region.position, strict=True))
    return all(axis in along or one == two for axis, (one, two) in pairs)


def _same_layers(data: StackData, animation: Animation) -> list[int] | None:
    """Return the indices of the shown layers in another animation; None for all."""
    if len(data.indices) == len(data.animation):
        return None
    shown = {data.animation.layers[i].label for i in data.indices}
    same = [i for i, layer in enumerate(animation.layers) if layer.label in shown]
    return same or None
