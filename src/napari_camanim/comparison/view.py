"""Several stacks side by side: cells of one canvas with one slider and one camera."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Layer
from psygnal import Signal

from camanim.alignment import align
from camanim.errors import ImageError
from napari_camanim.canvas.badge import Badge
from napari_camanim.canvas.painted import PaintedText
from napari_camanim.comparison.badges import (
    FONT_SIZE,
    cell_text,
    grid_shape,
    place_of,
    short_names,
)
from napari_camanim.comparison.frame import Matrix, common_frame
from napari_camanim.layers.metadata import KEY
from napari_camanim.layers.placement import with_layer_axis
from napari_camanim.layers.stack import is_stack, set_data
from napari_camanim.session import Session, shown_index, unwrapped
from napari_camanim.timers import single_shot

if TYPE_CHECKING:
    from napari.components import ViewerModel


#: Smallest and largest number of cells.
FEWEST, MOST = 2, 6
#: Pixels between the cells.
SPACING = 4
#: Share of a cell that its image fills.
FILLED = 0.95
#: Layers of a cell: the image, and above it the stack.
STRIDE = 2
#: Key of the metadata of layers that exist during a comparison only.
TEMPORARY = f"{KEY} temporary"
#: Attributes that the copies of an image share with it.
LINKED = ("contrast_limits", "gamma", "colormap", "interpolation2d", "opacity", "blending")


@dataclass(eq=False)
class Cell:
    """One cell: a copy of the image, and above it the stack.

    Attributes
    ----------
    stack : napari.layers.Image
    image : napari.layers.Image
        Copy of the image, which shares its data; removed in the end.
    name : str
        Short name of the run.
    badge : PaintedText
    """

    stack: Image
    image: Image
    name: str
    badge: PaintedText
    #: Layers that the stack showed before, those that it shows now, and its affine transform before.
    indices: tuple[int, ...]
    aligned: tuple[int, ...]
    affine: Matrix
    #: Row and column of the cell; None if it is hidden.
    at: tuple[int, int] | None = None


@dataclass(eq=False)
class _State:
    """State of a viewer before the comparison."""

    order: list[Layer]
    visible: dict[Layer, bool]
    selected: list[Layer]
    active: Layer | None
    grid: dict[str, Any]
    camera: dict[str, Any]
    point: tuple[float, ...]

    @classmethod
    def of(cls, viewer: ViewerModel) -> _State:
        layers, selection, camera = layers_of(viewer), viewer.layers.selection, viewer.scene.camera
        names = ("stride", "shape", "spacing", "enabled")
        return cls(
            order=layers,
            visible={layer: layer.visible for layer in layers},
            selected=[unwrapped(layer) for layer in selection],
            active=unwrapped(selection.active),
            grid={name: getattr(viewer.canvas.grid, name) for name in names},
            camera={name: getattr(camera, name) for name in ("center", "zoom", "angles")},
            point=viewer.dims.point,
        )


class CompareView:
    """Two to six stacks side by side, until `close`.

    Each cell shows a copy of the image with the stack above it. All cells share sliders and camera.
    Stacks of the same network show the same layer; other networks are stretched to the same number of
    slider positions (see `align`). Images of different sizes are scaled to one size. A click on a cell
    selects its stack, so that the curves are those of this cell.

    The comparison ends when another layer is added or shown, grid mode is switched off, or only one
    stack is left. It leaves order, visibility, transforms, selection, grid, camera and sliders of the
    viewer as they were before.

    Parameters
    ----------
    session : Session
    stacks : sequence of napari.layers.Image
        Stacks of the viewer, in the order of the cells.

    Attributes
    ----------
    cells : list of Cell

    Signals
    -------
    changed : ()
        Cells were removed, or the comparison has ended.

    Raises
    ------
    ImageError
        If the number of stacks is not 2 to 6, an image was removed, or the images cannot be compared.
    """

    changed = Signal()

    def __init__(self, session: Session, stacks: Sequence[Image]) -> None:
        viewer = session.viewer
        assert viewer is not None, "the viewer was deleted"
        stacks = list(map(unwrapped, stacks))
        check_stacks(session, stacks)
        previous = self.of(session)
        if previous is not None:
            kept = [stack for stack in stacks if TEMPORARY in stack.metadata]
            if kept:
                raise ImageError(
                    "Close the comparison before its temporary maps are compared again."
                )
            previous.close()
        regions = [stack.data.region for stack in stacks]
        images = [image_of(stack) for stack in stacks]
        frames = common_frame(images, regions)
        self._session = session
        self._state = _State.of(viewer)
        self._closed = False
        self._working = False
        #: Whether the user has switched grid mode off.
        self._switched_off = False
        self.cells = [
            Cell(
                stack=stack,
                image=copy_layer(image, name=f"{image.name} (cell {i + 1})"),
                name=name,
                badge=PaintedText(visible=False, font_size=FONT_SIZE),
                indices=stack.data.indices,
                aligned=stack.data.indices,
                affine=np.array(stack.affine.affine_matrix),
            )
            for i, (stack, image, name) in enumerate(
                zip(stacks, images, short_names(stacks), strict=True)
            )
        ]
        # A click of the mouse, several events of one action: the state is corrected after all of them.
        self._timer = single_shot(0, self._settle)
        self._badge = Badge.on(session)
        # Before any change, so that an error on the way is undone.
        session.comparison = self
        try:
            self._enter(images, frames)
        except BaseException:
            self.close()
            raise

    @classmethod
    def of(cls, session: Session) -> CompareView | None:
        """Return the comparison of a session; None without one."""
        found: CompareView | None = session.comparison
        return found

    @property
    def closed(self) -> bool:
        """Whether the comparison has ended."""
        return self._closed

    @property
    def stacks(self) -> list[Image]:
        """The compared stacks, in the order of the cells."""
        return [cell.stack for cell in self.cells]

    @property
    def _viewer(self) -> ViewerModel:
        viewer = self._session.viewer
        assert viewer is not None, "the viewer was deleted"
        return viewer

    # -- Begin and end -----------------------------------------------------------------------------

    def _enter(self, images: Sequence[Image], frames: Sequence[Matrix]) -> None:
        viewer, session = self._viewer, self._session
        current, index = session.current, session.index
        viewer.canvas.grid.enabled = False
        if self._badge is not None:
            self._badge.enabled = False
        ours = self.stacks
        for layer in self._state.order:
            if layer not in ours:
                layer.visible = False
        for cell, frame in zip(self.cells, frames, strict=True):
            if not np.allclose(frame, np.eye(len(frame))):
                cell.image.affine = frame @ cell.image.affine.affine_matrix
                cell.stack.affine = with_layer_axis(frame) @ cell.affine
        # Not as a batch, after which napari collects garbage: that takes longer than all the rest.
        for i, cell in enumerate(self.cells):
            viewer.layers.insert(i, cell.image)
        self._arrange()
        for stack in ours:
            stack.visible = True
        self._link(images)
        self._align()
        self._lay_out()
        viewer.canvas.grid.stride = STRIDE
        viewer.canvas.grid.spacing = SPACING
        viewer.canvas.grid.enabled = True
        shown = current if current is not None and current in ours else ours[0]
        if shown is not current or index is None:
            index = shown.data.animation.initial_index
        viewer.layers.selection.active = shown
        session.move_to(shown, index)
        self._fit()
        self._locate()
        self._update()
        # Complete when they are added, as each change of a text on the canvas places all of them again.
        for i, cell in enumerate(self.cells):
            viewer.canvas.overlays[f"{KEY} cell {i}"] = cell.badge
        session.moved.connect(self._update)
        session.updated.connect(self._on_updated)
        session.listed.connect(self._later)
        viewer.canvas.events.size.connect(self._later)
        viewer.canvas.grid.events.enabled.connect(self._later)
        viewer.mouse_drag_callbacks.append(self._on_press)

    def close(self) -> None:
        """End the comparison, and leave the viewer as it was before."""
        if self._closed:
            return
        self._closed = True
        session, state = self._session, self._state
        self._timer.stop()
        session.comparison = None
        if session.viewer is None:
            return
        viewer = self._viewer
        self._disconnect()
        for key in [key for key, o in viewer.canvas.overlays.items() if o in self._badges()]:
            viewer.canvas.overlays.pop(key)
        viewer.canvas.grid.enabled = False
        for name in ("stride", "shape", "spacing"):
            setattr(viewer.canvas.grid, name, state.grid[name])
        new = self._new()
        with viewer.layers.batched_update():
            for cell in list(self.cells):
                self._drop(cell)
            layers = layers_of(viewer)
            order = [layer for layer in state.order if layer in layers]
            _sort(viewer, order)
            # A new stack stays visible alone, as when it is added without a comparison.
            added = any(is_stack(layer) and layer.visible for layer in new)
            for layer in order:
                if not (added and is_stack(layer)):
                    layer.visible = state.visible[layer]
        # What was added is selected, and the sliders are where it is seen.
        if not new:
            self._restore_selection()
        for name, value in state.camera.items():
            setattr(viewer.scene.camera, name, value)
        if self._badge is not None:
            self._badge.enabled = True
        viewer.canvas.grid.enabled = state.grid["enabled"] and not self._switched_off
        self.changed.emit()

    def _restore_selection(self) -> None:
        """Restore selection and sliders."""
        viewer, state = self._viewer, self._state
        layers = layers_of(viewer)
        selection = viewer.layers.selection
        selection.clear()
        selection.update(layer for layer in state.selected if layer in layers)
        if state.active in layers:
            selection.active = state.active
        if viewer.dims.ndim == len(state.point):
            viewer.dims.point = state.point

    def _disconnect(self) -> None:
        session, viewer = self._session, self._viewer
        session.moved.disconnect(self._update, missing_ok=True)
        session.updated.disconnect(self._on_updated, missing_ok=True)
        session.listed.disconnect(self._later, missing_ok=True)
        viewer.canvas.events.size.disconnect(self._later)
        viewer.canvas.grid.events.enabled.disconnect(self._later)
        with contextlib.suppress(ValueError):
            viewer.mouse_drag_callbacks.remove(self._on_press)

    def _drop(self, cell: Cell) -> None:
        """Remove a cell; its stack stays in the viewer as it was, unless it is temporary."""
        viewer = self._viewer
        layers = layers_of(viewer)
        self.cells.remove(cell)
        cell.badge.visible = False
        if cell.image in layers:
            viewer.layers.unlink_layers([cell.image])
            viewer.layers.remove(cell.image)
        if cell.stack not in layers:
            return
        if TEMPORARY in cell.stack.metadata:
            viewer.layers.remove(cell.stack)
            return
        cell.stack.affine = cell.affine
        self._set_indices(cell, cell.indices)

    # -- Cells -------------------------------------------------------------------------------------

    def _link(self, images: Sequence[Image]) -> None:
        """Let the copies of each image share its contrast and colormap."""
        for image in dict.fromkeys(images):
            copies = [c.image for c, i in zip(self.cells, images, strict=True) if i is image]
            self._viewer.layers.link_layers([image, *copies], LINKED)

    def _align(self) -> None:
        """Let each stack show the layer of the same depth at each position of the slider."""
        results = [cell.stack.data.animation for cell in self.cells]
        aligned = align(results, [cell.indices for cell in self.cells])
        for cell, indices in zip(self.cells, aligned, strict=True):
            cell.aligned = indices
        for cell in self.cells:
            self._set_indices(cell, cell.aligned)

    def _set_indices(self, cell: Cell, indices: tuple[int, ...]) -> None:
        data = cell.stack.data
        if data.indices == indices:
            return
        # Data of another length trigger events of sliders, in which the cell is already right.
        set_data(cell.stack, data.altered(indices=indices))
        self._session.updated.emit(cell.stack)

    def _arrange(self) -> None:
        """Move the layers of the cells to the bottom of the list, the image of each below the stack."""
        _sort(self._viewer, self._ours(), first=True)

    def _ours(self) -> list[Layer]:
        return [layer for cell in self.cells for layer in (cell.image, cell.stack)]

    def _badges(self) -> list[PaintedText]:
        return [
            o for key, o in self._viewer.canvas.overlays.items() if key.startswith(f"{KEY} cell ")
        ]

    def _new(self) -> list[Layer]:
        """Return layers that were added during the comparison."""
        known = [*self._state.order, *self._ours()]
        return [layer for layer in layers_of(self._viewer) if layer not in known]

    def _lay_out(self) -> None:
        """Choose the rows and columns of the grid by the size of the canvas."""
        viewer = self._viewer
        low, high = self.cells[0].image.extent.world[:, -2:]
        shape = grid_shape(len(self.cells), viewer.canvas.size, np.maximum(high - low, 1e-9))
        if viewer.canvas.grid.shape != shape:
            viewer.canvas.grid.shape = shape

    def _fit(self) -> None:
        """Let each cell show its whole image."""
        viewer, ours = self._viewer, self._ours()
        axes = [axis - viewer.dims.ndim for axis in viewer.dims.displayed]
        fewest = min(layer.ndim for layer in ours)
        if fewest == viewer.dims.ndim:
            viewer.reset_view(layers=ours)
            return
        # napari cannot fit layers that have fewer axes than the viewer.
        if viewer.dims.ndisplay == 3 or min(axes) < -fewest:
            viewer.reset_view()
            return
        corners = np.concatenate([layer.extent.world[:, axes] for layer in ours])
        low, high = corners.min(0), corners.max(0)
        cell = np.asarray(viewer.canvas.viewbox_size(viewer.layers))
        viewer.scene.camera.center = (0.0, *(low + high) / 2)
        viewer.scene.camera.zoom = float(FILLED * np.min(cell / np.maximum(high - low, 1e-9)))

    def _later(self, event: Any = None) -> None:
        if not self._working:
            self._timer.start()

    def _settle(self) -> None:
        """Adapt the cells to what has happened to the layers, or end the comparison."""
        if self._closed or self._session.viewer is None:
            return
        self._working = True
        try:
            layers = layers_of(self._viewer)
            for layer in [layer for layer in self._state.order if layer not in layers]:
                # No reference keeps what was removed.
                self._state.order.remove(layer)
                self._state.visible.pop(layer)
            self._switched_off = not self._viewer.canvas.grid.enabled
            lost = [c for c in self.cells if c.image not in layers or c.stack not in layers]
            ours = self._ours()
            others = [layer for layer in layers if layer not in ours]
            if (
                len(self.cells) - len(lost) < FEWEST
                or self._switched_off
                or any(layer.visible or layer in self._new() for layer in others)
            ):
                self.close()
                return
            if lost:
                with self._viewer.layers.batched_update():
                    for cell in lost:
                        self._drop(cell)
                        if cell.stack in layers and TEMPORARY not in cell.stack.metadata:
                            cell.stack.visible = False
                self._align()
            if layers_of(self._viewer)[: len(self._ours())] != self._ours():
                with self._viewer.layers.batched_update():
                    self._arrange()
            self._lay_out()
            self._locate()
            self._rename()
            self._update()
            if lost:
                self.changed.emit()
        finally:
            self._working = False

    def _rename(self) -> None:
        for cell, name in zip(self.cells, short_names(self.stacks), strict=True):
            cell.name = name

    # -- Events ------------------------------------------------------------------------------------

    def _on_updated(self, stack: Image) -> None:
        cells = [cell for cell in self.cells if cell.stack is stack]
        if not cells:
            return
        if stack.data.indices != cells[0].aligned:
            # Another run, or another selection of layers.
            cells[0].indices = stack.data.indices
            self._align()
        self._rename()
        self._update()

    def _on_press(self, viewer: Any, event: Any) -> None:
        """Select the stack of the cell that is clicked."""
        for cell in self.cells:
            if cell.at is not None and cell.at == getattr(event, "viewbox", None):
                self._viewer.layers.selection.active = cell.stack

    def _locate(self) -> None:
        """Set the row and column of each cell, and the places of the badges."""
        viewer, layers = self._viewer, layers_of(self._viewer)
        grid = viewer.canvas.grid
        for cell in self.cells:
            shown = [layer for layer in (cell.image, cell.stack) if layer.visible]
            cell.at = grid.position(layers.index(shown[0]), viewer.layers) if shown else None
            if cell.at is not None:
                _set(cell.badge, position=place_of(cell.at, grid.shape))

    # -- Badges ------------------------------------------------------------------------------------

    def _update(self, event: Any = None) -> None:
        """Show what each cell shows in its badge."""
        if self._closed or not self._viewer.canvas.grid.enabled:
            return
        self._clamp()
        viewer = self._viewer
        width = viewer.canvas.size[1] / viewer.canvas.grid.shape[1]
        layers = layers_of(viewer)
        # In 3-D, the maps of all layers of an image are one volume.
        volume = viewer.dims.ndim - self.cells[0].stack.ndim in viewer.dims.displayed
        for cell in self.cells:
            if cell.at is None or cell.stack not in layers:
                _set(cell.badge, visible=False)
                continue
            index = None if volume else shown_index(viewer, cell.stack)
            text = cell_text(cell.name, cell.stack, index, width, volume=volume)
            if cell.badge.text != text:
                cell.badge.text = text
            _set(cell.badge, visible=True)

    def _clamp(self) -> None:
        """Keep the slider within the compared layers, where a hidden stack has more of them."""
        viewer, stack = self._viewer, self.cells[0].stack
        axis, last = viewer.dims.ndim - stack.ndim, len(stack.data) - 1
        if axis in viewer.dims.not_displayed and viewer.dims.point[axis] > last:
            viewer.dims.set_point(axis, last)


def check_stacks(session: Session, stacks: Sequence[Any], fewest: int = FEWEST) -> None:
    """Raise `ImageError` unless the layers are distinct stacks of the session, of a valid number."""
    known = session.stacks
    if any(stack not in known for stack in stacks):
        raise ImageError("Compare layers of maps that are in the viewer.")
    if not fewest <= len(stacks) <= MOST:
        raise ImageError(f"{FEWEST} to {MOST} runs can be compared, not {len(stacks)}.")
    if len(set(map(id, stacks))) < len(stacks):
        raise ImageError("A run cannot be compared with itself: choose each of them once.")


def image_of(stack: Image) -> Image:
    """Return the image of a stack; raise `ImageError` if it was removed."""
    image = stack.data.run.image
    if image is None:
        raise ImageError(f"The image of {stack.name} was removed: add it again, and run again.")
    return image


def copy_layer(layer: Image, **changes: Any) -> Image:
    """Return a layer with the same data, transforms and appearance."""
    data, attributes, kind = layer.as_layer_data_tuple()
    defaults = {"visible": True, "metadata": {KEY: {"copy of": layer.name}, TEMPORARY: True}}
    attributes = {**attributes, **defaults, **changes}
    return Layer.create(attributes.pop("data", data), attributes, kind)


def layers_of(viewer: ViewerModel) -> list[Layer]:
    """Return the layers of a viewer, from bottom to top."""
    return [unwrapped(layer) for layer in viewer.layers]


def _sort(viewer: ViewerModel, order: Sequence[Layer], *, first: bool = False) -> None:
    """Move layers so that they are in an order: from the bottom, or at the places that they have."""
    layers = layers_of(viewer)
    places = range(len(order)) if first else [i for i, layer in enumerate(layers) if layer in order]
    for place, layer in zip(places, order, strict=True):
        at = layers_of(viewer).index(layer)
        if at != place:
            # Layers between move up by one place.
            viewer.layers.move(at, place)


def _set(model: Any, **values: Any) -> None:
    """Set fields of an overlay that have other values: each assignment is an event."""
    for name, value in values.items():
        if getattr(model, name) != value:
            setattr(model, name, value)
