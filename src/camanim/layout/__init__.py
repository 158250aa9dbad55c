"""How an output becomes channels over space: by looking, by its shape, or as the user says."""

from camanim.layout.arrangement import Arrangement, Gathered
from camanim.layout.outputs import tensors_of
from camanim.layout.override import Override, parse, stripes
from camanim.layout.shapes import Layout, Reading

__all__ = [
    "Arrangement",
    "Gathered",
    "Layout",
    "Override",
    "Reading",
    "parse",
    "stripes",
    "tensors_of",
]
