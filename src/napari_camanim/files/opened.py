"""Layers of a saved result, which the session of a viewer takes over as if they had been computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.components import ViewerModel
from napari.layers import Image

from camanim.store.format import SUFFIXES
from napari_camanim.canvas.badge import Badge
from napari_camanim.layers.metadata import CamMetadata, metadata
from napari_camanim.layers.run import Run
from napari_camanim.layers.stack import StackData, guided_layer, stack_layer
from napari_camanim.layers.views import Region
from napari_camanim.plots.showing import show_panel_once
from napari_camanim.session import Session, unwrapped
from napari_camanim.work.imports import import_engine

if TYPE_CHECKING:
    from camanim import Animation


@dataclass(frozen=True)
class Opened:
    """A saved result, read from a file.

    Attributes
    ----------
    animation : Animation
    about : CamMetadata
        Metadata of its layer.
    name : str
        Name of the image.
    """

    animation: Animation
    about: CamMetadata
    name: str

    def layers(self) -> list[Image]:
        """Return the image, the guided gradient if there is one, and the stack."""
        animation = self.animation
        picture, placed = animation.image, animation.placement
        space = len(animation.geometry.size)
        sides = picture.shape[:space]
        scale, start = ((1.0,) * space, (0.0,) * space) if placed is None else placed.affine(sides)
        image = Image(
            picture,
            name=self.name,
            rgb=picture.ndim > space,
            multiscale=False,
            scale=scale,
            translate=start,
        )
        run = Run.of(animation, Region.of_picture(image, range(space)), image)
        stack = stack_layer(StackData(run, "local"), image, self.about)
        guided = guided_layer(run, image)
        # The stack last, as napari selects the last one.
        return [image, stack] if guided is None else [image, guided, stack]


def read_result(path: str | Path) -> Opened:
    """Read a saved result, without its network.

    Raises
    ------
    camanim.StoreError
        See `camanim.load`.
    """
    import_engine()
    from camanim.animation import load

    animation = load(path)
    return Opened(animation, metadata(animation, "local"), image_name(path))


def image_name(path: str | Path) -> str:
    """Return the name of a file without the suffixes of saved results."""
    name = Path(path).name
    for suffix in (*SUFFIXES, ".camanim"):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            name = name[: -len(suffix)]
    return name


def add_opened(viewer: ViewerModel, opened: Opened) -> Image:
    """Add the layers of a saved result to a viewer, and return the stack."""
    layers = opened.layers()
    for layer in layers:
        viewer.add_layer(layer)
    take_over(viewer, layers[-1])
    return layers[-1]


def take_over(viewer: ViewerModel, stack: Image) -> None:
    """Show a stack that was added to a viewer, with badge, colour bar and its scores."""
    session = Session.of(viewer)
    Badge.on(session)
    session.show(stack)
    if stack.data.animation.findings:
        show_panel_once(session)


def when_added(layers: Sequence[Image], then: Callable[[ViewerModel, Image], None]) -> None:
    """Call ``then(viewer, layer)`` with the last of some layers, once all are added to a viewer.

    napari tells a reader no viewer, and a viewer tells a plugin nothing before its dock is opened: the
    first event of the first layer finds the viewer that has connected to it.
    """
    first, last = layers[0], layers[-1]

    def find(event: Any = None) -> None:
        viewer = _viewer_of(first)
        if viewer is None:
            return
        first.events.disconnect(find)
        inserted = viewer.layers.events.inserted

        def follow(event: Any) -> None:
            layer = unwrapped(event.value)
            if layer is last or layer not in layers:
                # Another layer comes only after an error.
                inserted.disconnect(follow)
            if layer is last:
                then(viewer, layer)

        # After napari's own callbacks, which set the sliders.
        inserted.connect(follow, position="last")

    first.events.connect(find)


def _viewer_of(layer: Image) -> ViewerModel | None:
    """Return the viewer that a layer was added to: it connects to the events of its layers."""
    for callback in layer.events.mouse_pan.callbacks:
        holder = callback[0]() if isinstance(callback, tuple) else None
        if isinstance(holder, ViewerModel) and layer in holder.layers:
            return holder
    return None
