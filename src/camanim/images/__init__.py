"""Image in, tensor out, and the geometry that leads back.

Coordinates: pixels are areas. An image of height H covers the edges 0 to H, and the centre of its first
row is at 0.5. An axis of the network's input and the image's axis are related by
``image_edge = scale * input_edge + offset``; everything else follows from that.
"""

from camanim.images.files import read_image
from camanim.images.geometry import Geometry
from camanim.images.preprocess import Fit, Prepared, Preprocess
from camanim.images.values import (
    Window,
    as_array,
    is_window,
    shown_image,
    to_display,
    unit_image,
)

__all__ = [
    "Fit",
    "Geometry",
    "Prepared",
    "Preprocess",
    "Window",
    "as_array",
    "is_window",
    "read_image",
    "shown_image",
    "to_display",
    "unit_image",
]
