"""What can go wrong, in one family: every error that camanim raises on purpose is a `CamError`.

None of them is a `RuntimeError`: napari's thread workers take a `RuntimeError` for a deleted Qt object
and swallow it, and the user would wait for ever.
"""


class CamError(Exception):
    """Base of all errors of camanim; its text says what is wrong and what to do."""


class ImageError(CamError):
    """The image cannot be explained as it is: wrong rank, empty, not finite, unknown range."""


class ModelError(CamError):
    """The network is unknown, cannot be loaded, or cannot take this input."""


class MethodError(CamError):
    """No such method."""


class TargetError(CamError):
    """The network has no such class, or its output is not one row of class scores."""


class LayerError(CamError):
    """No layer answers to the selection, or none of the selected ones has a map."""


class SettingError(CamError, TypeError):
    """A setting is unknown, of the wrong type or out of range."""


class ScoreError(CamError):
    """Maps cannot be scored, checked or compared with a mask, or that was not done yet."""


class RenderError(CamError):
    """A movie or a picture cannot be drawn or written."""


class OutOfMemory(CamError):
    """The machine or the GPU has too little memory for this network at this input size."""


class Cancelled(CamError):
    """Raise it from a progress callback to stop a run; what was computed is kept."""


class NoMap(Exception):
    """Raise it from a method that has no map for a layer; its text becomes the layer's status."""
