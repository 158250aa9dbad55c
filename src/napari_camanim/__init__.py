"""The napari plugin: what every layer of a network looks at, under napari's dimension slider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from camanim import Animation, Model
    from camanim.animation import Normalization

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
        Of the slice of `image_layer` that the viewer shows.
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
    from napari_camanim._layers import shown_slice

    _check_layer(viewer, image_layer)
    shown = shown_slice(viewer, image_layer)
    ours, theirs = animation.image.shape[:2], shown.pixels.shape[:2]
    if ours != theirs:
        raise ImageError(f"The animation is of a {ours} image, the layer shows one of {theirs}.")
    return _add(viewer, animation, image_layer, shown, normalization)


def animate_layer(
    viewer: ViewerModel,
    image_layer: Image,
    model: str | Model = "demo/ultrasound",
    *,
    road: bool = False,
    normalization: Normalization = "local",
    **settings: Any,
) -> Image:
    """Explain the shown slice of an image layer and add the stack to the viewer.

    Parameters
    ----------
    viewer, image_layer, normalization
        See `add_animation`.
    model : str or Model
        A name that `camanim.load_model` knows, or a model.
    road : bool
        Whether to score all layers with ROAD too.
    **settings
        Passed on to `camanim.animate`: ``method``, ``target``, ``layers``, ``fit``, ``seed``,
        ``progress`` (also told of a download and of ROAD). The window is the layer's contrast limits,
        for what has more than 8 bits. It all happens before the call returns; the dock runs the same
        in a thread.

    Returns
    -------
    napari.layers.Image

    Raises
    ------
    camanim.CamError
        See `camanim.animate`.
    """
    import camanim
    from camanim.progress import silent
    from napari_camanim._layers import shown_slice
    from napari_camanim._triton import load_apart

    load_apart()
    _check_layer(viewer, image_layer)
    shown = shown_slice(viewer, image_layer)
    progress = settings.setdefault("progress", silent)
    settings.setdefault("window", shown.window)
    if isinstance(model, str):
        model = camanim.load_model(model, progress=progress)
    animation = camanim.animate(model, shown.pixels, **settings)
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
    shown: Any,
    normalization: Normalization,
) -> Image:
    from napari_camanim._layers import is_stack, show_index, stack_layer
    from napari_camanim._overlay import Caption

    # Two stacks at once would blend into a picture that is neither.
    for other in viewer.layers:
        if is_stack(other):
            other.visible = False
    layer = stack_layer(animation, image_layer, shown, normalization)
    # Added by the list, which gives it a name of its own when there is one like it already.
    viewer.layers.insert(viewer.layers.index(image_layer) + 1, layer)
    viewer.layers.selection.active = layer
    show_index(viewer, layer, animation.best_index)
    Caption.on(viewer)
    return layer
