"""The usual comparisons: both normalisations of a run, the difference of two, and finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari.layers import Image

from camanim.comparison import difference
from camanim.errors import ImageError
from napari_camanim.canvas.badge import Badge
from napari_camanim.comparison.badges import DIFFERENCE, MINUS, short_names
from napari_camanim.comparison.view import (
    FEWEST,
    MOST,
    TEMPORARY,
    CompareView,
    check_stacks,
    copy_layer,
    image_of,
    layers_of,
)
from napari_camanim.layers.metadata import KEY, CamMetadata
from napari_camanim.layers.run import Run
from napari_camanim.session import Session, unwrapped

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from camanim.stack import Normalization


def compare_normalizations(viewer: ViewerModel, stack: Image) -> CompareView:
    """Show one run twice: normalised locally, and globally.

    Parameters
    ----------
    viewer : napari.Viewer
    stack : napari.layers.Image
        A stack of the viewer. The other normalisation is a layer that is removed in the end.

    Returns
    -------
    CompareView

    Raises
    ------
    camanim.ImageError
        If the layer is not a stack of the viewer.
    """
    session, stack = Session.of(viewer), unwrapped(stack)
    check_stacks(session, [stack], fewest=1)
    previous = CompareView.of(session)
    if previous is not None:
        previous.close()
    other = "global" if stack.data.normalization == "local" else "local"
    about = {**stack.metadata[KEY], "normalization": other}
    twin = copy_layer(
        stack,
        data=stack.data.altered(normalization=other),
        name=f"{stack.name} {other}",
        metadata={KEY: about, TEMPORARY: True},
        visible=False,
    )
    # Into the list directly, as an added stack hides others.
    active = viewer.layers.selection.active
    viewer.layers.insert(layers_of(viewer).index(stack) + 1, twin)
    viewer.layers.selection.active = active
    pair = [stack, twin] if other == "global" else [twin, stack]
    try:
        return CompareView(session, pair)
    except BaseException:
        viewer.layers.remove(twin)
        raise


def show_runs(
    viewer: ViewerModel,
    runs: Sequence[Run],
    normalization: Normalization = "local",
    about: Sequence[CamMetadata] | None = None,
) -> CompareView | Image | None:
    """Add finished runs as stacks, in their order, and show them side by side.

    Parameters
    ----------
    viewer : napari.Viewer
    runs : sequence of Run
        Of images that are in the viewer. Of more than six, the first six are shown side by side.
    normalization : {"local", "global"}
    about : sequence of CamMetadata, optional
        Metadata of the layers; by default they are computed.

    Returns
    -------
    CompareView, napari.layers.Image or None
        The comparison; the stack, if there is one run; None without runs.

    Raises
    ------
    camanim.ImageError
        If an image was removed, or the images cannot be shown side by side; the stacks are added.
    """
    session = Session.of(viewer)
    previous = CompareView.of(session)
    if previous is not None:
        previous.close()
    stacks = []
    for k, run in enumerate(runs):
        image = run.image
        if image is None or image not in layers_of(viewer):
            raise ImageError(
                f"The image {run.image_name} was removed: add it again, and run again."
            )
        described = None if about is None else about[k]
        stacks.append(session.add(run, image, normalization, about=described))
    Badge.on(session)
    if len(stacks) < FEWEST:
        return stacks[0] if stacks else None
    return CompareView(session, stacks[:MOST])


def subtract(viewer: ViewerModel, first: Image, second: Image) -> Image:
    """Add the signed difference of two stacks of one image as another stack, above the first one.

    Parameters
    ----------
    viewer : napari.Viewer
    first, second : napari.layers.Image
        Stacks of the viewer. Each map is divided by its maximum before it is subtracted.

    Returns
    -------
    napari.layers.Image
        The stack, in a diverging colormap: positive where `first` is higher.

    Raises
    ------
    camanim.CamError
        If a layer is not a stack, or the results have no difference; see
        `camanim.comparison.difference`.
    """
    session = Session.of(viewer)
    first, second = unwrapped(first), unwrapped(second)
    check_stacks(session, [first, second])
    run, other = first.data.run, second.data.run
    image = image_of(first)
    result = difference(run.animation, other.animation)
    previous = CompareView.of(session)
    if previous is not None:
        previous.close()
    label = None
    if session.current in (first, second) and session.index is not None:
        label = session.animation.layers[session.index].label if session.animation else None
    # One scale for all layers: small differences stay small.
    stack = session.add(Run.of(result, run.region, image), image, "global", signed=True)
    what = MINUS.join(short_names([first, second]))
    stack.name = f"{run.image_name} {what}"
    stack.metadata = {**stack.metadata, DIFFERENCE: what}
    labels = [layer.label for layer in result.layers]
    if label in labels:
        session.go_to(labels.index(label))
    Badge.on(session)
    return stack
