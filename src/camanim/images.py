"""Image in, tensor out, and the geometry that leads back.

Coordinates: pixels are areas. An image of height H covers the edges 0 to H, and the centre of its first
row is at 0.5. An axis of the network's input and the image's axis are related by
``image_edge = scale * input_edge + offset``; everything else follows from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError

if TYPE_CHECKING:
    import torch

Fit = Literal["stretch", "crop", "native"]
Window = tuple[float, float]


@dataclass(frozen=True)
class Geometry:
    """Where the network's input lies on the image.

    Attributes
    ----------
    size : (H, W)
        The network's input, in its own pixels.
    scale : (y, x)
        Image pixels per input pixel.
    offset : (y, x)
        Where the input's top left *edge* lies, in image pixels from the image's top left edge.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def affine(self, shape: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return scale and translation that put a map of `shape` (h, w) onto the image.

        The map covers the whole input, whatever its resolution. Pixel (i, j) of the map has its
        centre at ``scale * (i, j) + translate`` in the image's pixel indices (the convention of
        napari: index 0 is the *centre* of the first pixel).
        """
        per_cell = [s * n / m for s, n, m in zip(self.scale, self.size, shape, strict=True)]
        translate = [o + c / 2 - 0.5 for o, c in zip(self.offset, per_cell, strict=True)]
        return (per_cell[0], per_cell[1]), (translate[0], translate[1])

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The explained part of the image: top, left, bottom, right edge in image pixels."""
        (top, left), (sy, sx), (h, w) = self.offset, self.scale, self.size
        return top, left, top + sy * h, left + sx * w


@dataclass(frozen=True)
class Prepared:
    """An image on its way into the network.

    Attributes
    ----------
    tensor : torch.Tensor
        (1, C, h, w) float32, on the CPU.
    geometry : Geometry
    image : numpy.ndarray
        The image as shown, uint8, (H, W) or (H, W, 3).
    """

    tensor: torch.Tensor
    geometry: Geometry
    image: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preprocess:
    """From an image to the network's input: resize, choose channels, normalise.

    Attributes
    ----------
    size : (H, W) or None
        What the network was trained on; None leaves every image at its own size.
    resize : int or None
        Length of the shorter side before the centre crop of ``fit="crop"`` (torchvision's
        ``resize_size``); None resizes the shorter side to fit `size`.
    mean, std : sequence of float
        Per channel, for intensities in [0, 1]; one number serves all channels.
    channels : {1, 3}
        What the network takes. Grey is repeated, colour becomes luminance (ITU-R 601).
    interpolation : {"bilinear", "bicubic", "nearest"}
        For resizing, with antialiasing.
    """

    size: tuple[int, int] | None = None
    resize: int | None = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    channels: int = 3
    interpolation: str = "bilinear"

    def __call__(
        self, image: Any, *, fit: Fit = "stretch", window: Window | None = None
    ) -> Prepared:
        """Prepare one image.

        Parameters
        ----------
        image : array-like
            (H, W), (H, W, 3) or (H, W, 4); see `unit_image` for its values.
        fit : {"stretch", "crop", "native"}
            Stretch the whole image to `size`, resize and crop the centre as torchvision does, or
            leave the image at its own size.
        window : (low, high), optional
            Values that become 0 and 1.

        Raises
        ------
        ImageError
            When the image cannot be used as it is.
        """
        import torch
        from torchvision.transforms.v2 import functional as transform

        if fit not in ("stretch", "crop", "native"):
            raise ImageError(f'fit is "stretch", "crop" or "native", not {fit!r}.')
        if self.channels not in (1, 3):
            raise ImageError(
                f"Images have one or three channels, the network wants {self.channels}: "
                "give Model a preprocess function of your own."
            )
        unit = unit_image(image, window)
        planes = torch.from_numpy(np.atleast_3d(unit)).permute(2, 0, 1)
        if planes.shape[0] == 1 and self.channels == 3:
            planes = planes.expand(3, -1, -1)
        elif planes.shape[0] == 3 and self.channels == 1:
            planes = transform.rgb_to_grayscale(planes)
        resized, geometry = self._place(planes, fit)
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device="cpu")[:, None, None]
            for v in (self.mean, self.std)
        )
        return Prepared(((resized - mean) / std)[None].contiguous(), geometry, to_display(unit))

    def _place(self, planes: torch.Tensor, fit: Fit) -> tuple[torch.Tensor, Geometry]:
        from torchvision.transforms.v2 import functional as transform

        height, width = planes.shape[-2:]
        if fit == "native" or self.size is None:
            return planes, Geometry((height, width))
        h, w = self.size
        if fit == "stretch":
            resized_to, corner = (h, w), (0, 0)
        else:
            # The roundings are torchvision's own (Resize of the shorter side, then CenterCrop).
            short = self.resize if self.resize is not None else max(h, w)
            if height <= width:
                resized_to = (short, int(short * width / height))
            else:
                resized_to = (int(short * height / width), short)
            corner = (round((resized_to[0] - h) / 2.0), round((resized_to[1] - w) / 2.0))
            if min(corner) < 0:
                raise ImageError(
                    f"A crop of {h} x {w} does not fit into the resized image of "
                    f'{resized_to[0]} x {resized_to[1]}: use fit="stretch".'
                )
        mode = transform.InterpolationMode(self.interpolation)
        resized = transform.resize(planes, list(resized_to), interpolation=mode, antialias=True)
        cropped = resized[:, corner[0] : corner[0] + h, corner[1] : corner[1] + w]
        scale = (height / resized_to[0], width / resized_to[1])
        offset = (corner[0] * scale[0], corner[1] * scale[1])
        return cropped, Geometry((h, w), scale, offset)


def as_array(image: Any) -> npt.NDArray[Any]:
    """Take whatever numpy takes.

    Raises
    ------
    ImageError
        When it takes it not, as ragged lists, or tensors that want a gradient.
    """
    try:
        return np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImageError(f"This is no image: {error}") from error


def unit_image(image: Any, window: Window | None = None) -> npt.NDArray[np.float32]:
    """Check an image and bring its intensities to [0, 1].

    Parameters
    ----------
    image : array-like
        (H, W) grey, (H, W, 3) colour or (H, W, 4) colour with alpha, which is dropped. Boolean,
        integer or floating; numpy, dask, PIL, or anything that ``numpy.asarray`` takes.
    window : (low, high), optional
        Values that become 0 and 1, beyond which is cut off. By default the range of the integer
        type, and [0, 1] for floating images.

    Returns
    -------
    (H, W) or (H, W, 3) float32 array

    Raises
    ------
    ImageError
        For a wrong rank, an empty image, values that are not finite, a floating image outside
        [0, 1] without a window, or a window that is not increasing.
    """
    array = as_array(image)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"An image is (H, W), (H, W, 3) or (H, W, 4); this array has shape {array.shape}: "
            "pass one slice, with its channels last."
        )
    if array.size == 0:
        raise ImageError(f"The image is empty: its shape is {array.shape}.")
    if array.dtype.kind not in "buif":
        raise ImageError(f"An image holds numbers, this one holds {array.dtype}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError("The image holds NaN or infinite values: replace them first.")
    if array.ndim == 3:
        array = array[:, :, 0] if array.shape[2] == 1 else array[:, :, :3]
    low, high = _full_range(array) if window is None else _checked(window)
    # In float64, where 64-bit integers and large offsets keep their differences.
    unit = (array.astype(np.float64) - low) / (high - low)
    return np.clip(unit, 0, 1).astype(np.float32)


def _checked(window: Window) -> Window:
    try:
        low, high = (float(value) for value in window)
    except (TypeError, ValueError) as error:
        raise ImageError(f"A window is two numbers (low, high), not {window!r}.") from error
    # An infinite difference has no fractions.
    if not (low < high and np.isfinite(high - low)):
        raise ImageError(f"The window must rise from low to high, not from {low:g} to {high:g}.")
    return low, high


def _full_range(array: npt.NDArray[Any]) -> Window:
    if array.dtype.kind == "b":
        return 0.0, 1.0
    if array.dtype.kind in "ui":
        limits = np.iinfo(array.dtype)
        return float(limits.min), float(limits.max)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise ImageError(
            f"This floating image runs from {low:.4g} to {high:.4g}, not within [0, 1]: "
            "say which values are black and white with window=(low, high)."
        )
    return 0.0, 1.0


def to_display(unit: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Turn intensities in [0, 1] into 8 bits."""
    return np.round(unit * 255).astype(np.uint8)


def read_image(path: str | Path) -> npt.NDArray[Any]:
    """Read an image file (TIFF, PNG, JPEG, ... whatever Pillow reads), upright if it is a photograph.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    array as stored, (H, W) or (H, W, C)

    Raises
    ------
    ImageError
        When there is no such file or it is no image.
    """
    import tifffile
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        raise ImageError(f"There is no file {path}.")
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            array = np.asarray(tifffile.imread(path))
        else:
            with Image.open(path) as file:
                picture = ImageOps.exif_transpose(file)
                # Palettes and inks are ways of storing colours.
                stored = {"LA": "L", "La": "L", "P": "RGB", "PA": "RGB", "CMYK": "RGB"}
                array = np.asarray(picture.convert(stored.get(picture.mode, picture.mode)))
    except Exception as error:
        # Each reader has errors of its own for a damaged file.
        raise ImageError(f"{path} cannot be read as an image: {error}") from error
    if array.size == 0:
        raise ImageError(f"{path} cannot be read as an image: it is damaged or empty.")
    return array
