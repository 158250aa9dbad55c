"""Targets made of other things: any function of the output, and the negative of any target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from camanim.errors import CamError, TargetError
from camanim.precision import as_float64
from camanim.targets.base import Target, Unit
from camanim.targets.classes import as_target
from camanim.targets.outputs import count_images, detections, no_scores, pick, shown, tensors

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context


@dataclass(frozen=True)
class FunctionTarget:
    """Any function of the network's output.

    Attributes
    ----------
    function : callable
        From the whole output to (B,), or to a single number where there is one image.
    name : str
        By default the function's own.
    per_item : bool
        Call it with each image's part of the output, as grad-cam does, for a single number each.
    worth : callable or None
        From the whole output to what is shown; by default the score.
    unit : {"score", "probability"}
        What is shown.
    """

    function: Callable[..., Any]
    name: str = ""
    per_item: bool = False
    worth: Callable[..., Any] | None = None
    unit: Unit = "score"

    index = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TargetError(f"A target is a function of the output, not {self.function!r}.")
        object.__setattr__(self, "name", self.name or _name(self.function))

    def score(self, output: Any) -> torch.Tensor:
        """Return what the function gives, (B,).

        Raises
        ------
        TargetError
            When it fails, gives something else, or something that the output does not lead to.
        """
        import torch

        if self.per_item:
            score = torch.stack([self._one(item) for item in _items(output)])
        else:
            score = self._checked(self._call(self.function, output), output)
        if not bool(score.isfinite().all()):
            raise TargetError(f"The target {self.name} is not finite.")
        if torch.is_grad_enabled() and not score.requires_grad and _leads_on(output):
            raise TargetError(
                f"The target {self.name} gives a number without a gradient: compute it from the "
                "network's output with torch, without detach, no_grad or numpy."
            )
        return score

    def value(self, output: Any) -> torch.Tensor:
        """Return what is shown, (B,) float64."""
        import torch

        with torch.no_grad():
            if self.worth is None:
                return as_float64(self.score(output).detach())
            return as_float64(self._checked(self._call(self.worth, output), output).detach())

    def _call(self, function: Callable[..., Any], output: Any) -> Any:
        from camanim.model_state import is_out_of_memory

        try:
            return function(output)
        except CamError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            first_line = str(error).strip().partition("\n")[0]
            raise TargetError(
                f"The target {self.name} fails on the network's output with "
                f"{type(error).__name__}: {first_line}"
            ) from error

    def _one(self, item: Any) -> torch.Tensor:
        result = self._call(self.function, item)
        if not _is_numbers(result) or result.numel() != 1:
            raise TargetError(
                f"The target {self.name} gives {shown(result)} for an image, not a number."
            )
        number: torch.Tensor = result.reshape(())
        return number

    def _checked(self, result: Any, output: Any) -> torch.Tensor:
        images = count_images(output)
        if _is_numbers(result):
            row: torch.Tensor = result
            if row.ndim == 0 and images in (1, None):
                return row[None]
            if row.ndim == 1 and images in (len(row), None):
                return row
        raise TargetError(
            f"The target {self.name} gives {shown(result)}, not one number per image, (B,): "
            "for a function of one image's output, pass FunctionTarget(function, per_item=True)."
        )

    def describe(self) -> dict[str, Any]:
        """Return plain data for records."""
        function = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        module = getattr(self.function, "__module__", "")
        return {"kind": "function", "name": self.name, "function": f"{module}.{function}"}

    def bound(self, context: Context) -> FunctionTarget:
        """Return this target, which depends on nothing."""
        return self


@dataclass(frozen=True)
class Counterfactual:
    """What speaks against a target: minus its score, at the same value (Selvaraju et al. 2017).

    Attributes
    ----------
    target : Target
        Whatever can be resolved to one does too, until it is.
    """

    target: Any

    @property
    def name(self) -> str:
        """The target's name, with a word about it."""
        return f"{self._target.name} (counterfactual)"

    @property
    def index(self) -> int | None:
        """The target's class."""
        return self._target.index

    @property
    def unit(self) -> Unit:
        """The target's unit."""
        return self._target.unit

    @property
    def _target(self) -> Target:
        return as_target(self.target)

    def score(self, output: Any) -> torch.Tensor:
        """Return minus the target's score, (B,)."""
        return -self._target.score(output)

    def value(self, output: Any) -> torch.Tensor:
        """Return the target's value, (B,) float64."""
        return self._target.value(output)

    def describe(self) -> dict[str, Any]:
        """Return plain data for records."""
        return {"kind": "counterfactual", "name": self.name, "of": self._target.describe()}

    def bound(self, context: Context) -> Counterfactual:
        """Return this target with the target resolved."""
        return replace(self, target=context.resolve(self.target))


def _name(function: Any) -> str:
    function = getattr(function, "func", function)
    for name in (getattr(function, "name", None), getattr(function, "__name__", None)):
        if isinstance(name, str) and name and name != "<lambda>":
            return name
    return "function" if hasattr(function, "__name__") else type(function).__name__


def _items(output: Any) -> Any:
    """What belongs to each image, as grad-cam hands it to its targets."""
    items = detections(output)
    if items is None:
        tensor = pick(output)
        if tensor is None:
            raise TargetError(no_scores(output))
        return tensor
    return output if isinstance(output, list | tuple) else [output]


def _is_numbers(result: Any) -> bool:
    import torch

    return isinstance(result, torch.Tensor) and result.is_floating_point()


def _leads_on(output: Any) -> bool:
    """Whether the output has a gradient that the target could have handed on."""
    return any(tensor.requires_grad for tensor in tensors(output))
