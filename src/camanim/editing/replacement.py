"""Ways to replace a region of the network's input, and the record of an edit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.declarations import Check, Checked, NotNegative, Range, Seed
from camanim.errors import EditError

if TYPE_CHECKING:
    import torch

    from camanim.images import Geometry

By = Literal["impute", "blur", "zero", "mean", "paste"]
Bools = npt.NDArray[np.bool_]

#: Settings of each way, for its description.
_SETTINGS = {"impute": ("noise", "seed"), "blur": ("sigma",), "paste": ("offset",)}


def _is_offset(value: Any) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        return False
    numbers = all(
        isinstance(v, int | float | np.integer | np.floating) and bool(np.isfinite(v))
        for v in value
    )
    return len(value) in (2, 3) and numbers


OFFSET = Check(_is_offset, "(dy, dx), or (dz, dy, dx) in a volume, in pixels")


@dataclass(frozen=True)
class Replacement(Checked, error=EditError):
    """A way to replace a region of the network's input.

    Attributes
    ----------
    by : {"impute", "blur", "zero", "mean", "paste"}
        Replace with the weighted mean of the neighbours as ROAD does, with the blurred image, with
        black, with the mean of each channel of the image, or with other pixels of the image.
    offset : (dy, dx) or (dz, dy, dx), optional
        Distance from the region to the pixels that replace it, for ``by="paste"``, in pixels of the
        image; rounded to cells of the network's input.
    sigma : float
        Standard deviation of the blur, as a fraction of the longest side of the network's input.
    noise : float
        Standard deviation of the noise on imputed pixels, in units of the network's input.
    seed : int
        Seed of the noise on imputed pixels.

    Raises
    ------
    EditError
        If a value is of the wrong type or out of range, or an offset is missing or not used.
    """

    by: By = "impute"
    offset: Annotated[Sequence[float] | None, OFFSET] = None
    sigma: Annotated[float, Range(1e-4, 1.0)] = 5 / 224
    noise: NotNegative = 0.01
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.by == "paste") != (self.offset is not None):
            raise EditError(
                'by="paste" needs offset=(dy, dx), from the region to the pixels that replace it.'
                if self.offset is None
                else f'offset= is for by="paste", not for by="{self.by}": leave it out.'
            )
        if self.offset is not None:
            object.__setattr__(self, "offset", tuple(float(v) for v in self.offset))

    def describe(self) -> dict[str, Any]:
        """Return the way and those settings that it uses, as plain data."""
        values = {name: getattr(self, name) for name in _SETTINGS.get(self.by, ())}
        if self.offset is not None:
            values["offset"] = list(self.offset)
        return {"by": self.by, **values}

    def apply(self, image: torch.Tensor, cells: Bools, context: InputContext) -> torch.Tensor:
        """Return an image with a region replaced; all other values are unchanged to the bit.

        Parameters
        ----------
        image : (C, *S)
            Network's input.
        cells : (*S) bool array
        context : InputContext

        Raises
        ------
        EditError
            If nothing is left to impute from, black is not known, or the pasted pixels are outside.
        """
        import torch

        if not cells.any():
            return image
        if self.by == "paste":
            flat = np.ravel_multi_index(self._source(cells, context.geometry), cells.shape)
            source = torch.from_numpy(flat).to(image.device)
            replaced = image.clone()
            replaced[:, torch.from_numpy(cells).to(image.device)] = image.flatten(1)[:, source]
            return replaced
        if not context.slices:
            return self._filled(image, cells, context)
        # The network gets each slice separately.
        replaced = image.clone()
        for z in np.flatnonzero(cells.any(axis=(1, 2))):
            replaced[:, z] = self._filled(image[:, z], cells[z], context)
        return replaced

    def _filled(self, image: torch.Tensor, cells: Bools, context: InputContext) -> torch.Tensor:
        import torch

        removed = torch.from_numpy(cells).to(image.device)
        filled = self._values(image, removed, context).to(image)
        return torch.where(removed, filled, image)

    def _values(
        self, image: torch.Tensor, removed: torch.Tensor, context: InputContext
    ) -> torch.Tensor:
        """Return the values that replace the removed ones, (C, *S) or broadcastable to it."""
        from camanim.road import BlurImputer, MeanImputer, MultigridImputer
        from camanim.road.imputation import noise_field

        kept = ~removed[None]
        if self.by == "zero":
            if context.black is None:
                raise EditError(
                    "The value of black is unknown with a custom preprocessing: use another way, such "
                    'as by="mean".'
                )
            return context.black.reshape(-1, *[1] * removed.ndim)
        if self.by == "blur":
            return BlurImputer(self.sigma)(image, kept)[0]
        if self.by == "mean":
            return MeanImputer()(image.float(), kept)[0]
        if bool(removed.all()):
            raise EditError(
                "The region covers the whole input of the network, and leaves no pixel to impute from: "
                'mark a smaller one, or use by="mean".'
            )
        noise = self.noise * noise_field(tuple(image.shape), self.seed).to(image.device)
        return MultigridImputer()(image, kept)[0] + noise

    def _source(self, cells: Bools, geometry: Geometry) -> tuple[npt.NDArray[np.intp], ...]:
        """Return the indices of the cells that replace the region, along each axis."""
        assert self.offset is not None
        if len(self.offset) != cells.ndim:
            expected = {2: "(dy, dx)", 3: "(dz, dy, dx)"}[cells.ndim]
            raise EditError(f"offset must be {expected} here, not {self.offset}.")
        steps = [round(d / s) for d, s in zip(self.offset, geometry.scale, strict=True)]
        if any(self.offset) and not any(steps):
            raise EditError(
                f"The offset {self.offset} is less than half a pixel of the network's input, which has "
                f"{' x '.join(f'{s:.3g}' for s in geometry.scale)} pixels of the image: use a larger "
                "offset."
            )
        source = [index + step for index, step in zip(np.nonzero(cells), steps, strict=True)]
        for axis, (index, length) in enumerate(zip(source, cells.shape, strict=True)):
            # One cell beyond the edge may be due to rounding.
            if index.min() < -1 or index.max() > length:
                raise EditError(
                    f"Pixels at the offset {self.offset} from the region are outside of the network's "
                    "input: use a smaller offset or region."
                )
            source[axis] = np.clip(index, 0, length - 1)
        return tuple(source)


@dataclass(frozen=True)
class InputContext:
    """What replacements need to know about the network's input.

    Attributes
    ----------
    geometry : Geometry
    slices : bool
        Whether the input is the slices of a volume for a 2-D network, (C, Z, h, w).
    black : (C,) tensor or None
        Values of black; None with a custom preprocessing.
    """

    geometry: Geometry
    slices: bool
    black: torch.Tensor | None


def replacement(by: Any, settings: Mapping[str, Any]) -> Replacement:
    """Return a checked `Replacement`.

    Raises
    ------
    EditError
        If a setting is unknown or wrong.
    """
    known = [f.name for f in fields(Replacement) if f.name != "by"]
    for name in settings:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}."
            raise EditError(f"Unknown setting {name!r}: {hint}")
    return Replacement(by, **settings)


@dataclass(frozen=True)
class Edit:
    """An edit: a region of the image, and how it was replaced.

    Attributes
    ----------
    replacement : Replacement
    box : tuple of int
        Bounding box of the region, (y0, x0, y1, x1) or (z0, y0, x0, z1, y1, x1), the ends excluded;
        empty for an empty region.
    pixels : int
        Number of pixels of the image in the region.
    share : float
        Fraction of the network's input that was replaced.
    sha256 : str
        Hash of the mask, bool in C order.
    """

    replacement: Replacement
    box: tuple[int, ...]
    pixels: int
    share: float
    sha256: str

    @classmethod
    def of(cls, replacement: Replacement, pixels: Bools, cells: Bools) -> Edit:
        """Return the record of an edit of these pixels and cells."""
        box: tuple[int, ...] = ()
        if pixels.any():
            axes = range(pixels.ndim)
            occupied = [
                np.flatnonzero(pixels.any(axis=tuple(a for a in axes if a != axis)))
                for axis in axes
            ]
            box = (*(int(i[0]) for i in occupied), *(int(i[-1]) + 1 for i in occupied))
        digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
        return cls(replacement, box, int(pixels.sum()), float(cells.mean()), digest)

    def __str__(self) -> str:
        details = self.replacement.describe()
        texts = [f"{k} {_short(v)}" for k, v in details.items() if k != "by"]
        corners = "no pixel" if not self.box else f"box {','.join(map(str, self.box))}"
        return f"{details['by']} ({', '.join([f'{self.share:.1%} of the input', corners, *texts])})"

    def describe(self) -> dict[str, Any]:
        """Return the edit as plain data for metadata."""
        return {
            **self.replacement.describe(),
            "box": list(self.box),
            "pixels": self.pixels,
            "share": self.share,
            "mask sha256": self.sha256,
        }


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(f"{v:g}" for v in value)
    return f"{value:.3g}"
