"""Sanity checks of a method, and agreement of maps with a mask.

The sanity checks compare maps with those of the same method for shuffled weights, or for other classes:
maps that do not change do not depend on either. Localisation compares maps with a mask of the object.
None of these proves that a map is correct.
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
