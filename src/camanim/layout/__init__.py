"""Layouts: which axes of an output are channels and which are space."""

from camanim.layout.arrangement import Arrangement, Gathered
from camanim.layout.outputs import tensors_of
from camanim.layout.override import Override, parse, stripes
from camanim.layout.shapes import InferredLayout, LayoutInference

__all__ = [
    "Arrangement",
    "Gathered",
    "InferredLayout",
    "LayoutInference",
    "Override",
    "parse",
    "stripes",
    "tensors_of",
]
