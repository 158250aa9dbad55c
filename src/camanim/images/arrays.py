"""Read arrays of NumPy: .npy as a memory map, .npz with a single array."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from camanim.errors import ImageError
from camanim.images.selection import Selection
from camanim.images.source import SourceImage

#: Bytes that one byte of a compressed member can become, at most.
_DEFLATE = 1032


def open_npy(path: Path, selection: Selection) -> SourceImage:
    """Open an array of NumPy without reading it; no object is unpickled."""
    selection.allow("An array of NumPy")
    with path.open("rb") as stream:
        _check_header(stream, path.stat().st_size)
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    return SourceImage(pixels, spatial_axes(pixels.shape), "NumPy", path.stem)


def open_npz(path: Path, selection: Selection) -> SourceImage:
    """Open the only array of an archive of NumPy; no object is unpickled."""
    selection.allow("An array of NumPy")
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        if len(members) != 1:
            names = ", ".join(m.filename.removesuffix(".npy") for m in members[:5]) or "none"
            raise ImageError(
                f"it holds {len(members)} arrays ({names}): load it with numpy.load, and "
                "pass one of them."
            )
        (member,) = members
        ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE}.get(member.compress_type, 0)
        if member.file_size > ratio * member.compress_size:
            raise ImageError("it is damaged: it promises more than it can hold.")
        with archive.open(member) as stream:
            _check_header(stream, member.file_size)
    with np.load(path, allow_pickle=False) as arrays:
        (pixels,) = arrays.values()
    return SourceImage(pixels, spatial_axes(pixels.shape), "NumPy", path.stem)


def spatial_axes(shape: tuple[int, ...]) -> int:
    """Return the number of spatial axes of an array, as `camanim.images.unit_image` takes them."""
    has_channels = len(shape) > 2 and shape[-1] in (1, 3, 4)
    return 3 if len(shape) - has_channels >= 3 else 2


def _check_header(stream: Any | BinaryIO, size: int) -> None:
    """Raise an `ImageError` unless the values are plain numbers, and as many as there are bytes.

    numpy allocates what the header says before it reads.
    """
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ImageError("its header is of a version for structured arrays: save plain numbers.")
    if dtype.kind not in "buif":
        raise ImageError(f"it holds {dtype} values, not numbers: save it as an array of numbers.")
    if math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise ImageError("it is damaged: its header and its length differ.")
