"""Read images, turn them into the network's input, and map that input back onto the image.

Pixels are areas: an image of height H extends from 0 to H, and the centre of its first row is at 0.5.
A coordinate of the network's input and the image's coordinate on the same axis are related by
``image = scale * input + offset``.
"""

from camanim.images.contents import color_of, why_labels
from camanim.images.files import open_image, read_image
from camanim.images.geometry import Geometry
from camanim.images.place import SourcePlace
from camanim.images.preprocess import Fit, Prepared, Preprocess
from camanim.images.regions import LazyImage, Region, is_box, take_region
from camanim.images.source import SourceImage
from camanim.images.values import (
    Window,
    as_array,
    checked_array,
    display_image,
    intensity_window,
    is_window,
    to_display,
    unit_image,
)

__all__ = [
    "Fit",
    "Geometry",
    "LazyImage",
    "Prepared",
    "Preprocess",
    "Region",
    "SourceImage",
    "SourcePlace",
    "Window",
    "as_array",
    "checked_array",
    "color_of",
    "display_image",
    "intensity_window",
    "is_box",
    "is_window",
    "open_image",
    "read_image",
    "take_region",
    "to_display",
    "unit_image",
    "why_labels",
]
