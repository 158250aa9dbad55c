"""The napari plugin: maps of all layers of a network as a stack with a slider ``layer``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_camanim._triton import protect_triton

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Image
    from torch import nn

    from camanim import Animation, Model
    from camanim.images import Geometry
    from camanim.stack import Normalization
    from napari_camanim.comparison.view import CompareView
    from napari_camanim.layers.views import Region

__all__ = ["add_animation", "animate_layer", "compare"]

# Here, as a script may import torch after the window was drawn.
protect_triton()


def add_animation(
    viewer: ViewerModel,
    animation: Animation,
    image_layer: Image,
    *,
    normalization: Normalization = "local",
) -> Image:
    """Add the maps of all layers to a viewer, as one stack over the image.

    The slider is labelled `layer`; it starts at the layer with the highest ROAD score, or at the last
    one without scores. The canvas shows a caption of the layer. Other stacks are hidden.

    Parameters
    ----------
    viewer : napari.Viewer
        Or a `napari.components.ViewerModel`, without a window.
    animation : Animation
        Result for the slice of `image_layer` that the viewer shows, or for its last three axes; or for
        a box of these.
    image_layer : napari.layers.Image
        Must be in the viewer.
    normalization : {"local", "global"}
        See `Animation.stack`.

    Returns
    -------
    napari.layers.Image
        With scores, names, settings and provenance in ``metadata["camanim"]``.

    Raises
    ------
    camanim.ImageError
        If the viewer shows no slice of the image, or the animation has another shape.
    """
    from camanim.errors import ImageError
    from napari_camanim.layers.views import take_view

    _check_layer(viewer, image_layer)
    space = len(animation.geometry.size)
    region = take_view(viewer, image_layer).region(space)
    explained_shape, shown_shape = animation.image.shape[:space], region.size
    if animation.placement is not None:
        # A box of the image, or all of it with a reduced picture.
        placed = animation.placement
        ends = zip(placed.offset, placed.scale, placed.size, strict=True)
        # The last pixel of a reduced picture may extend beyond the image.
        lasts = [start + scale * (n - 1) for start, scale, n in ends]
        matches = all(last < side for last, side in zip(lasts, shown_shape, strict=True))
    else:
        matches = explained_shape == shown_shape
    if not matches:
        raise ImageError(
            f"The animation has the shape {explained_shape}, the shown image {shown_shape}."
        )
    if animation.placement is not None:
        region = replace(region, box=_box_of(animation.placement, shown_shape))
    return _add_stack(viewer, animation, image_layer, region, normalization)


def _box_of(placed: Geometry, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the range of pixels along each axis that a placed picture covers."""
    sides = zip(placed.offset, placed.scale, placed.size, shape, strict=True)
    return tuple(
        (round(start), min(round(start + scale * n), side)) for start, scale, n, side in sides
    )


def animate_layer(
    viewer: ViewerModel,
    image_layer: Image,
    model: str | Path | Model | nn.Module = "demo/ultrasound",
    *,
    road: bool = False,
    normalization: Normalization = "local",
    box: Sequence[float] | None = None,
    windows: bool = False,
    **settings: Any,
) -> Image:
    """Explain the shown slice or the volume of an image layer, and add the stack to the viewer.

    A 3-D network explains the volume along the last three axes of the image, as does a 2-D network with
    ``slices=True``; otherwise the slice that the viewer shows is explained. Of multiscale, dask, zarr
    and memory-mapped layers, only a box is read, at full resolution, or one window at a time.

    Parameters
    ----------
    viewer, image_layer, normalization
        See `add_animation`.
    model : str, path, Model or torch.nn.Module
        A source of `camanim.load_model`, or a network.
    road : bool
        Whether to score all layers with ROAD.
    box : (y0, x0, y1, x1) or (z0, y0, x0, z1, y1, x1), optional
        Part of the slice or volume to explain, in pixels of the layer (of the first level).
    windows : bool
        Whether to explain window by window, by `camanim.animate_windows`.
    **settings
        Keywords of `camanim.animate`: ``method``, ``target``, and all of `camanim.Settings`; with
        ``windows=True`` also ``size``, ``overlap``, ``blending`` and ``max_cells``.
        ``progress`` also reports downloads and ROAD. By default ``window`` is the contrast limits of
        the layer, except for 8-bit and colour images.

    Returns
    -------
    napari.layers.Image
        The stack. The image of a guided method is added as another, hidden layer.

    Raises
    ------
    camanim.CamError
        See `camanim.animate`.
    """
    import camanim
    from camanim.progress import silent
    from napari_camanim.layers.views import take_view

    _check_layer(viewer, image_layer)
    progress = settings.setdefault("progress", silent)
    loaded = camanim.load_model(model, progress=progress)
    space = 3 if settings.get("slices") else loaded.dims
    view = take_view(viewer, image_layer)
    if box is not None:
        view = view.within(box, space)
    is_lazy = windows or box is not None
    shown = view.source(space) if is_lazy else view.read(space)
    settings.setdefault("window", shown.window)
    if box is not None:
        settings["box"] = view.edges(shown.region.axes)
    explain = camanim.animate_windows if windows else camanim.animate
    animation = explain(loaded, shown.pixels, **settings)
    if box is not None:
        animation.notes.insert(0, f"Explained: {view.words(space)}.")
    if road:
        animation.score(settings.get("seed", 0), progress=progress)
    return _add_stack(viewer, animation, image_layer, shown.region, normalization)


def compare(viewer: ViewerModel, stacks: Sequence[Image]) -> CompareView:
    """Show two to six stacks side by side, with one slider and one camera.

    Parameters
    ----------
    viewer : napari.Viewer
    stacks : sequence of napari.layers.Image
        Stacks of the viewer, such as those that `animate_layer` returns, in the order of the cells.

    Returns
    -------
    CompareView
        Its method ``close()`` ends the comparison, and leaves the viewer as it was before.

    Raises
    ------
    camanim.ImageError
        If the number of stacks is not 2 to 6, or the images cannot be shown side by side: an image was
        removed, images differ in their number of axes, or slices are compared with volumes.
    """
    from napari_camanim.comparison.view import CompareView
    from napari_camanim.session import Session

    return CompareView(Session.of(viewer), stacks)


def _check_layer(viewer: ViewerModel, image_layer: Image) -> None:
    from napari.layers import Image

    from camanim.errors import ImageError

    if not isinstance(image_layer, Image) or image_layer not in viewer.layers:
        raise ImageError("The image must be an Image layer of the viewer.")


def _add_stack(
    viewer: ViewerModel,
    animation: Animation,
    image_layer: Image,
    region: Region,
    normalization: Normalization,
) -> Image:
    from napari_camanim.canvas.badge import Badge
    from napari_camanim.layers.run import Run
    from napari_camanim.session import Session, unwrapped

    session = Session.of(viewer)
    image = unwrapped(image_layer)
    stack = session.add(Run.of(animation, region, image), image, normalization)
    Badge.on(session)
    return stack
