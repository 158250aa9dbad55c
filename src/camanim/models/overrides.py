"""What a user, or a card, says about a network in place of its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from camanim.errors import ModelError
from camanim.images import Preprocess
from camanim.models.base import Model, checked_outputs
from camanim.models.classes import Classes, class_names
from camanim.models.names import NATIVE


@dataclass(frozen=True)
class ModelOverrides:
    """Settings that replace those of a source; None leaves them.

    Attributes
    ----------
    size : int, sequence of int or "native"
        Of the network's input; ``"native"`` leaves images at their own size. A new size without a
        `resize` has none.
    resize, mean, std, channels, interpolation, dims
        See `camanim.Preprocess`; one number may stand for a sequence of one.
    classes, outputs, name
        See `camanim.Model`.
    """

    classes: Classes | None = None
    size: int | Sequence[int] | str | None = None
    resize: int | None = None
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    channels: int | None = None
    interpolation: str | None = None
    dims: int | None = None
    outputs: str | None = None
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
