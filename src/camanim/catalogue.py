"""All kinds of findings, in the order in which they are shown; a new one is one import here."""

from camanim.road import scores  # noqa: F401, I001 (registering their findings)
from camanim.road import measures  # noqa: F401
from camanim.checks import localisation  # noqa: F401
from camanim.checks import randomisation  # noqa: F401
from camanim.checks import label_randomisation  # noqa: F401
from camanim.findings import finding_kinds

__all__ = ["finding_kinds"]
