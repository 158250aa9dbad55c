"""Imports of all modules that register a kind of finding."""

from camanim.checks import (  # noqa: F401
    activation_test,
    label_randomisation,
    layer_test,
    localisation,
    randomisation,
    region_test,
)
from camanim.findings import finding_kinds
from camanim.road import measures, scores  # noqa: F401

__all__ = ["finding_kinds"]
