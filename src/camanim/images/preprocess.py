"""From an image to the network's input: size, channels, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError, ModelError
from camanim.images.geometry import Geometry
from camanim.images.values import Window, shown_image, unit_image

if TYPE_CHECKING:
    import torch

Fit = Literal["stretch", "crop", "native"]
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "nearest-exact")


@dataclass(frozen=True)
class Prepared:
    """An image on its way into the network.

    Attributes
    ----------
    tensor : torch.Tensor
        (1, C, h, w), (1, C, d, h, w), or (Z, C, h, w) for all slices of a volume; from `Preprocess`
        float32 on the CPU.
    geometry : Geometry
    image : numpy.ndarray
        The image as shown, uint8: (H, W), (H, W, 3), (Z, Y, X) or (Z, Y, X, 3).
    """

    tensor: torch.Tensor
    geometry: Geometry
    image: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preprocess:
    """From an image to the network's input: resize, choose channels, normalise.

    Attributes
    ----------
    size : (H, W), (D, H, W) or None
        What the network was trained on; None leaves every image at its own size.
    resize : int or None
        Length of the shortest side before the centre crop of ``fit="crop"`` (torchvision's
        ``resize_size``). None resizes the shorter side to fit a 2-D `size`, and a volume by the
        smallest factor at which it covers a 3-D one.
    mean, std : sequence of float
        Per channel, for intensities in [0, 1]; one number serves all channels.
    channels : int
        What the network takes. Grey is repeated for three, colour becomes luminance (ITU-R 601) for
        one; any other number must be the image's own.
    interpolation : {"bilinear", "bicubic", "nearest", "nearest-exact"}
        For resizing, along each axis, with antialiasing.
    dims : {2, 3}
        Axes of the images that the network takes; what `size` says, where there is one.

    Raises
    ------
    ModelError
        When a field is not what it should be; the error names it.
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
        for field, wrong, wanted in (
            ("size", self.size is not None and min(self.size, default=0) < 1, "positive"),
            ("dims", self.dims not in (2, 3), "2 or 3, as many as `size` has numbers"),
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
                raise ModelError(f"A preprocessing's {field} must be {wanted}, not {value!r}.")

    def __call__(
        self,
        image: Any,
        *,
        fit: Fit = "stretch",
        window: Window | None = None,
        slices: bool = False,
    ) -> Prepared:
        """Prepare one image.

        Parameters
        ----------
        image : array-like
            (H, W), (H, W, 3), (H, W, 4) or (H, W, `channels`) for 2-D networks; (Z, Y, X), or with
            channels last, for 3-D ones. See `unit_image` for its values.
        fit : {"stretch", "crop", "native"}
            Stretch the whole image to `size`, resize and crop the centre as torchvision does, or
            leave the image at its own size.
        window : (low, high), optional
            Values that become 0 and 1.
        slices : bool
            Take a volume, and put all its slices (Z, C, h, w) through a 2-D network.

        Raises
        ------
        ImageError
            When the image cannot be used as it is.
        """
        import torch

        if fit not in ("stretch", "crop", "native"):
            raise ImageError(f'fit is "stretch", "crop" or "native", not {fit!r}.')
        if slices and self.dims == 3:
            raise ImageError("slices=True is for 2-D networks: this one takes the whole volume.")
        space = 3 if slices else self.dims
        unit = unit_image(image, window, space=space, channels=self.channels)
        planes = torch.from_numpy(unit if unit.ndim > space else unit[..., None]).movedim(-1, 0)
        resized, geometry = self._place(self._coloured(planes), fit)
        if slices:
            geometry = Geometry(
                (len(unit), *geometry.size), (1.0, *geometry.scale), (0.0, *geometry.offset)
            )
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device="cpu").reshape(-1, *[1] * space)
            for v in (self.mean, self.std)
        )
        normal = (resized - mean) / std
        tensor = normal.movedim(1, 0) if slices else normal[None]
        return Prepared(tensor.contiguous(), geometry, shown_image(unit, space))

    def _coloured(self, planes: torch.Tensor) -> torch.Tensor:
        """Give (C, ...) the network's number of channels."""
        from torchvision.transforms.v2 import functional as transform

        have = planes.shape[0]
        if have == self.channels:
            return planes
        if have == 1 and self.channels == 3:
            return planes.expand(3, *planes.shape[1:])
        if have == 3 and self.channels == 1:
            grey: torch.Tensor = transform.rgb_to_grayscale(planes.movedim(0, -3)).movedim(-3, 0)
            return grey
        raise ImageError(
            f"The network wants {self.channels} channels and the image has {have}: pass the channels "
            "as the image's last axis, or give Model a preprocess function of your own."
        )

    def _place(self, planes: torch.Tensor, fit: Fit) -> tuple[torch.Tensor, Geometry]:
        """Resize and crop the last axes of (C, ..., h, w)."""
        shape = tuple(planes.shape[-self.dims :])
        if fit == "native" or self.size is None:
            return planes, Geometry(shape)
        if fit == "stretch":
            resized_to, corner = self.size, (0,) * self.dims
        else:
            resized_to = self._before_the_crop(shape)
            corner = tuple(round((n - s) / 2.0) for n, s in zip(resized_to, self.size, strict=True))
            if min(corner) < 0:
                raise ImageError(
                    f"A crop of {by(self.size)} does not fit into the resized image of "
                    f'{by(resized_to)}: use fit="stretch".'
                )
        resized = _resize(planes, resized_to, self.interpolation)
        for axis, (start, length) in enumerate(zip(corner, self.size, strict=True), -self.dims):
            resized = resized.narrow(axis, start, length)
        scale = tuple(n / m for n, m in zip(shape, resized_to, strict=True))
        offset = tuple(c * s for c, s in zip(corner, scale, strict=True))
        return resized, Geometry(tuple(self.size), scale, offset)

    def _before_the_crop(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        assert self.size is not None
        if self.dims == 3 and self.resize is None:
            factor = max(s / n for s, n in zip(self.size, shape, strict=True))
            covers = zip(self.size, shape, strict=True)
            return tuple(max(s, round(n * factor)) for s, n in covers)
        # The roundings are torchvision's own (Resize of the shorter side, then CenterCrop).
        short, shortest = self.resize or max(self.size), min(shape)
        return tuple(short if n == shortest else int(short * n / shortest) for n in shape)


def _resize(planes: torch.Tensor, size: Sequence[int], interpolation: str) -> torch.Tensor:
    """Resize the last two axes of (..., h, w), or the last three of (C, d, h, w).

    The antialiased filters are separable, so a volume is resized in its planes and then along z, with
    the very filters that 2-D images get.
    """
    from torchvision.transforms.v2 import functional as transform

    mode = transform.InterpolationMode(interpolation)
    plane = list(size[-2:])
    resized: torch.Tensor = transform.resize(planes, plane, interpolation=mode, antialias=True)
    if len(size) == 3:
        upright = resized.movedim(-3, -2)
        standing = [size[0], size[2]]
        upright = transform.resize(upright, standing, interpolation=mode, antialias=True)
        resized = upright.movedim(-2, -3)
    return resized


def by(lengths: Sequence[int]) -> str:
    """Write lengths as 3 x 4."""
    return " x ".join(str(n) for n in lengths)
