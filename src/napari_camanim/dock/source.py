"""What the dock explains: an image of the viewer, its channels, and the view in words."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox, Label
from napari.layers import Image, Labels

from camanim.errors import CamError
from camanim.models.domain import FIRST, suggest_model
from napari_camanim.dock.search_field import narrow
from napari_camanim.layers.metadata import KEY
from napari_camanim.layers.stack import is_input
from napari_camanim.layers.views import View, axis_names, take_view
from napari_camanim.session import unwrapped

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: Choices of the field for channels: grey or colours as shown, and the selected layers.
AS_SHOWN, SELECTED = "shown", "selected"
#: The longest axis that can hold channels.
MOST_CHANNELS = 16
#: Side in pixels of the part of a large image by which the first network is chosen.
SAMPLE = 1024


class Source:
    """Fields that say what is explained.

    Parameters
    ----------
    viewer : napari viewer
    narrowed : callable
        From the view of an image, and the image, to the part that is explained, such as a box.

    Attributes
    ----------
    image, channels : ComboBox
    words : Label
        The view in words.
    explained : napari.layers.Image or None
        The image that was described last.
    """

    def __init__(self, viewer: ViewerModel, narrowed: Callable[[View, Image], View]) -> None:
        self._viewer = viewer
        self._narrowed = narrowed
        self.explained: Image | None = None
        self.image = ComboBox(
            name="image",
            label="Image",
            choices=self.images,
            tooltip="The image to explain; follows the selected layer.",
        )
        narrow(self.image.native, 10)
        self.channels = ComboBox(
            name="channels",
            label="Channels",
            choices=self._channel_choices,
            tooltip="Axis or layers with the channels of the network's input.",
            visible=False,
        )
        self.words = Label(name="view", tooltip="What is explained by Run.")

    def images(self, widget: Any = None) -> list[tuple[str, Image]]:
        """Return the names of the images that can be explained, and the images."""
        return [(layer.name, layer) for layer in self._layers() if is_input(layer)]

    def masks(self, widget: Any = None) -> list[tuple[str, Labels]]:
        """Return the names of the masks that maps can be compared with, and the masks."""
        return [
            (layer.name, layer)
            for layer in self._layers()
            if isinstance(layer, Labels) and KEY not in layer.metadata
        ]

    def _layers(self) -> list[Any]:
        return [unwrapped(layer) for layer in self._viewer.layers]

    def _selected(self) -> list[Any]:
        return [unwrapped(layer) for layer in self._viewer.layers.selection]

    def _channel_choices(self, widget: Any = None) -> list[tuple[str, Any]]:
        """Return the axes and layers that can hold the channels of the network's input."""
        image = self.explained
        choices: list[tuple[str, Any]] = [("as shown", AS_SHOWN)]
        if image is None or image.rgb:
            return choices
        names, shape = axis_names(image), image.data.shape
        first = self._viewer.dims.ndim - image.ndim
        displayed = [axis - first for axis in self._viewer.dims.displayed]
        choices += [
            (f"axis {names[axis]} ({shape[axis]})", axis)
            for axis in range(image.ndim)
            if axis not in displayed and 2 <= shape[axis] <= MOST_CHANNELS
        ]
        if sum(is_input(layer) for layer in self._selected()) > 1:
            choices.append(("the selected layers", SELECTED))
        return choices

    def list_channels(self) -> None:
        """Update the choices of channels; the field is shown where there are several."""
        self.channels.reset_choices()
        self.channels.visible = len(self.channels.choices) > 1

    def _chosen_channels(self) -> int | list[Image] | None:
        """Return the axis, or the other layers, with the channels of the network's input."""
        chosen = self.channels.value
        if isinstance(chosen, int):
            return chosen
        if chosen != SELECTED:
            return None
        selected, image = self._selected(), self.explained
        images = [layer for _, layer in self.images()]
        return [layer for layer in images if layer in selected and layer is not image]

    def view(self) -> View:
        """Return what is explained.

        Raises
        ------
        ImageError
            If the selected layers cannot be channels of one image.
        """
        image = self.image.value
        return self._narrowed(take_view(self._viewer, image, self._chosen_channels()), image)

    def place(self) -> Any:
        """Return what of the viewer is part of the input: sliders of the image, and its contrast."""
        image, dims = self.explained, self._viewer.dims
        if image is None:
            return None
        return tuple(dims.point[-image.ndim :]), tuple(dims.displayed), image.contrast_limits

    def suggested_network(self) -> str:
        """Return the network that fits the image best, by its pixels."""
        image, suggested = self.explained, None
        # Nothing is computed or read from a file for it, and of a large image a part is enough.
        if image is not None and (image.rgb or isinstance(image.data, np.ndarray)):
            # The view may show no slice.
            with suppress(CamError):
                view = take_view(self._viewer, image, self._chosen_channels())
                sides = view.region(2).size
                start = [max(0, (n - SAMPLE) // 2) for n in sides]
                stop = [min(n, at + SAMPLE) for n, at in zip(sides, start, strict=True)]
                suggested = suggest_model(view.within((*start, *stop), 2).read(2).pixels)
        return suggested or FIRST


def list_again(field: ComboBox, instead: Any = None) -> None:
    """Update the list of a field without signals.

    The choice is kept, although it can have another name; if it was removed, `instead` is chosen.
    """
    with field.changed.blocked():
        chosen = field.value
        field.reset_choices()
        if chosen is not None and chosen in field.choices:
            field.value = chosen
        elif instead is not None:
            field.value = instead
