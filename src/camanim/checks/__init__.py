"""Tests of scores, sanity checks of a method, and agreement of maps with a mask.

The layer test and the activation test compare the ROAD scores of maps with those of moved maps and of
randomly weighted activations. The sanity checks compare maps with those of the same method for random
weights, or for other classes: maps that do not change do not depend on either. Localisation compares
maps with a mask of the object; the region test removes a region from the image. None of these proves
that a map is correct.
"""

from camanim.checks.activation_test import ActivationTest, check_activation
from camanim.checks.label_randomisation import LabelRandomisation, check_labels
from camanim.checks.layer_test import LayerTest, check_layers
from camanim.checks.localisation import Localisation, localise
from camanim.checks.randomisation import Randomisation, check_randomisation
from camanim.checks.region_test import RegionTest, check_region

__all__ = [
    "ActivationTest",
    "LabelRandomisation",
    "LayerTest",
    "Localisation",
    "Randomisation",
    "RegionTest",
    "check_activation",
    "check_labels",
    "check_layers",
    "check_randomisation",
    "check_region",
    "localise",
]
