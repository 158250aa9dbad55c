"""The methods: how an activation and its gradient become a map. One family per file."""

# In the order in which they are listed.
from camanim.cam_methods import gradient  # noqa: F401, I001 (entering their methods)
from camanim.cam_methods import eigen  # noqa: F401
from camanim.cam_methods import activation  # noqa: F401
from camanim.cam_methods import perturbation  # noqa: F401
from camanim.cam_methods import guided  # noqa: F401
from camanim.cam_methods import meta  # noqa: F401
from camanim.cam_methods import baseline  # noqa: F401
from camanim.cam_methods.method import Method
from camanim.cam_methods.registry import find_method, methods

__all__ = ["Method", "find_method", "methods"]
