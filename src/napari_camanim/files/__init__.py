"""Saved results in napari: opened as layers, and written from them."""
