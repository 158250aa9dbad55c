"""Trace which part of the image each element of an output belongs to, in one more forward pass."""

from camanim.layout.position_tracing.tracing import trace_positions

__all__ = ["trace_positions"]
