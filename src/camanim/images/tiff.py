"""Read TIFF files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images.arrays import spatial_axes
from camanim.images.selection import Selection, chosen
from camanim.images.source import SourceImage
from camanim.images.tiff_colours import is_converted, to_rgb

if TYPE_CHECKING:
    from tifffile import TiffPage, TiffPageSeries

#: Photometric interpretations of TIFF.
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
#: Transparency masks, depth maps and semantic masks, whose values are grey.
_GREY = (4, 51177, 52527)
#: Interpretations that Pillow converts to RGB: palette, CMYK, YCbCr and CIELAB.
_CONVERTED = {3, 5, 6, 8}
_ORIENTATION = 274
_X_RESOLUTION, _Y_RESOLUTION = 282, 283
#: Units of length: the name here, and how many of them.
_UNITS = {
    "nm": ("um", 1e-3), "um": ("um", 1.0), "µm": ("um", 1.0), "μm": ("um", 1.0),
    "micron": ("um", 1.0), "microns": ("um", 1.0), "micrometer": ("um", 1.0),
    "mm": ("mm", 1.0), "cm": ("mm", 10.0), "m": ("mm", 1000.0),
}  # fmt: skip

_IN_UM = {"um": 1.0, "mm": 1000.0}


def open_tiff(path: Path, selection: Selection) -> SourceImage:
    """Open a TIFF file, with the spacing of ImageJ and OME."""
    selection.allow("A TIFF file", "channel")
    pixels = read_tiff(path, selection.channel)
    dims = spatial_axes(pixels.shape)
    spacing, units = tiff_spacing(path, dims)
    return SourceImage(pixels, dims, "TIFF", path.stem, spacing=spacing, units=units)


def read_tiff(path: Path, channel: int | None = None) -> npt.NDArray[Any]:
    """Read the image of a TIFF file, upright, with the samples of a pixel last.

    tifffile reads grey and RGB values of any type, and colours of 16 bits that `tiff_colours` converts
    to RGB of 8 bits. Pillow reads, in 8 bits, what has to be converted to RGB, and files whose
    compression tifffile can only read together with imagecodecs.

    Raises
    ------
    ImageError
        If the file holds several images or channels, or colours that neither library reads rightly.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        # Previews and the smaller levels of a pyramid are not the image.
        images = [series for series in file.series if not series.keyframe.is_reduced]
        if len(images) != 1:
            raise ImageError(f"it holds {len(images)} separate images; save one of them alone.")
        (series,) = images
        axes = series.axes
        if "C" in axes:
            return _channel(series, channel)
        if channel is not None:
            raise ImageError(f"it holds no channels (axes {axes}): leave out channel=.")
        page = series.keyframe
        orientation = page.tags.valueof(_ORIENTATION, 1)
        if is_converted(page):
            samples = _samples_last(series.asarray(), axes)
            return _upright(to_rgb(samples, page), axes.replace("S", "") + "S", orientation)
        if page.photometric in _CONVERTED or page.bitspersample in (2, 4):
            return _read_with_pillow(path, series)
        if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, *_GREY):
            raise ImageError("its colours are of a kind that is not supported; save it as RGB.")
        try:
            array = series.asarray()
        except ValueError as error:
            return _read_with_pillow(path, series, error)
        if page.photometric == _WHITE_IS_ZERO:
            array = _inverted(array, page)
        return _upright(_samples_last(array, axes), axes, orientation)


def _channel(series: TiffPageSeries, channel: int | None) -> npt.NDArray[Any]:
    """Return one channel of an image of ImageJ or OME."""
    axes, page = series.axes, series.keyframe
    at = axes.index("C")
    if channel is None or page.photometric != _BLACK_IS_ZERO:
        # Slices or colours: only the caller knows.
        raise ImageError(
            f"it holds channels (axes {axes}); choose one by camanim.open_image(path, channel=0), or "
            "read it with tifffile, and pass an array with slices first or channels last."
        )
    index = chosen(channel, series.shape[at], "channel", f"it holds {series.shape[at]} channels")
    array: npt.NDArray[Any] = np.take(series.asarray(), index, at)
    return array


def tiff_spacing(path: Path, dims: int) -> tuple[tuple[float, ...] | None, str | None]:
    """Return the spacing of a TIFF file of ImageJ or OME and its units; None where it has none.

    The resolution of other files is that of a print or a screen.

    Parameters
    ----------
    path : path-like
    dims : {2, 3}
        Number of spatial axes of the image.
    """
    try:
        return _spacing(path, dims)
    except (ArithmeticError, AttributeError, KeyError, SyntaxError, TypeError, ValueError):
        # Damaged metadata of an image that can be read; a SyntaxError is that of XML.
        return None, None


def _spacing(path: Path, dims: int) -> tuple[tuple[float, ...] | None, str | None]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        if file.is_imagej:
            metadata, tags = file.imagej_metadata or {}, file.pages.first.tags
            unit = str(metadata.get("unit")).replace("\\u00B5", "µ")
            per_unit = [tags.valueof(code) for code in (_Y_RESOLUTION, _X_RESOLUTION)]
            if any(not v or not v[0] for v in per_unit):
                return None, None
            plane = [denominator / numerator for numerator, denominator in per_unit]
            sizes, names = [float(metadata.get("spacing") or 1.0), *plane], [unit] * 3
        elif file.is_ome:
            image = tifffile.xml2dict(file.ome_metadata or "<OME/>")["OME"].get("Image")
            image = image[0] if isinstance(image, list) else image
            stored = (image or {}).get("Pixels") or {}
            names = [stored.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]
            sizes = [float(stored.get(f"PhysicalSize{axis}") or 0) for axis in "ZYX"]
        else:
            return None, None
    units = [_UNITS.get(name.lower()) for name in names[3 - dims :]]
    known = [unit for unit in units if unit is not None]
    if len(known) < dims or not all(sizes[3 - dims :]):
        return None, None
    # In the unit of x, whatever those of the other axes are.
    units_name = known[-1][0]
    factors = [factor * _IN_UM[name] / _IN_UM[units_name] for name, factor in known]
    return tuple(s * f for s, f in zip(sizes[3 - dims :], factors, strict=True)), units_name


def _read_with_pillow(
    path: Path, series: TiffPageSeries, error: ValueError | None = None
) -> npt.NDArray[Any]:
    """Read pages upright; `error` is that of tifffile, for what Pillow would read wrongly."""
    from PIL import Image

    from camanim.images.pictures import frames_at

    page = series.keyframe
    if page.bitspersample > 8 and page.samplesperpixel > 1:
        # Pillow cuts the samples of a pixel to 8 bits, or takes their bytes for pixels.
        raise error or ImageError("its colours have more than 8 bits; save it as RGB.")
    pages = [page.index for page in series.pages if page is not None]
    if len(pages) < len(series.pages) or len(series.axes.rstrip("S")) > 3:
        raise error or ImageError("its pages are of a kind that is not supported.")
    # From an open file: by name, Pillow maps raw pixels to memory as if they were stored upright.
    with path.open("rb") as stream, Image.open(stream, formats=("TIFF",)) as image:
        frames = list(frames_at(image, pages))
    # Pillow inverts values of 8 bits only.
    if page.photometric == _WHITE_IS_ZERO and page.bitspersample > 8:
        frames = [_inverted(frame, page) for frame in frames]
    return frames[0] if len(frames) == 1 else np.stack(frames)


def _inverted(array: npt.NDArray[Any], page: TiffPage) -> npt.NDArray[Any]:
    """Return values of which the highest is white."""
    if array.dtype.kind == "b":
        return ~array
    if array.dtype.kind != "u":
        raise ImageError(
            f"its {array.dtype} values grow from white to black; save it the other way."
        )
    inverted: npt.NDArray[Any] = array.dtype.type(2**page.bitspersample - 1) - array
    return inverted


def _samples_last(array: npt.NDArray[Any], axes: str) -> npt.NDArray[Any]:
    return np.moveaxis(array, axes.index("S"), -1) if "S" in axes else array


def _upright(array: npt.NDArray[Any], axes: str, orientation: int) -> npt.NDArray[Any]:
    """Return (..., H, W) or (..., H, W, C), turned as the tag of the orientation says."""
    y = array.ndim - (3 if "S" in axes else 2)
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(y, y + 1)
    if orientation in (3, 4, 7, 8):
        array = np.flip(array, y)
    if orientation in (2, 3, 6, 7):
        array = np.flip(array, y + 1)
    return array
