"""Class activation map methods, one module per family."""

# Importing a module registers its methods; methods() lists them in this order.
from camanim.cam_methods import gradient  # noqa: F401, I001
from camanim.cam_methods import eigen  # noqa: F401
from camanim.cam_methods import activation  # noqa: F401
from camanim.cam_methods import perturbation  # noqa: F401
from camanim.cam_methods import guided  # noqa: F401
from camanim.cam_methods import meta  # noqa: F401
from camanim.cam_methods import baseline  # noqa: F401
from camanim.cam_methods.method import Method
from camanim.cam_methods.registry import find_method, find_registered, methods

__all__ = ["Method", "find_method", "find_registered", "methods"]
