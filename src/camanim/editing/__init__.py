"""What-if edits: replace regions of the network's input, and compare the probabilities.

`WhatIf` holds what is prepared once for an image and a network. An edit then takes one forward pass.
"""

from camanim.editing.effect import ClassEffect, Effect
from camanim.editing.regions import box_mask, superpixel_at, superpixels
from camanim.editing.replacement import Edit, Replacement
from camanim.editing.what_if import WhatIf

__all__ = [
    "ClassEffect",
    "Edit",
    "Effect",
    "Replacement",
    "WhatIf",
    "box_mask",
    "superpixel_at",
    "superpixels",
]
