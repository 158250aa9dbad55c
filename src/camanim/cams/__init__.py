"""The methods: how an activation and its gradient become a map. One family per file."""

from camanim.cams import baseline, eigen, gradient  # noqa: F401 (entering their methods)
from camanim.cams.registry import Method, find_method, methods

__all__ = ["Method", "find_method", "methods"]
