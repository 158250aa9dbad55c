"""Where the cells of an output lie in the image, found by letting positions run along."""

from camanim.layout.position_tracing.tracing import trace_positions

__all__ = ["trace_positions"]
