"""Sanity checks of a method's maps, and their agreement with a mask.

Two checks compare the maps with those that the same method gives with shuffled weights, or for other
classes: maps that stay the same depend little on either. With a mask of the object, its place is
compared with where the maps are bright. None of them shows that a map is right.
"""

from camanim.checks.label_randomisation import LabelRandomisation, check_labels
from camanim.checks.localisation import Localisation, localise
from camanim.checks.randomisation import Randomisation, check_randomisation

__all__ = [
    "LabelRandomisation",
    "Localisation",
    "Randomisation",
    "check_labels",
    "check_randomisation",
    "localise",
]
