"""The probe: a click on the canvas chooses a point, which is read in the maps of all layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image
from napari.utils.notifications import show_info
from psygnal import Signal

from napari_camanim.canvas.crosshair import Crosshair
from napari_camanim.layers.stack import StackData
from napari_camanim.session import Session, unwrapped

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from camanim import Animation

#: Distance on the screen in pixels from which a press and release is a drag.
DRAG = 4

NO_STACK = "There are no maps to probe: run a method on the image, or show its stack."
NO_DEPTH = "A click in the 3-D view has no depth: switch to the 2-D view to probe a point."
OUTSIDE = "The maps do not cover this point: click within the explained part of the image."


@dataclass(frozen=True)
class Point:
    """A probed point.

    Attributes
    ----------
    world : tuple of float
        World coordinates along the axes of the stack after `layer`.
    image : tuple of float
        ``y, x`` or ``z, y, x`` in pixel indices of ``animation.image``, at the centre of the pixel of
        the network's input.
    input : tuple of int
        The same point as a pixel of the network's input, the last axes of ``animation.stack()``.
    """

    world: tuple[float, ...]
    image: tuple[float, ...]
    input: tuple[int, ...]

    def __str__(self) -> str:
        """Return the coordinates in the image, such as ``y 12, x 30``."""
        names = "zyx"[-len(self.image) :]
        return ", ".join(f"{n} {round(at)}" for n, at in zip(names, self.image, strict=True))


def values_at(data: StackData, point: Point) -> npt.NDArray[np.float32]:
    """Return the relevance at a point in the maps of all layers, as the stack shows it.

    Parameters
    ----------
    data : StackData
    point : Point

    Returns
    -------
    (L,) float32 array
        For all L layers with a map, also those that the stack does not show.
    """
    values: npt.NDArray[np.float32] = data.animation.stack(
        data.normalization, signed=data.signed
    ).at(point.input)
    return values


def locate(stack: Image, position: Sequence[float]) -> Point | str:
    """Return the point of a stack at a position in the viewer, or a sentence why there is none.

    Parameters
    ----------
    stack : napari.layers.Image
        A stack.
    position : sequence of float
        World coordinates along all axes of the viewer, such as those of a mouse event.
    """
    data: StackData = stack.data
    world = tuple(float(at) for at in position[-stack.ndim :])
    inside = np.asarray(stack.world_to_data(world))[1:]
    # Pixels are areas around their index.
    cell = np.floor(inside + 0.5).astype(int)
    covered = (cell >= 0) & (cell < data.shape[1:])
    along = np.array(data.axes)
    if not covered[~along].all():
        return f"The maps are of {data.run.place}: move the sliders there to probe a point."
    if not covered.all():
        return OUTSIDE
    size, start = data.animation.geometry.affine(data.animation.geometry.size)
    image = np.array(size) * cell[along] + np.array(start)
    return Point(world[1:], tuple(map(float, image)), tuple(map(int, cell[along])))


class Probe:
    """Reads a point in the maps of all layers while `active`, where the user clicks.

    A click without a drag chooses the point of the current stack; panning and zooming stay as they are,
    and so do the tools of other layers. A layer named ``probe`` shows a crosshair.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    point : Point or None
        The chosen point; None before a click, and where the current stack has no map.
    values : (L,) float32 array or None
        Relevance at `point` in each layer of the animation; None without a point.
    problem : str
        A sentence why there are no values at the last chosen position; otherwise empty.

    Signals
    -------
    probed : (Point or None, array or None)
        `point` or `values` changed.
    toggled : (bool,)
        The probe was switched on or off.
    """

    probed = Signal(object, object)
    toggled = Signal(bool)

    def __init__(self, session: Session) -> None:
        self._session = session
        self._active = False
        self._world: tuple[float, ...] | None = None
        #: What the values were computed from.
        self._source: tuple[Any, ...] = ()
        self._animation: Animation | None = None
        self._crosshair: Crosshair | None = None
        self._closed = False
        self.point: Point | None = None
        self.values: npt.NDArray[np.float32] | None = None
        self.problem = ""
        session.retain()
        session.current_changed.connect(self._update)
        session.updated.connect(self._update)

    def close(self) -> None:
        """Switch the probe off and disconnect it."""
        self.active = False
        if not self._closed:
            self._closed = True
            self._session.current_changed.disconnect(self._update)
            self._session.updated.disconnect(self._update)
            self._session.release()

    @property
    def active(self) -> bool:
        """Whether clicks on the canvas choose a point; switching it off removes the crosshair."""
        return self._active

    @active.setter
    def active(self, active: bool) -> None:
        viewer = self._session.viewer
        if active == self._active or viewer is None:
            return
        self._active = active
        if active:
            viewer.mouse_drag_callbacks.append(self._on_drag)
            viewer.layers.events.removed.connect(self._on_removed)
        else:
            viewer.mouse_drag_callbacks.remove(self._on_drag)
            viewer.layers.events.removed.disconnect(self._on_removed)
            self.clear()
        self.toggled.emit(active)

    def choose(self, position: Sequence[float]) -> bool:
        """Probe a position of the viewer; where there is no map, the previous point stays.

        Parameters
        ----------
        position : sequence of float
            World coordinates along all axes of the viewer.

        Returns
        -------
        bool
            Whether the current stack has values there; see `problem`.
        """
        stack = self._session.current
        found = NO_STACK if stack is None else locate(stack, position)
        if stack is None or isinstance(found, str):
            self.problem = str(found)
            return False
        self._world = tuple(float(at) for at in position)
        self._show(stack, found)
        return True

    def clear(self) -> None:
        """Remove the crosshair and forget the point."""
        self._world = self._animation = None
        if self._crosshair is not None:
            self._crosshair.remove()
            self._crosshair = None
        self._set(None, None, "")

    # -- Events ------------------------------------------------------------------------------------

    def _on_drag(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """Choose the point of a click; napari runs this from a press to the release."""
        layer = viewer.layers.selection.active
        # A click with a tool of a layer belongs to that tool.
        with_tool = layer is not None and str(getattr(layer, "mode", "pan_zoom")) != "pan_zoom"
        if event.button != 1 or len(event.modifiers) or with_tool:
            return
        start, position = np.array(event.pos), tuple(event.position)
        yield
        while event.type == "mouse_move":
            if np.abs(np.array(event.pos) - start).max() >= DRAG:
                return
            yield
        if np.abs(np.array(event.pos) - start).max() >= DRAG:
            return
        if len(event.dims_displayed) == 3:
            self.problem = NO_DEPTH
        elif self.choose(position):
            return
        show_info(self.problem)

    def _on_removed(self, event: Any) -> None:
        crosshair = self._crosshair
        if crosshair is not None and unwrapped(event.value) is crosshair.layer:
            self.clear()

    def _update(self, stack: Image | None) -> None:
        """Read the point in the maps that are shown now."""
        current = self._session.current
        if self._world is None or stack is not current:
            return
        found = NO_STACK if current is None else locate(current, self._world)
        if current is None or isinstance(found, str):
            self._set(None, None, str(found))
        else:
            self._show(current, found)

    # -- Point and crosshair -----------------------------------------------------------------------

    def _show(self, stack: Image, point: Point) -> None:
        data: StackData = stack.data
        source = (data.normalization, data.signed, point)
        same = data.animation is self._animation and source == self._source
        if self.values is None or not same:
            self._animation, self._source = data.animation, source
            self._mark(stack, point)
            self._set(point, values_at(data, point), "")

    def _set(self, point: Point | None, values: Any, problem: str) -> None:
        changed = point is not self.point or values is not self.values
        self.point, self.values, self.problem = point, values, problem
        if changed:
            self.probed.emit(point, values)

    def _mark(self, stack: Image, point: Point) -> None:
        viewer = self._session.viewer
        if viewer is None:
            return
        if self._crosshair is not None and not self._crosshair.fits(stack):
            crosshair, self._crosshair = self._crosshair, None
            crosshair.remove()
        if self._crosshair is None:
            self._crosshair = Crosshair(viewer, stack, point)
        else:
            self._crosshair.move(point)
