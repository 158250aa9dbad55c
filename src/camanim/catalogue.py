"""Imports of all modules that register a kind of finding."""

from camanim.checks import label_randomisation, localisation, randomisation  # noqa: F401
from camanim.findings import finding_kinds
from camanim.road import measures, scores  # noqa: F401

__all__ = ["finding_kinds"]
