"""The what-if tool: draws a region over the image, replaces it, and predicts again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal

from camanim.editing import superpixel_at
from camanim.errors import CamError
from napari_camanim.ask import edits
from napari_camanim.ask.boxes import COLOUR, FINAL, box_layer, pixel_ranges, vertices_in
from napari_camanim.ask.edits import Drawn
from napari_camanim.layers.metadata import KEY, CamMetadata
from napari_camanim.layers.placement import picture_placement
from napari_camanim.layers.run import Run
from napari_camanim.layers.stack import name_of
from napari_camanim.session import Session, unwrapped
from napari_camanim.timers import single_shot
from napari_camanim.work.runner import Job, Runner

if TYPE_CHECKING:
    from napari.layers import Shapes

    from camanim import Animation
    from camanim.editing import Effect, WhatIf
    from napari_camanim.work.explainer import Explainer

Mode = Literal["off", "paint", "box", "superpixel"]
#: Marks layers of this tool, which are no input images.
MARK = {KEY: {"what_if": True}}
#: The share of the image's longer side that the brush has at first.
BRUSH = 0.06
#: Kinds of jobs, in the order in which they follow a change.
EFFECT, PICTURE, MAPS = "effect", "picture", "maps"


class WhatIfTool(QObject):
    """Replaces what is drawn over the image of the current stack, and predicts again.

    While it is on, it follows the current stack. Every change of the drawing starts an edit in a thread;
    changes in the meantime are edited together when it is done. Layers that it adds are removed when it
    is switched off.

    Parameters
    ----------
    session : Session
    explainer : Explainer
        Its job is cancelled when an edit needs the network, and it computes region tests.

    Attributes
    ----------
    mode : {"off", "paint", "box", "superpixel"}
    what_if : WhatIf or None
        Used by one job at a time; None while the network is prepared.
    labels, shapes, outlines, picture : napari layer or None
        Painted region, boxes, outlines of the superpixels, and the edited image.
    stack : napari.layers.Image or None
        Maps of the edited image.
    settings : dict
        Fields of `camanim.editing.Replacement` that differ from their defaults.
    with_maps, with_picture : bool
        Whether the maps of the edited image are computed at the end of a stroke, and whether the edited
        image is shown.
    count : int
        Number of superpixels.

    Signals
    -------
    said : (str,)
        What is being done, or a problem; empty if there is nothing to say.
    predicted : (Effect or None,)
    switched_off : ()
        Also when a layer that the tool needs was removed.
    """

    said = Signal(str)
    predicted = Signal(object)
    switched_off = Signal()

    def __init__(self, session: Session, explainer: Explainer) -> None:
        super().__init__()
        self._session = session
        self._explainer = explainer
        self.runner = Runner(explainer.confirm)
        self.mode: Mode = "off"
        self.what_if: WhatIf | None = None
        self.labels: Labels | None = None
        self.shapes: Shapes | None = None
        self.outlines: Labels | None = None
        self.picture: Image | None = None
        self.stack: Image | None = None
        self.settings: dict[str, Any] = {}
        self.with_maps = self.with_picture = False
        self.count = 100
        self._base: Image | None = None
        self._run: Run | None = None
        self._drawn = Drawn()
        self._boxes: tuple[Any, ...] = ()
        self._superpixels: npt.NDArray[np.int32] | None = None
        #: The number of changes, and that of the last job of each kind.
        self._version = 0
        self._started: dict[str, int] = {}
        self._busy = ""
        self._released = False
        self._is_shown_again = False
        #: What `undo` takes back: strokes, or boxes as they were before.
        self._history: list[Callable[[], None]] = []
        #: How many changes of layers by this tool are under way.
        self._own_changes = 0
        # After the event `paint`, which comes before the labels are changed if a script paints.
        self._release = single_shot(0, self._on_release)
        self.runner.finished.connect(self._on_finished)
        self.runner.failed.connect(self._on_failed)

    # -- On and off --------------------------------------------------------------------------------

    def set_mode(self, mode: Mode) -> None:
        """Switch the tool on with a way to draw, or off."""
        if mode == self.mode:
            return
        if mode == "off":
            self.switch_off()
        elif self.mode != "off" or self._switch_on():
            self.mode = mode
            self._activate()
        else:
            self.switched_off.emit()

    def _switch_on(self) -> bool:
        stack = self._session.current
        if stack is None or stack.data.run.image is None:
            self.said.emit("There are no maps to ask about: press Run first.")
            return False
        session, viewer = self._session, self._session.viewer
        assert viewer is not None
        session.current_changed.connect(self._on_stack)
        session.updated.connect(self._on_stack)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.mouse_drag_callbacks.append(self._on_click)
        self._follow_stack(stack)
        return True

    def switch_off(self, *, remove: bool = True) -> None:
        """Stop, and remove the layers that were added.

        Parameters
        ----------
        remove : bool
            False if the viewer is being closed.
        """
        if self.mode == "off":
            return
        self.mode = "off"
        viewer = self._session.viewer
        self._session.current_changed.disconnect(self._on_stack)
        self._session.updated.disconnect(self._on_stack)
        self._release.stop()
        self.runner.cancel()
        if viewer is not None:
            viewer.layers.events.removed.disconnect(self._on_removed)
            viewer.mouse_drag_callbacks.remove(self._on_click)
        if remove:
            self._remove_results()
            self._remove_drawing()
            if viewer is not None and self._base in self._session.stacks:
                viewer.layers.selection.active = self._base
        self.labels = self.shapes = self.outlines = self.picture = self.stack = None
        self.what_if = self._base = self._run = self._superpixels = None
        self._drawn, self._history = Drawn(), []
        self.predicted.emit(None)
        self.said.emit("")
        self.switched_off.emit()

    def close(self, *, remove: bool = True) -> None:
        """Switch the tool off for good."""
        self.switch_off(remove=remove)
        self.runner.close()

    # -- The edited stack ---------------------------------------------------------------------------

    def base_of(self, stack: Image | None) -> Image | None:
        """Return the stack of the image before the edits, if this is that of the edited image."""
        return self._base if stack is not None and stack is self.stack else stack

    def _on_stack(self, stack: Image | None) -> None:
        """Follow the current stack, unless it is that of the edited image."""
        if self._own_changes or stack is None or stack is self.stack:
            return
        followed = stack is self._base or stack is self._session.current
        if followed and stack.data.run is not self._run and stack.data.run.image is not None:
            self._follow_stack(stack)
            self._activate()

    def _follow_stack(self, stack: Image) -> None:
        before, self._base, self._run = self._run, stack, stack.data.run
        self._remove_results()
        if before is not None and not _same_pixels(before, self._run):
            self._remove_drawing()
        elif self.labels is not None:
            for name, value in self._placement().items():
                setattr(self.labels, name, value)
            self._remove(self.outlines)
        self.what_if = self._superpixels = None
        request = self._run.request
        device = None if request is None else request.settings.get("device")
        self.said.emit("Preparing the network…")
        self.predicted.emit(None)
        self._start("", partial(edits.prepare, self._run.animation, device), self._on_prepared)

    def _on_prepared(self, what_if: WhatIf) -> None:
        if self.mode == "off":
            return
        self.what_if = what_if
        self.said.emit("")
        self._change(released=True)

    def _on_removed(self, event: Any) -> None:
        layer = unwrapped(event.value)
        if layer is self.picture:
            self.picture = None
        elif layer is self.outlines:
            self.outlines = None
        elif layer is self.stack:
            self.stack = None
        elif self._own_changes or self.mode == "off" or self._run is None:
            return
        elif layer in (self._base, self._run.image, self.labels, self.shapes):
            self.switch_off()

    # -- Layers to draw in -------------------------------------------------------------------------

    def _activate(self) -> None:
        """Prepare the layer of the mode, and select it."""
        viewer = self._session.viewer
        if viewer is None or self._run is None:
            return
        layer: Labels | Shapes = self._add_shapes() if self.mode == "box" else self._add_labels()
        viewer.layers.selection.active = layer
        if self.mode != "superpixel":
            self._remove(self.outlines)
        elif self._superpixels is not None:
            self._show_outlines(self._superpixels)
        layer.mode = {"paint": "paint", "box": "add_rectangle"}.get(self.mode, "pan_zoom")
        self._follow()

    def _sides(self) -> tuple[int, ...]:
        """Return the shape of layers with the pixels of the explained region."""
        run = self._required_run
        sides = iter(run.animation.image.shape)
        return tuple(
            next(sides) if i in run.region.axes else 1 for i in range(len(run.region.shape))
        )

    def _placement(self) -> dict[str, Any]:
        run = self._required_run
        assert run.image is not None
        return picture_placement(run.animation, run.image, run.region)

    @property
    def _required_run(self) -> Run:
        assert self._run is not None, "the tool is off"
        return self._run

    def _add_labels(self) -> Labels:
        if self.labels is None:
            run, sides = self._required_run, self._sides()
            assert run.image is not None
            labels = Labels(
                np.zeros(sides, np.uint8),
                name=f"{run.image.name} what if: region",
                opacity=0.4,
                metadata=dict(MARK),
                **self._placement(),
            )
            labels.brush_size = max(3, round(BRUSH * max(sides)))
            self.labels = labels
            self._append(labels)
            labels.events.labels_update.connect(self._on_stroke)
            labels.events.paint.connect(self._on_painted)
            labels.events.set_data.connect(self._on_painted)
        return self.labels

    def _add_shapes(self) -> Shapes:
        if self.shapes is None:
            image = self._required_run.image
            assert image is not None
            self.shapes = box_layer(image, f"{image.name} what if: boxes", metadata=dict(MARK))
            self._append(self.shapes)
            self._boxes = ()
            self.shapes.events.set_data.connect(self._on_stroke)
            self.shapes.events.data.connect(self._on_boxes)
        return self.shapes

    def _append(self, layer: Any) -> None:
        viewer = self._session.viewer
        assert viewer is not None
        viewer.layers.append(layer)

    def _remove_drawing(self) -> None:
        if self.labels is not None:
            self.labels.events.labels_update.disconnect(self._on_stroke)
            self.labels.events.paint.disconnect(self._on_painted)
            self.labels.events.set_data.disconnect(self._on_painted)
        if self.shapes is not None:
            self.shapes.events.set_data.disconnect(self._on_stroke)
            self.shapes.events.data.disconnect(self._on_boxes)
        self._remove(self.labels, self.shapes, self.outlines)
        self.labels = self.shapes = self.outlines = None
        self._history = []

    def _remove(self, *layers: Any) -> None:
        viewer = self._session.viewer
        with self._changing():
            for layer in layers:
                if viewer is not None and layer is not None and layer in viewer.layers:
                    viewer.layers.remove(layer)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Ignore events of layers that this tool changes."""
        self._own_changes += 1
        try:
            yield
        finally:
            self._own_changes -= 1

    # -- Changes of the drawing --------------------------------------------------------------------

    def _take(self) -> Drawn:
        """Return what is drawn now."""
        run = self._required_run
        painted = None if self.labels is None else np.array(self.labels.data)
        boxes = []
        if self.shapes is not None and run.image is not None:
            first = np.array([start for start, _ in run.region.ranges])
            for i in range(self.shapes.nshapes):
                ranges = pixel_ranges(vertices_in(self.shapes, i, run.image))
                at = [ranges[axis] for axis in run.region.axes]
                boxes.append(
                    tuple((int(a - o), int(b - o)) for (a, b), o in zip(at, first, strict=True))
                )
        return Drawn(painted, tuple(boxes))

    def _on_stroke(self, event: Any = None) -> None:
        """A stroke goes on, or a box is dragged."""
        if self.shapes is not None and event.source is self.shapes:
            drawn = self._take()
            if drawn.boxes == self._drawn.boxes:
                # The layer was only shown again.
                return
        self._change(released=False)

    def _on_painted(self, event: Any = None) -> None:
        """A stroke is complete, or was taken back by napari."""
        if self._own_changes or self.mode == "off":
            return
        if event.type == "paint" and self.labels is not None:
            self._history.append(self.labels.undo)
        else:
            self._is_shown_again = True
        self._release.start()

    def _on_release(self) -> None:
        if self.mode == "off":
            return
        # Undo by napari, or only another position of the sliders. Strokes have been announced.
        shown_again, self._is_shown_again = self._is_shown_again, False
        if shown_again and not self._is_due(EFFECT) and not self._take().same_as(self._drawn):
            self._version += 1
        self._released = True
        self._follow()

    def _on_boxes(self, event: Any) -> None:
        """A box is complete, or was removed."""
        if self._own_changes or self.shapes is None or event.action not in FINAL:
            return
        self._history.append(partial(self._set_boxes, self._boxes))
        self._boxes = tuple(np.array(each) for each in self.shapes.data)
        self._change(released=True)

    def _set_boxes(self, boxes: tuple[Any, ...]) -> None:
        if self.shapes is None:
            return
        with self._changing():
            self.shapes.selected_data = set(range(self.shapes.nshapes))
            self.shapes.remove_selected()
            if boxes:
                self.shapes.add_rectangles(list(boxes))
            self.shapes.selected_data = set()
        self._boxes = boxes

    def undo(self) -> None:
        """Take back the last stroke or box."""
        before = self._take() if self._run is not None else Drawn()
        while self._history:
            with self._changing():
                self._history.pop()()
            # A stroke may have been taken back by napari before.
            if not self._take().same_as(before):
                self._change(released=True)
                return

    def clear(self) -> None:
        """Take back everything that is drawn; `undo` brings it back."""
        if self._run is None:
            return
        labels, boxes = self.labels, self._boxes
        painted = labels is not None and bool(np.any(labels.data))
        with self._changing():
            if labels is not None and painted:
                labels.data_setitem(np.nonzero(labels.data), 0)
            if boxes:
                self._set_boxes(())
        if painted or boxes:
            undo_labels = labels.undo if labels is not None and painted else None
            self._history.append(partial(self._restore, undo_labels, boxes))
            self._change(released=True)

    def _restore(self, undo_labels: Callable[[], None] | None, boxes: tuple[Any, ...]) -> None:
        if undo_labels is not None:
            undo_labels()
        if boxes:
            self._set_boxes(boxes)

    def set_settings(self, settings: dict[str, Any]) -> None:
        """Replace the region in another way."""
        if settings != self.settings:
            self.settings = settings
            self._change(released=True)

    def set_shown(self, *, maps: bool, picture: bool) -> None:
        """Compute the maps of the edited image, and show that image, or not."""
        self.with_maps, self.with_picture = maps, picture
        if not picture:
            self._remove(self.picture)
            self._started.pop(PICTURE, None)
        if not maps:
            self._remove_stack()
            self._started.pop(MAPS, None)
        self._follow()

    def set_count(self, count: int) -> None:
        """Divide the image into another number of superpixels."""
        self.count, self._superpixels = count, None
        self._follow()

    # -- Superpixels -------------------------------------------------------------------------------

    def _on_click(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        """Add the superpixel at a click; a drag pans as usual."""
        if self.mode != "superpixel" or event.button != 1:
            return
        position, moved = event.position, False
        yield
        while event.type == "mouse_move":
            moved = True
            yield
        if not moved:
            self.add_superpixel(position)

    def add_superpixel(self, position: Any) -> None:
        """Paint the superpixel at a position in world coordinates."""
        labels, superpixels = self.labels, self._superpixels
        if labels is None or superpixels is None:
            return
        at = labels.world_to_data(position[-labels.ndim :])
        axes = list(self._required_run.region.axes)
        others = [i for i in range(labels.ndim) if i not in axes]
        if np.any(np.abs(np.asarray(at)[others]) > 0.5):
            # Another slice.
            return
        try:
            mask = superpixel_at(superpixels, tuple(np.asarray(at)[axes]))
        except CamError:
            # Beside the image.
            return
        labels.data_setitem(np.nonzero(mask.reshape(labels.data.shape)), 1)

    def _on_superpixels(self, labels: npt.NDArray[np.int32]) -> None:
        if self.mode != "off":
            self._superpixels = labels
            self._show_outlines(labels)
            self.said.emit("")

    def _show_outlines(self, labels: npt.NDArray[np.int32]) -> None:
        shaped, image = labels.reshape(self._sides()), self._required_run.image
        if self.outlines is not None:
            self.outlines.data = shaped
        elif image is not None and self.mode == "superpixel":
            self.outlines = Labels(
                shaped,
                name=f"{image.name} what if: superpixels",
                opacity=0.5,
                colormap={None: COLOUR, 0: "transparent"},
                metadata=dict(MARK),
                **self._placement(),
            )
            self.outlines.contour = 1
            self._insert_above(self._base or image, self.outlines)

    # -- Jobs --------------------------------------------------------------------------------------

    def _change(self, *, released: bool) -> None:
        if self._own_changes or self.mode == "off":
            return
        self._version += 1
        self._released = released
        self._follow()

    def _follow(self) -> None:
        """Start the next job: the effect first, then what is shown of it."""
        what_if, run = self.what_if, self._run
        if what_if is None or run is None or self.mode == "off" or self.runner.closed:
            return
        if self._is_due(EFFECT):
            if self._busy != EFFECT:
                self._drawn = self._take()
                work: Callable[..., Any] = partial(
                    edits.edit, what_if, self._drawn, dict(self.settings)
                )
                self._start(EFFECT, work, self._on_effect)
        elif self._busy:
            return
        elif self.mode == "superpixel" and self._superpixels is None:
            self.said.emit("Computing superpixels…")
            work = partial(edits.find_superpixels, what_if, self.count)
            self._start("superpixels", work, self._on_superpixels)
        elif self._drawn.is_empty:
            self._remove_results()
        elif self.with_picture and self._is_due(PICTURE):
            self._start(PICTURE, partial(edits.picture, what_if), self._on_picture)
        elif self.with_maps and self._released and self._is_due(MAPS):
            work = partial(edits.explain, what_if, run.animation, self._normalization)
            self._start(MAPS, work, self._on_maps)

    def _is_due(self, kind: str) -> bool:
        return self._started.get(kind) != self._version

    @property
    def _normalization(self) -> Any:
        return "local" if self._base is None else self._base.data.normalization

    def _start(self, kind: str, work: Callable[..., Any], done: Callable[[Any], None]) -> None:
        explainer = self._explainer
        if explainer.running and not explainer.writing and kind in ("", EFFECT):
            # The network serves one thread at a time, and scores can take minutes.
            explainer.cancel()
        self._busy = kind or "prepare"
        self._started[kind] = self._version
        self.runner.start(Job(work, done, kept=kind == EFFECT))

    def _on_finished(self) -> None:
        self._busy = ""
        self._follow()

    def _on_failed(self, error: CamError) -> None:
        if self.mode != "off":
            self.predicted.emit(None)
            self.said.emit(str(error))

    # -- Results -----------------------------------------------------------------------------------

    def _on_effect(self, effect: Effect) -> None:
        if self.mode != "off":
            self.said.emit("")
            self.predicted.emit(effect)

    def _on_picture(self, pixels: npt.NDArray[np.uint8]) -> None:
        if self.mode == "off":
            return
        sides = self._sides()
        shaped = pixels.reshape(*sides, *pixels.shape[len(self._required_run.region.axes) :])
        if self.picture is not None:
            self.picture.data = shaped
            return
        image = self._required_run.image
        assert image is not None
        rgb = shaped.ndim > len(sides)
        grey = {} if rgb else {"contrast_limits": (0, 255), "colormap": image.colormap}
        self.picture = Image(
            shaped,
            name=f"{image.name} what if: edited image",
            rgb=rgb,
            metadata=dict(MARK),
            **grey,
            **self._placement(),
        )
        self._insert_above(image, self.picture)

    def _insert_above(self, image: Image, layer: Image) -> None:
        """Insert a layer above the image, and keep the selected one."""
        viewer = self._session.viewer
        assert viewer is not None
        active = unwrapped(viewer.layers.selection.active)
        viewer.layers.insert(viewer.layers.index(image) + 1, layer)
        viewer.layers.selection.active = active

    def _on_maps(self, result: tuple[Animation, CamMetadata]) -> None:
        run, viewer = self._run, self._session.viewer
        if self.mode == "off" or run is None or run.image is None or viewer is None:
            return
        animation, about = result
        edited = Run.of(animation, run.region, run.image)
        if self.stack is not None:
            self._session.replace(self.stack, edited, about)
            return
        active, index = unwrapped(viewer.layers.selection.active), self._session.index
        with self._changing():
            self.stack = self._session.add(edited, run.image, self._normalization, about=about)
            self.stack.name = f"{name_of(edited)} what if"
            if self.picture is not None:
                # Between the image and its maps.
                above = viewer.layers.index(run.image) + 1
                viewer.layers.move(viewer.layers.index(self.picture), above)
            viewer.layers.selection.active = active
            if index is not None:
                self._session.go_to(index)

    def _remove_stack(self) -> None:
        stack, base = self.stack, self._base
        if stack is None:
            return
        self._remove(stack)
        self.stack = None
        if base is not None and base in self._session.stacks:
            # It was hidden below the other one.
            base.visible = True

    def _remove_results(self) -> None:
        self._remove(self.picture)
        self.picture = None
        self._remove_stack()

    # -- Region test -------------------------------------------------------------------------------

    def test_region(self, settings: dict[str, Any]) -> None:
        """Test whether the network uses what is drawn, by removing it at other places as well.

        Parameters
        ----------
        settings : dict
            Settings of `camanim.checks.check_region` that differ from their defaults.
        """
        base = self._base
        if base is None or self._run is None or self._take().is_empty:
            self.said.emit("Mark a region first: paint it, draw a box, or click superpixels.")
            return
        drawn, shape = self._take(), self._required_run.animation.image.shape
        mask = partial(drawn.mask, shape[: len(self._required_run.region.axes)])
        self.said.emit("Testing the region…")
        self._explainer.test_region(base, mask, settings, self._on_tested)

    def _on_tested(self, result: Any) -> None:
        test, problem = result
        self.said.emit(problem or edits.use_in_words(test))


def _same_pixels(one: Run, other: Run) -> bool:
    """Return whether the regions of two runs have the same pixels, of whatever slice."""
    same = one.image is other.image and one.region.axes == other.region.axes
    return same and one.region.ranges == other.region.ranges
