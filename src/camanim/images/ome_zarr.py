"""Read Zarr arrays and OME-Zarr images, versions 2 and 3 of the format.

The metadata of an array name the codecs with which it is read. Some codecs run code that is stored in
the array (pickle), so that the metadata are checked before Zarr reads them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images.arrays import spatial_axes
from camanim.images.geometry import format_size
from camanim.images.selection import Selection, chosen
from camanim.images.source import SourceImage
from camanim.images.values import Window, is_window
from camanim.optional import library

#: Compressors and filters of version 2, by the names of numcodecs, that read numbers from bytes.
_CODECS_2 = {
    "blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "fixedscaleoffset",
    "quantize", "bitround", "packbits", "astype", "crc32", "crc32c", "adler32", "fletcher32",
}  # fmt: skip
#: Codecs of version 3, likewise.
_CODECS_3 = {"bytes", "transpose", "blosc", "gzip", "zstd", "crc32c", "sharding_indexed"}
_DTYPE_2 = re.compile(r"[<>|][biuf][1248]")
_DTYPE_3 = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
#: Files with the metadata of arrays and groups, and the longest that is read.
_METADATA = ("zarr.json", ".zarray", ".zgroup")
_LONGEST = 2**24
#: Bytes of a chunk, which is read as a whole.
_LARGEST_CHUNK = 2**31
#: Micrometres per unit.
_MICROMETRES = {
    "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "micron": 1.0, "um": 1.0, "µm": 1.0,
    "nm": 1e-3, "millimeter": 1e3, "mm": 1e3, "centimeter": 1e4, "meter": 1e6,
}  # fmt: skip


def is_zarr(path: Path) -> bool:
    """Return whether a folder holds a Zarr array or group."""
    return path.is_dir() and any((path / name).is_file() for name in _METADATA)


def open_zarr(path: Path, selection: Selection) -> SourceImage:
    """Open a Zarr array, or the first level of the first image of an OME-Zarr group, unread."""
    library("zarr", "data")
    metadata = _attributes(path)
    if metadata is None:
        selection.allow("A Zarr array")
        array = _open_array(path)
        pixels = ArrayView(array, range(array.ndim), {})
        return SourceImage(pixels, spatial_axes(pixels.shape), "Zarr", path.stem)
    if metadata.get("multiscales") is None and "bioformats2raw.layout" in metadata:
        # A folder of images, as converted from a microscope's file.
        images = [p for p in path.iterdir() if p.name.isdigit() and is_zarr(p)]
        images.sort(key=lambda p: int(p.name))
        what = f"it holds {len(images)} images"
        at = chosen(selection.series, len(images), "series", what)
        return open_zarr(images[at], replace(selection, series=None))
    if metadata.get("multiscales") is None:
        arrays = sorted(p.name for p in path.iterdir() if is_zarr(p) and _attributes(p) is None)
        if len(arrays) != 1:
            names = ", ".join(arrays[:5]) or "none"
            raise ImageError(f"it is a group of {len(arrays)} arrays ({names}): open one of them.")
        return open_zarr(path / arrays[0], selection)
    return _open_image(path, metadata, selection)


def _open_image(path: Path, metadata: Mapping[str, Any], selection: Selection) -> SourceImage:
    """Open the first level of an OME-Zarr image."""
    selection.allow("An OME-Zarr image", "volume", "channel")
    multiscale = metadata["multiscales"][0]
    level = multiscale["datasets"][0]
    array = _open_array(_inside(path, level["path"]))
    axes = [_axis(axis) for axis in multiscale.get("axes") or "tczyx"]
    names = "".join(name for name, _ in axes)
    if len(names) != array.ndim or len(set(names)) != len(names) or not set(names) <= set("tczyx"):
        raise ImageError(f"its axes {names} are not those of an image (t, c, z, y, x).")
    if not names.endswith("yx"):
        raise ImageError(f"its axes {names} do not end in y and x.")
    lengths = dict(zip(names, array.shape, strict=True))
    fixed: dict[int, int] = {}
    if "t" in lengths:
        count = lengths["t"]
        what = f"it holds {count} points in time"
        fixed[names.index("t")] = chosen(selection.volume, count, "volume", what)
    elif selection.volume is not None:
        selection.allow("An OME-Zarr image without time", "channel")
    if "c" in lengths and (lengths["c"] == 1 or selection.channel is not None):
        what = f"it holds {lengths['c']} channels"
        fixed[names.index("c")] = chosen(selection.channel, lengths["c"], "channel", what)
    if lengths.get("z") == 1:
        fixed[names.index("z")] = 0
    kept = [i for i in range(array.ndim) if i not in fixed]
    # Channels last, as in all images here.
    order = [i for i in kept if names[i] != "c"] + [i for i in kept if names[i] == "c"]
    space = [i for i in order if names[i] in "zyx"]
    scale = _scale(multiscale, level, array.ndim)
    spacing, units = _physical([scale[i] for i in space], [axes[i][1] for i in space])
    channel = None if any(names[i] == "c" for i in order) else fixed.get(names.find("c"), 0)
    return SourceImage(
        ArrayView(array, order, fixed),
        len(space),
        "OME-Zarr",
        path.stem.removesuffix(".ome"),
        window=None if channel is None else _window(metadata, channel),
        spacing=spacing,
        units=units,
    )


def _axis(axis: Any) -> tuple[str, str]:
    """Return the name and the unit of an axis; the first versions had names only."""
    if isinstance(axis, Mapping):
        return str(axis.get("name", "")).lower(), str(axis.get("unit") or "")
    return str(axis).lower(), ""


def _scale(multiscale: Mapping[str, Any], level: Mapping[str, Any], count: int) -> list[float]:
    """Return the sizes of a pixel, the product of the scales of the level and of all levels."""
    scale = np.ones(count)
    known = False
    for part in (level, multiscale):
        for transformation in part.get("coordinateTransformations") or ():
            values = transformation.get("scale")
            if transformation.get("type") == "scale" and values is not None:
                scale = scale * np.array([float(v) for v in values]).reshape(count)
                known = True
    if not known or not (np.isfinite(scale).all() and (scale > 0).all()):
        return [math.nan] * count
    return [float(v) for v in scale]


def _physical(
    sizes: Sequence[float], units: Sequence[str]
) -> tuple[tuple[float, ...] | None, str | None]:
    """Return the spacing in millimetres if all units are, and otherwise in micrometres."""
    if any(math.isnan(size) for size in sizes):
        return None, None
    if any(unit not in _MICROMETRES for unit in units):
        return tuple(sizes), None
    factors = [_MICROMETRES[unit] for unit in units]
    target = "mm" if set(factors) == {1e3} else "um"
    divisor = 1e3 if target == "mm" else 1.0
    return tuple(size * f / divisor for size, f in zip(sizes, factors, strict=True)), target


def _window(metadata: Mapping[str, Any], channel: int) -> Window | None:
    """Return the window of a channel that OME's rendering settings suggest."""
    channels = (metadata.get("omero") or {}).get("channels") or []
    window = channels[channel].get("window") if channel < len(channels) else None
    if not isinstance(window, Mapping):
        return None
    limits = (window.get("start"), window.get("end"))
    return (float(limits[0]), float(limits[1])) if is_window(limits) else None  # type: ignore[arg-type]


class ArrayView:
    """A lazy array with some axes fixed and the others in another order; errors are `ImageError`.

    Parameters
    ----------
    array : array
        Can be sliced, such as a Zarr array.
    order : sequence of int
        Axes of `array` that this one has.
    fixed : mapping of int to int
        Indices along all other axes.
    """

    def __init__(self, array: Any, order: Sequence[int], fixed: Mapping[int, int]) -> None:
        self._array, self._order, self._fixed = array, list(order), dict(fixed)
        self.shape = tuple(int(array.shape[i]) for i in order)
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        at = next((i for i, part in enumerate(parts) if part is Ellipsis), None)
        if at is not None:
            missing = self.ndim - len(parts) + 1
            parts = (*parts[:at], *[slice(None)] * missing, *parts[at + 1 :])
        if len(parts) > self.ndim:
            raise IndexError(f"The image has {self.ndim} axes, not {len(parts)}.")
        if not all(isinstance(p, slice | int | np.integer) for p in parts):
            return np.asarray(self)[key]
        parts = (*parts, *[slice(None)] * (self.ndim - len(parts)))
        # Negative steps and indices are resolved here: Zarr has no steps backwards.
        ranges = [range(n)[p] for p, n in zip(parts, self.shape, strict=True)]
        if any(isinstance(r, range) and r.step < 0 for r in ranges):
            return np.asarray(self)[key]
        index: list[Any] = [self._fixed.get(i) for i in range(self._array.ndim)]
        for axis, r in zip(self._order, ranges, strict=True):
            index[axis] = slice(r.start, r.stop, r.step) if isinstance(r, range) else int(r)
        try:
            values = np.asarray(self._array[tuple(index)])
        except Exception as error:
            # Chunks are read now, and may be damaged.
            raise ImageError(f"The Zarr array cannot be read: {error}") from error
        left = [a for a, r in zip(self._order, ranges, strict=True) if isinstance(r, range)]
        return values.transpose([sorted(left).index(a) for a in left])

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return np.asarray(self[(slice(None),) * self.ndim], dtype=dtype)


# -- Metadata, read and checked before Zarr does ---------------------------------------------------


def _attributes(path: Path) -> Mapping[str, Any] | None:
    """Return the attributes of a group that describe images; None of an array."""
    if (path / "zarr.json").is_file():
        metadata = _json(path / "zarr.json")
        if metadata.get("node_type") == "array":
            return None
        attributes = metadata.get("attributes") or {}
        return attributes.get("ome") or attributes
    if (path / ".zarray").is_file():
        return None
    if not (path / ".zgroup").is_file():
        raise ImageError("it is no Zarr array or group: it has no metadata.")
    return _json(path / ".zattrs") if (path / ".zattrs").is_file() else {}


def _open_array(path: Path) -> Any:
    """Return an array whose codecs have been checked, opened for reading."""
    zarr = library("zarr", "data")
    storage = library("zarr.storage", "data")
    if (path / "zarr.json").is_file():
        version = 3
        _check_3(_json(path / "zarr.json"))
    elif (path / ".zarray").is_file():
        version = 2
        _check_2(_json(path / ".zarray"))
    else:
        raise ImageError("it is damaged: the array of its first level is missing.")
    # Of this version: consolidated metadata and those of the other version have not been checked.
    array = zarr.open_array(storage.LocalStore(path, read_only=True), mode="r", zarr_format=version)
    if np.dtype(array.dtype).kind not in "buif":
        raise ImageError(f"it holds {array.dtype} values, not real numbers.")
    if math.prod(array.chunks) * array.dtype.itemsize > _LARGEST_CHUNK:
        raise ImageError(f"its chunks of {format_size(array.chunks)} are too large to be read.")
    return array


def _check_2(metadata: Mapping[str, Any]) -> None:
    dtype = metadata.get("dtype")
    if not isinstance(dtype, str) or not _DTYPE_2.fullmatch(dtype):
        raise ImageError(f"it holds values of type {dtype!r:.40}, not real numbers.")
    for codec in (metadata.get("compressor"), *(metadata.get("filters") or ())):
        if codec is not None:
            _check_codec(codec.get("id"), _CODECS_2)


def _check_3(metadata: Mapping[str, Any]) -> None:
    dtype = metadata.get("data_type")
    if not isinstance(dtype, str) or not _DTYPE_3.fullmatch(dtype):
        raise ImageError(f"it holds values of type {dtype!r:.40}, not real numbers.")
    if metadata.get("storage_transformers"):
        raise ImageError("its storage is transformed, which is not supported.")
    _check_codecs_3(metadata.get("codecs") or ())


def _check_codecs_3(codecs: Sequence[Any]) -> None:
    for codec in codecs:
        name = codec.get("name") if isinstance(codec, Mapping) else codec
        _check_codec(name, _CODECS_3)
        if name == "sharding_indexed":
            configuration = codec["configuration"]
            _check_codecs_3(configuration.get("codecs") or ())
            _check_codecs_3(configuration.get("index_codecs") or ())


def _check_codec(name: Any, known: set[str]) -> None:
    if name not in known:
        raise ImageError(
            f"it is coded with {name!r:.40}, which may run code that is stored in it; save it with "
            f"one of {', '.join(sorted(known))}."
        )


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LONGEST:
        raise ImageError(f"its metadata in {path.name} are too long.")
    metadata = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(metadata, dict):
        raise ImageError(f"its metadata in {path.name} are damaged.")
    return metadata


def _inside(folder: Path, name: Any) -> Path:
    """Return the path of a level, which must lie in the folder of the image."""
    parts = PurePosixPath(str(name)).parts
    inner = folder.joinpath(*parts)
    if not parts or ".." in parts or not inner.resolve().is_relative_to(folder.resolve()):
        raise ImageError("its first level lies outside of its folder.")
    return inner
