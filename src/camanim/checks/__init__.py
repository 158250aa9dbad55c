"""What a method's maps are worth: whether they need the weights and the class, and find the object.

Two sanity checks compare the maps with those that the same method makes of a network with shuffled
weights, or of other classes: maps that stay as they are say little about either. With a mask of the
object at hand, its place can be compared with where the maps are bright. None of them says that a map is
right.
"""

from camanim.checks.label_randomisation import LabelRandomisation, check_labels
from camanim.checks.localisation import Localisation, localise
from camanim.checks.randomisation import Randomisation, check_randomisation
from camanim.checks.verdict import noted

__all__ = [
    "LabelRandomisation",
    "Localisation",
    "Randomisation",
    "check_labels",
    "check_randomisation",
    "localise",
    "noted",
]
