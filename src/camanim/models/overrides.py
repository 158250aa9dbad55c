"""Settings of a user or a card that replace those of a source."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any

from camanim.declarations import Check, Checked, Range
from camanim.errors import ModelError
from camanim.images import Preprocess
from camanim.images.preprocess import Interpolation
from camanim.models.base import Model, Outputs
from camanim.models.classes import Classes, class_names
from camanim.models.names import NATIVE

#: Largest side of a network's input, in pixels.
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
    # `math.isfinite` raises for integers beyond the range of a float.
    return number and abs(value) <= sys.float_info.max


def _are_numbers(value: Any) -> bool:
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return len(numbers) > 0 and all(map(_is_finite, numbers))


def _are_classes(value: Any) -> bool:
    return isinstance(value, Mapping | Sequence | Path)


SIZE = Check(_is_size, f'one, two or three sides from 1 to {LONGEST} pixels, or "{NATIVE}"')
NUMBERS = Check(_are_numbers, "a finite number, or one per channel")
CLASSES = Check(_are_classes, "a list of names, a mapping from indices to names, or a file")


@dataclass(frozen=True)
class ModelOverrides(Checked, error=ModelError):
    """Settings that replace those of a source; None keeps a setting.

    Attributes
    ----------
    classes : sequence of str, mapping or path, optional
        Names of the classes: in order, by index, or in a file (one a line, or ``.json``).
    size : int, sequence of int or "native", optional
        Size of the network's input, such as 224 or (224, 320); ``"native"`` keeps the size of the
        image. A new size also removes the source's `resize`.
    resize : int, optional
        Length of the shortest side before the centre crop.
    mean : float or sequence of float, optional
        Mean that is subtracted from intensities in [0, 1], as one number or one per channel.
    std : float or sequence of float, optional
        Standard deviation that the differences are divided by, as one number or one per channel.
    channels : int, optional
        Channels of the network's input.
    interpolation : {"bilinear", "bicubic", "nearest", "nearest-exact"}, optional
        Interpolation of resized images.
    dims : int, optional
        Number of spatial axes of the network's images, 2 or 3.
    outputs : {"auto", "softmax", "sigmoid", "values", "probabilities"}, optional
        Meaning of the scores: logits of mutually exclusive classes or of independent labels, plain
        numbers, or probabilities.
    name : str, optional
        Name for captions and records.
    domain : str, optional
        What the network was trained on, such as ``"ImageNet photographs"``.

    Raises
    ------
    ModelError
        If a value is of the wrong type or out of range.
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
    domain: str | None = None

    def over(self, others: ModelOverrides) -> ModelOverrides:
        """Return these settings, completed by `others` where they are None."""
        settings = {f.name: getattr(self, f.name) for f in fields(self)}
        if settings["size"] is not None and settings["resize"] is None:
            others = replace(others, resize=None)
        return replace(others, **{key: v for key, v in settings.items() if v is not None})

    def apply(self, model: Model) -> None:
        """Set the settings on a model.

        Raises
        ------
        ModelError
            If a setting is invalid, or needs a `Preprocess` and the model has a preprocess function.
        """
        model.overridden = model.overridden or self != ModelOverrides()
        if self.classes is not None:
            model.classes = class_names(self.classes)
        if self.outputs is not None:
            model.outputs = self.outputs
        model.name = self.name or model.name
        model.domain = self.domain or model.domain
        settings = {
            name: value
            for name in ("size", "resize", "mean", "std", "channels", "interpolation", "dims")
            if (value := getattr(self, name)) is not None
        }
        if not settings:
            return
        if not isinstance(model.preprocess, Preprocess):
            raise ModelError(
                f"{model.name} has a preprocess function, so {', '.join(settings)} cannot be set: "
                "change the function instead."
            )
        model.preprocess = _with_settings(model.preprocess, settings)
        model._inferred = model._inferred and not {"channels", "dims"} & settings.keys()


def _with_settings(preprocess: Preprocess, settings: dict[str, Any]) -> Preprocess:
    if "size" in settings:
        settings.setdefault("resize", None)
        settings["size"] = _lengths(settings["size"], settings.get("dims", preprocess.dims))
    for name in ("mean", "std"):
        if name in settings:
            values = settings[name]
            values = values if isinstance(values, Sequence) else (values,)
            settings[name] = tuple(float(value) for value in values)
    return replace(preprocess, **settings)


def _lengths(size: int | Sequence[int] | str, dims: int) -> tuple[int, ...] | None:
    if isinstance(size, str):
        # The only text that passes the check is "native".
        return None
    return tuple(int(n) for n in size) if isinstance(size, Sequence) else (int(size),) * dims
