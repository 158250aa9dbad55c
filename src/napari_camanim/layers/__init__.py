"""Conversion of napari layers to input of the engine, and of results to layers."""
