"""One run: a result, and the image and settings that it was computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

from napari_camanim.layers.views import Region

if TYPE_CHECKING:
    from napari.layers import Image

    from camanim import Animation
    from napari_camanim.work.request import RunRequest


@dataclass(eq=False)
class Run:
    """One result, and the image and settings that it was computed from.

    Attributes
    ----------
    animation : Animation
    region : Region
        Explained region of the image.
    image_name : str
        Name of the image layer when it was explained.
    request : RunRequest or None
        Contents of the dock; None for results of scripts.
    source : weakref.ref or None
        The image layer.
    computing : bool
        Whether findings are being computed.
    """

    animation: Animation
    region: Region
    image_name: str = ""
    request: RunRequest | None = None
    source: ref[Any] | None = None
    computing: bool = False

    @classmethod
    def of(
        cls, animation: Animation, region: Region, image: Image, request: RunRequest | None = None
    ) -> Run:
        """Return the run of an image layer."""
        return cls(animation, region, image.name, request, ref(image))

    @property
    def image(self) -> Image | None:
        """The image layer; None once it was deleted."""
        return None if self.source is None else self.source()

    @property
    def place(self) -> str:
        """The explained slice in words, such as ``"z = 12"``; empty for an image without slices."""
        whole = (*self.region.axes, self.region.channel_axis)
        axes = [i for i in range(len(self.region.shape)) if i not in whole]
        return ", ".join(f"{self.region.labels[i]} = {self.region.position[i]}" for i in axes)
