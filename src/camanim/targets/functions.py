"""Targets from arbitrary functions of the output, and the counterfactual of any target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from camanim.errors import CamError, TargetError
from camanim.precision import as_float64
from camanim.targets.base import Target, Unit
from camanim.targets.classes import as_target
from camanim.targets.outputs import (
    count_images,
    detections,
    no_scores_message,
    primary_tensor,
    summary,
    tensors,
)

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context


@dataclass(frozen=True)
class FunctionTarget:
    """Any function of the network's output.

    Attributes
    ----------
    function : callable
        Map the whole output to (B,), or to a scalar for a single image.
    name : str
        By default the name of the function.
    per_item : bool
        Call the function with each image's part of the output, as grad-cam does; it returns a scalar.
    value_function : callable or None
        Map the whole output to the reported value, (B,); by default the score.
    unit : {"score", "probability"}
        Unit of the reported value.
    """

    function: Callable[..., Any]
    name: str = ""
    per_item: bool = False
    value_function: Callable[..., Any] | None = None
    unit: Unit = "score"

    index = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TargetError(f"A target must be a function of the output, not {self.function!r}.")
        object.__setattr__(self, "name", self.name or _name(self.function))

    def score(self, output: Any) -> torch.Tensor:
        """Return the function's value for each image, (B,).

        Raises
        ------
        TargetError
            If the function fails, or its value is not (B,), not finite or has no gradient.
        """
        import torch

        if self.per_item:
            score = torch.stack([self._one(item) for item in _items(output)])
        else:
            score = self._checked(self._call(self.function, output), output)
        if not bool(score.isfinite().all()):
            raise TargetError(f"The target {self.name} is not finite.")
        if torch.is_grad_enabled() and not score.requires_grad and _has_gradient(output):
            raise TargetError(
                f"The target {self.name} has no gradient: compute it from the network's output with "
                "torch, without detach, no_grad or numpy."
            )
        return score

    def value(self, output: Any) -> torch.Tensor:
        """Return the reported value, (B,) float64."""
        import torch

        with torch.no_grad():
            if self.value_function is None:
                return as_float64(self.score(output).detach())
            return as_float64(
                self._checked(self._call(self.value_function, output), output).detach()
            )

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
                f"The target {self.name} failed with {type(error).__name__}: {first_line}"
            ) from error

    def _one(self, item: Any) -> torch.Tensor:
        result = self._call(self.function, item)
        if not _is_numbers(result) or result.numel() != 1:
            raise TargetError(
                f"The target {self.name} returns {summary(result)} for an image, not a scalar."
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
            f"The target {self.name} returns {summary(result)}, not one number per image, (B,): "
            "for a function of one image's output, pass FunctionTarget(function, per_item=True)."
        )

    def describe(self) -> dict[str, Any]:
        """Return the target as plain data for metadata."""
        function = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        module = getattr(self.function, "__module__", "")
        return {"kind": "function", "name": self.name, "function": f"{module}.{function}"}

    def bind(self, context: Context) -> FunctionTarget:
        """Return this target; it does not depend on the context."""
        return self


@dataclass(frozen=True)
class Counterfactual:
    """Evidence against a target: the negative score, with the same value (Selvaraju et al. 2017).

    Attributes
    ----------
    target : Target
        Any request before the target is resolved; see `camanim.targets.resolve`.
    """

    target: Any

    @property
    def name(self) -> str:
        """Name of the target, marked as its counterfactual."""
        return f"{self._target.name} (counterfactual)"

    @property
    def index(self) -> int | None:
        """Class index of the target."""
        return self._target.index

    @property
    def unit(self) -> Unit:
        """Unit of the target's value."""
        return self._target.unit

    @property
    def _target(self) -> Target:
        return as_target(self.target)

    def score(self, output: Any) -> torch.Tensor:
        """Return the negative score of the target, (B,)."""
        return -self._target.score(output)

    def value(self, output: Any) -> torch.Tensor:
        """Return the target's value, (B,) float64."""
        return self._target.value(output)

    def describe(self) -> dict[str, Any]:
        """Return the target as plain data for metadata."""
        return {"kind": "counterfactual", "name": self.name, "of": self._target.describe()}

    def bind(self, context: Context) -> Counterfactual:
        """Return the counterfactual of the resolved target."""
        return replace(self, target=context.resolve(self.target))


def _name(function: Any) -> str:
    function = getattr(function, "func", function)
    for name in (getattr(function, "name", None), getattr(function, "__name__", None)):
        if isinstance(name, str) and name and name != "<lambda>":
            return name
    return "function" if hasattr(function, "__name__") else type(function).__name__


def _items(output: Any) -> Any:
    """Return each image's part of the output, as grad-cam passes it to its targets."""
    items = detections(output)
    if items is None:
        tensor = primary_tensor(output)
        if tensor is None:
            raise TargetError(no_scores_message(output))
        return tensor
    return output if isinstance(output, list | tuple) else [output]


def _is_numbers(result: Any) -> bool:
    import torch

    return isinstance(result, torch.Tensor) and result.is_floating_point()


def _has_gradient(output: Any) -> bool:
    """Return whether any tensor of the output requires a gradient."""
    return any(tensor.requires_grad for tensor in tensors(output))
