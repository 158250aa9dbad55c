"""Turn images into the network's input: choose the channels, resize, crop and normalise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError, ModelError
from camanim.images.geometry import Geometry, format_size
from camanim.images.values import Window, display_image, unit_image
from camanim.short_repr import ShortRepr

if TYPE_CHECKING:
    import torch

Fit = Literal["stretch", "crop", "native"]
Interpolation = Literal["bilinear", "bicubic", "nearest", "nearest-exact"]
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)


@dataclass(frozen=True)
class Prepared(ShortRepr):
    """A prepared image: the network's input, its geometry, and the image for display.

    Attributes
    ----------
    tensor : torch.Tensor
        (1, C, h, w), (1, C, d, h, w), or (Z, C, h, w) for all slices of a volume. `Preprocess` returns
        float32 on the CPU.
    geometry : Geometry
    image : numpy.ndarray
        The image for display, uint8: (H, W), (H, W, 3), (Z, Y, X) or (Z, Y, X, 3).
    notes : tuple of str
        What was assumed about the image, such as a window from its values.
    """

    tensor: torch.Tensor
    geometry: Geometry
    image: npt.NDArray[np.uint8]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of an image: channels, size, crop and normalisation of the network's input.

    Attributes
    ----------
    size : (H, W), (D, H, W) or None
        Size of the network's input; None keeps the size of each image.
    resize : int or None
        Length of the shortest side before the centre crop of ``fit="crop"`` (torchvision's
        ``resize_size``). None resizes the shorter side to the longer one of a 2-D `size`, and a volume
        by the smallest factor with which it covers a 3-D `size`.
    mean, std : sequence of float
        One number per channel or for all channels, for intensities in [0, 1].
    channels : int
        Channels of the network's input. A grey image is repeated for three channels, and a colour
        image becomes luminance (ITU-R 601) for one. Otherwise the image must have this number.
    interpolation : {"bilinear", "bicubic", "nearest", "nearest-exact"}
        Interpolation for resizing, with antialiasing.
    dims : {2, 3}
        Number of spatial axes of the network's input; the length of `size`, if given.

    Raises
    ------
    ModelError
        If a field is invalid; the message names it.
    """

    size: tuple[int, ...] | None = None
    resize: int | None = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    channels: int = 3
    interpolation: str = "bilinear"
    dims: int = 2

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "dims", len(self.size))
        for field, wrong, expected in (
            ("size", self.size is not None and min(self.size, default=0) < 1, "positive"),
            ("dims", self.dims not in (2, 3), "2 or 3, the length of `size`"),
            ("resize", self.resize is not None and self.resize < 1, "positive"),
            ("mean", not np.isfinite(self.mean).all(), "finite"),
            ("std", not (np.isfinite(self.std).all() and min(self.std, default=0) > 0), "positive"),
            ("mean", len(self.mean) not in (1, self.channels), "one number, or one per channel"),
            ("std", len(self.std) not in (1, self.channels), "one number, or one per channel"),
            (
                "interpolation",
                self.interpolation not in INTERPOLATIONS,
                " or ".join(INTERPOLATIONS),
            ),
        ):
            if wrong:
                value = getattr(self, field)
                raise ModelError(f"{field} of a Preprocess must be {expected}, not {value!r}.")

    def __call__(
        self,
        image: Any,
        *,
        fit: Fit = "stretch",
        window: Window | None = None,
        slices: bool = False,
    ) -> Prepared:
        """Return an image as the network's input.

        Parameters
        ----------
        image : array-like
            (H, W), (H, W, 3), (H, W, 4) or (H, W, `channels`) for 2-D networks; (Z, Y, X), or with
            channels last, for 3-D ones. See `unit_image` for the valid intensities.
        fit : {"stretch", "crop", "native"}
            Stretch the whole image to `size`, resize it and crop the centre as torchvision does, or
            keep its size.
        window : (low, high), optional
            Intensities that become 0 and 1.
        slices : bool
            Take a volume, and return all its slices (Z, C, h, w) for a 2-D network.

        Raises
        ------
        ImageError
            If the image cannot be used.
        """
        import torch

        if fit not in ("stretch", "crop", "native"):
            raise ImageError(f'fit must be "stretch", "crop" or "native", not {fit!r}.')
        if slices and self.dims == 3:
            raise ImageError("slices=True is for 2-D networks, and this network takes volumes.")
        space = 3 if slices else self.dims
        notes: list[str] = []
        unit = unit_image(image, window, space=space, channels=self.channels, note=notes.append)
        planes = torch.from_numpy(unit if unit.ndim > space else unit[..., None]).movedim(-1, 0)
        resized, geometry = self._resize_and_crop(self._match_channels(planes), fit)
        if slices:
            geometry = Geometry(
                (len(unit), *geometry.size), (1.0, *geometry.scale), (0.0, *geometry.offset)
            )
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device="cpu").reshape(-1, *[1] * space)
            for v in (self.mean, self.std)
        )
        normalised = (resized - mean) / std
        tensor = normalised.movedim(1, 0) if slices else normalised[None]
        return Prepared(tensor.contiguous(), geometry, display_image(unit, space), tuple(notes))

    def _match_channels(self, planes: torch.Tensor) -> torch.Tensor:
        """Convert (C, ...) to the network's number of channels."""
        from torchvision.transforms.v2 import functional as transform

        count = planes.shape[0]
        if count == self.channels:
            return planes
        if count == 1 and self.channels == 3:
            return planes.expand(3, *planes.shape[1:])
        if count == 3 and self.channels == 1:
            grey: torch.Tensor = transform.rgb_to_grayscale(planes.movedim(0, -3)).movedim(-3, 0)
            return grey
        raise ImageError(
            f"The network takes {self.channels} channels and the image has {count}: pass the channels "
            "as the image's last axis, or pass a preprocess function to Model."
        )

    def _resize_and_crop(self, planes: torch.Tensor, fit: Fit) -> tuple[torch.Tensor, Geometry]:
        """Resize and crop the last axes of (C, ..., h, w)."""
        shape = tuple(planes.shape[-self.dims :])
        if fit == "native" or self.size is None:
            return planes, Geometry(shape)
        if fit == "stretch":
            resized_to, corner = self.size, (0,) * self.dims
        else:
            resized_to = self._size_before_crop(shape)
            corner = tuple(round((n - s) / 2.0) for n, s in zip(resized_to, self.size, strict=True))
            if min(corner) < 0:
                raise ImageError(
                    f"A crop of {format_size(self.size)} does not fit into the image resized to "
                    f'{format_size(resized_to)}: use fit="stretch".'
                )
        resized = _resize(planes, resized_to, self.interpolation)
        for axis, (start, length) in enumerate(zip(corner, self.size, strict=True), -self.dims):
            resized = resized.narrow(axis, start, length)
        scale = tuple(n / m for n, m in zip(shape, resized_to, strict=True))
        offset = tuple(c * s for c, s in zip(corner, scale, strict=True))
        return resized, Geometry(tuple(self.size), scale, offset)

    def _size_before_crop(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        assert self.size is not None
        if self.dims == 3 and self.resize is None:
            factor = max(s / n for s, n in zip(self.size, shape, strict=True))
            covers = zip(self.size, shape, strict=True)
            return tuple(max(s, round(n * factor)) for s, n in covers)
        # Rounded as by torchvision's Resize of the shorter side, followed by CenterCrop.
        short, shortest = self.resize or max(self.size), min(shape)
        return tuple(short if n == shortest else int(short * n / shortest) for n in shape)


def _resize(planes: torch.Tensor, size: Sequence[int], interpolation: str) -> torch.Tensor:
    """Resize the last two axes of (..., h, w), or the last three of (C, d, h, w).

    The antialiased filters are separable. A volume is resized in its planes and then along z, with the
    same filters as 2-D images.
    """
    from torchvision.transforms.v2 import functional as transform

    mode = transform.InterpolationMode(interpolation)
    plane = list(size[-2:])
    resized: torch.Tensor = transform.resize(planes, plane, interpolation=mode, antialias=True)
    if len(size) == 3:
        along_z = resized.movedim(-3, -2)
        zx_size = [size[0], size[2]]
        along_z = transform.resize(along_z, zx_size, interpolation=mode, antialias=True)
        resized = along_z.movedim(-2, -3)
    return resized
