"""What a user, or a card, says about a network in place of its source."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal

from camanim.declarations import Check, Checked, Range
from camanim.errors import ModelError
from camanim.images import Preprocess
from camanim.models.base import Model, Outputs, checked_outputs
from camanim.models.classes import Classes, class_names
from camanim.models.names import NATIVE

Interpolation = Literal["bilinear", "bicubic", "nearest", "nearest-exact"]

#: The longest side of a network's input, in pixels.
LONGEST = 16384


def _is_size(value: Any) -> bool:
    lengths = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    sides = len(lengths) in (1, 2, 3) and all(
        isinstance(n, Integral) and not isinstance(n, bool) and 1 <= int(n) <= LONGEST
        for n in lengths
    )
    return value == NATIVE if isinstance(value, str) else sides


def _is_finite(value: Any) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)
    # An integer may be too large for a float; math.isfinite raises then.
    return number and abs(value) <= sys.float_info.max


def _are_numbers(value: Any) -> bool:
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return len(numbers) > 0 and all(map(_is_finite, numbers))


def _are_classes(value: Any) -> bool:
    return isinstance(value, Mapping | Sequence | Path)


SIZE = Check(_is_size, f'a side or two or three sides from 1 to {LONGEST} pixels, or "{NATIVE}"')
NUMBERS = Check(_are_numbers, "a finite number, or one per channel")
CLASSES = Check(_are_classes, "names in order, a mapping from numbers to names, or a file")


@dataclass(frozen=True)
class ModelOverrides(Checked, error=ModelError):
    """Settings that replace those of a source; None leaves them.

    Attributes
    ----------
    classes : sequence of str, mapping or path, optional
        Names of the classes: in order, by number, or in a file (one a line, or ``.json``).
    size : int, sequence of int or "native", optional
        Size of the network's input, such as 224 or (224, 320); ``"native"`` is the image's. A new size
        without a `resize` has none.
    resize : int, optional
        Length of the shortest side before the centre crop.
    mean : float or sequence of float, optional
        Mean that is subtracted from intensities in [0, 1], one number or one per channel.
    std : float or sequence of float, optional
        Standard deviation that intensities are divided by after that, one number or one per channel.
    channels : int, optional
        Channels of the network's input.
    interpolation : {"bilinear", "bicubic", "nearest", "nearest-exact"}, optional
        Interpolation of resized images.
    dims : int, optional
        Axes of the network's images, 2 or 3.
    outputs : {"auto", "softmax", "sigmoid", "values"}, optional
        What the network's scores are: of classes that exclude one another, of labels, or plain numbers.
    name : str, optional
        Name for captions and records.

    Raises
    ------
    ModelError
        When a value is of the wrong type or out of range.
    """

    classes: Annotated[Classes | None, CLASSES] = None
    size: Annotated[int | Sequence[int] | str | None, SIZE] = None
    resize: Annotated[int, Range(1, LONGEST)] | None = None
    mean: Annotated[float | Sequence[float] | None, NUMBERS] = None
    std: Annotated[float | Sequence[float] | None, NUMBERS] = None
    channels: Annotated[int, Range(1, 4096)] | None = None
    interpolation: Interpolation | None = None
    dims: Annotated[int, Range(2, 3)] | None = None
    outputs: Outputs | None = None
    name: str | None = None

    def over(self, others: ModelOverrides) -> ModelOverrides:
        """Return these, and the others where there are none."""
        ours = {f.name: getattr(self, f.name) for f in fields(self)}
        if ours["size"] is not None and ours["resize"] is None:
            others = replace(others, resize=None)
        return replace(others, **{key: value for key, value in ours.items() if value is not None})

    def apply(self, model: Model) -> None:
        """Change a model.

        Raises
        ------
        ModelError
            When a setting is not what it should be, or the model has a preprocess function of its own.
        """
        if self.classes is not None:
            model.classes = class_names(self.classes)
        if self.outputs is not None:
            model.outputs = checked_outputs(self.outputs)
        model.name = self.name or model.name
        settings = {
            name: value
            for name in ("size", "resize", "mean", "std", "channels", "interpolation", "dims")
            if (value := getattr(self, name)) is not None
        }
        if not settings:
            return
        if not isinstance(model.preprocess, Preprocess):
            raise ModelError(
                f"{model.name} has a preprocess function of its own: its "
                f"{', '.join(settings)} cannot be changed from outside."
            )
        model.preprocess = _changed(model.preprocess, settings)


def _changed(preprocess: Preprocess, settings: Mapping[str, Any]) -> Preprocess:
    settings = dict(settings)
    try:
        if "size" in settings:
            settings.setdefault("resize", None)
            settings["size"] = _size(settings["size"], settings.get("dims", preprocess.dims))
        for name in ("mean", "std"):
            if name in settings:
                values = settings[name]
                settings[name] = tuple(
                    float(v) for v in (values if isinstance(values, Sequence) else (values,))
                )
        return replace(preprocess, **settings)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"This preprocessing is not numbers: {error}.") from error


def _size(size: Any, dims: int) -> tuple[int, ...] | None:
    if size == NATIVE:
        return None
    if isinstance(size, str):
        raise ModelError(f'The size is numbers or "{NATIVE}", not {size!r}.')
    lengths = (size,) * dims if isinstance(size, int) else tuple(size)
    return tuple(int(n) for n in lengths)
