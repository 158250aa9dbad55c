"""Origin of an error: the code of camanim, or a network and the libraries that it calls."""

from __future__ import annotations

import traceback
from pathlib import Path

_PACKAGE = Path(__file__).parent
#: Functions that call an operation of the network, which is implemented in C and has no frame.
_PASS_ON = ("__torch_dispatch__", "__torch_function__")
#: Parts of torch that run the network, by a part of the path, and libraries that only compute.
_NETWORK_OF_TORCH = ("/torch/nn/modules/", "/torch/autograd/")
_LIBRARIES = ("/torch/", "/numpy/", "/scipy/", "/skimage/", "/PIL/", "<frozen ", "/numba/")
_STANDARD_LIBRARY = Path(traceback.__file__).parent


def is_internal(error: BaseException) -> bool:
    """Return whether the innermost code of an error that is not a library's belongs to camanim."""
    frames = list(traceback.walk_tb(error.__traceback__))
    for frame, _ in reversed(frames):
        path = Path(frame.f_code.co_filename)
        name = path.as_posix()
        if path.is_relative_to(_PACKAGE):
            return frame.f_code.co_name not in _PASS_ON
        if any(part in name for part in _NETWORK_OF_TORCH):
            return False
        is_standard = path.is_relative_to(_STANDARD_LIBRARY) and "site-packages" not in name
        if not is_standard and not any(part in name for part in _LIBRARIES):
            return False
    return False
