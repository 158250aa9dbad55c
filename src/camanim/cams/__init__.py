"""The methods: how an activation and its gradient become a map. One family per file."""

# In the order in which they are listed.
from camanim.cams import gradient  # noqa: F401, I001 (entering their methods)
from camanim.cams import eigen  # noqa: F401
from camanim.cams import activation  # noqa: F401
from camanim.cams import perturbation  # noqa: F401
from camanim.cams import guided  # noqa: F401
from camanim.cams import meta  # noqa: F401
from camanim.cams import baseline  # noqa: F401
from camanim.cams.options import Option
from camanim.cams.registry import Method, NoMap, find_method, methods

__all__ = ["Method", "NoMap", "Option", "find_method", "methods"]
