"""The napari plugin: what every layer of a network looks at, under napari's dimension slider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Image
    from torch import nn

    from camanim import Animation, Model
    from camanim.stack import Normalization
    from napari_camanim._views import Shown

__all__ = ["add_animation", "animate_layer"]


def add_animation(
    viewer: ViewerModel,
    animation: Animation,
    image_layer: Image,
    *,
    normalization: Normalization = "local",
) -> Image:
    """Add the maps of all layers to a viewer, as one stack over its image.

    The slider is labelled `layer`; it starts at the layer that ROAD finds best, or at the last one
    without scores. The canvas names the shown layer. Earlier stacks are hidden: two at once would blend.

    Parameters
    ----------
    viewer : napari.Viewer
        Or a `napari.components.ViewerModel`, without a window.
    animation : Animation
        Of the slice of `image_layer` that the viewer shows, or of the volume along its last three axes.
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
        When the viewer shows no slice of the image, or the animation is of another image.
    """
    from camanim.errors import ImageError
    from napari_camanim._views import take_view

    _check_layer(viewer, image_layer)
    space = len(animation.geometry.size)
    shown = take_view(viewer, image_layer).read(space)
    ours, theirs = animation.image.shape[:space], shown.pixels.shape[:space]
    if ours != theirs:
        raise ImageError(f"The animation is of a {ours} image, the layer shows one of {theirs}.")
    return _add(viewer, animation, image_layer, shown, normalization)


def animate_layer(
    viewer: ViewerModel,
    image_layer: Image,
    model: str | Path | Model | nn.Module = "demo/ultrasound",
    *,
    road: bool = False,
    normalization: Normalization = "local",
    **settings: Any,
) -> Image:
    """Explain the shown slice of an image layer, or its volume, and add the stack to the viewer.

    A network of volumes explains the volume along the image's last three axes, and so does one of
    images with ``slices=True``; else it is the slice that the viewer shows.

    Parameters
    ----------
    viewer, image_layer, normalization
        See `add_animation`.
    model : str, path, Model or torch.nn.Module
        What `camanim.load_model` knows, or a network.
    road : bool
        Whether to score all layers with ROAD too.
    **settings
        Passed on to `camanim.animate`: ``method``, ``target``, and all of `camanim.Settings`.
        ``progress`` is also told of a download and of ROAD. The window is the layer's contrast limits,
        for what has more than 8 bits. It all happens before the call returns; the dock runs the same
        in a thread.

    Returns
    -------
    napari.layers.Image
        The stack. A guided method's own image becomes a hidden layer beside it.

    Raises
    ------
    camanim.CamError
        See `camanim.animate`.
    """
    import camanim
    from camanim.progress import silent
    from napari_camanim._triton import load_apart
    from napari_camanim._views import take_view

    load_apart()
    _check_layer(viewer, image_layer)
    progress = settings.setdefault("progress", silent)
    loaded = camanim.load_model(model, progress=progress)
    space = 3 if settings.get("slices") else loaded.dims
    shown = take_view(viewer, image_layer).read(space)
    settings.setdefault("window", shown.window)
    animation = camanim.animate(loaded, shown.pixels, **settings)
    if road:
        animation.score(settings.get("seed", 0), progress=progress)
    return _add(viewer, animation, image_layer, shown, normalization)


def _check_layer(viewer: ViewerModel, image_layer: Image) -> None:
    from napari.layers import Image

    from camanim.errors import ImageError

    if not isinstance(image_layer, Image) or image_layer not in viewer.layers:
        raise ImageError("The image must be an Image layer of the viewer.")


def _add(
    viewer: ViewerModel,
    animation: Animation,
    image_layer: Image,
    shown: Shown,
    normalization: Normalization,
) -> Image:
    from napari_camanim._layers import guided_layer, is_stack, show_index, stack_layer
    from napari_camanim._overlay import Caption

    # Two stacks at once would blend into a picture that is neither.
    for other in viewer.layers:
        if is_stack(other):
            other.visible = False
    above = viewer.layers.index(image_layer) + 1
    # Added by the list, which gives them names of their own when there are some like them already.
    guided = guided_layer(animation, image_layer, shown)
    if guided is not None:
        viewer.layers.insert(above, guided)
    layer = stack_layer(animation, image_layer, shown, normalization)
    viewer.layers.insert(above, layer)
    viewer.layers.selection.active = layer
    show_index(viewer, layer, animation.best_index)
    Caption.on(viewer)
    return layer
