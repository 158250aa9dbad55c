"""`Method`: a function with its metadata, and the reduction of its result to a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

from camanim.cam_methods.projection import first_component, weighted_sum
from camanim.declarations import Setting
from camanim.errors import MethodError

if TYPE_CHECKING:
    import torch

#: Result of a function: weights (C,), products (C, *s), a map (*s), or any of these by shape ("any"); or
#: a map of any size from a function that implements eigen smoothing itself ("any map").
Gives = Literal["weights", "products", "map", "any", "any map"]

#: Ingredients that the function of a method can take, by parameter name.
INGREDIENTS = {
    "activation": "A, (C, *space)",
    "gradient": "g, the gradient of the target's score with respect to A, (C, *space)",
    "curvature": "the product of A and the Hessian of the score with respect to A, (C, *space)",
    "image": "the network's input, (Cin, *space)",
    "module": "the layer",
    "head": "`.features` (F,), the input of the last linear layer, and `.gradient` (F,), the gradient "
    "of the score with respect to it; None if the network does not end in a linear layer",
    "generator": "a random number generator on the CPU, seeded for each layer",
    "score": "the target's score, a float",
    "net": "the network",
    "target": "the target, with `score(output)`",
    "predict": "`predict(count, make)`: scores of other images",
    "rerun": "`rerun(count, make)`: scores with the output of this layer replaced",
    "memory": "a dictionary shared by all layers, for the same image and target",
}

#: Ingredients of the one forward and backward pass for all layers.
ONE_PASS = frozenset({"gradient", "curvature", "head"})
#: Ingredients of methods that re-evaluate the network for each layer.
REEVALUATION = frozenset({"predict", "rerun", "memory"})
#: Ingredients that are available only after a forward pass.
AFTER_PASS = frozenset({"score", "net", "target"})


@dataclass(frozen=True, eq=False)
class Method:
    """Function from the ingredients of a layer to weights, products or a map, with its metadata.

    Attributes
    ----------
    name : str
        Name in the literature, such as ``GradCAM++``.
    function : callable
        Takes ingredients and options by keyword; `gives` is the kind of its result.
    paper : str
        Reference.
    summary : str
        What the map shows, in one sentence.
    caveat : str
        Limitation of the map, in one sentence.
    cost : str
        Number of passes through the network; by default that of the ingredients.
    aliases : tuple of str
        Alternative names.
    class_specific : bool
        Whether the map depends on the target.
    sign_free : bool
        Whether the sign of the map is arbitrary, as that of a principal component.
    gives : {"weights", "products", "map", "any", "any map"}
        Result of the function.
    needs : tuple of str
        Ingredients, always including ``activation``.
    options : mapping of str to Setting
    target : callable, optional
        ``target(target, output, **options)`` returns a target that replaces the requested one.
    averages : mapping of str to callable
        Ingredients that are means of ``f(activation, gradient)`` over noisy inputs. The option
        ``samples`` is their number, ``noise`` the standard deviation of the noise in units of the
        network's input.
    meta : {"", "layers", "windows"}
        Whether the method combines maps of another method (option ``base``): of all layers, or of
        windows of the image. See `camanim.cam_methods.meta`.
    guided : {"", "times", "alone"}
        Whether the maps are multiplied by the guided gradient of the input ("times"), or computed from
        guided gradients ("alone").
    source : str
        ``module:Class`` of a class to be imported by `find_method`.
    """

    name: str
    function: Callable[..., Any]
    paper: str
    summary: str
    caveat: str
    cost: str = ""
    aliases: tuple[str, ...] = ()
    class_specific: bool = True
    sign_free: bool = False
    gives: Gives = "any"
    needs: tuple[str, ...] = ("activation",)
    options: Mapping[str, Setting] = field(default_factory=dict)
    target: Callable[..., Any] | None = None
    averages: Mapping[str, Callable[..., torch.Tensor]] = field(default_factory=dict)
    meta: Literal["", "layers", "windows"] = ""
    guided: Literal["", "times", "alone"] = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not self.cost:
            object.__setattr__(self, "cost", self._usual_cost)

    @property
    def _usual_cost(self) -> str:
        if self.needs_reevaluation:
            return "1 forward for each layer, and the evaluations of the function"
        backward = " and 1 backward" if self.needs_gradient else ""
        return f"1 forward{backward} for all layers"

    @property
    def needs_gradient(self) -> bool:
        """Whether the method requires a backward pass."""
        return bool(ONE_PASS & set(self.needs) or self.averages or self.target is not None)

    @property
    def needs_reevaluation(self) -> bool:
        """Whether the method re-evaluates the network for each layer after the first pass."""
        needs = set(self.needs)
        return bool(needs & REEVALUATION or (needs & AFTER_PASS and not self.needs_gradient))

    @property
    def smoothable(self) -> bool:
        """Whether ``eigen_smooth`` applies; it does not if the function returns a map."""
        return self.gives != "map"

    def check_smoothable(self) -> None:
        """Raise `MethodError` if ``eigen_smooth`` does not apply."""
        if not self.smoothable:
            raise MethodError(self._not_smoothable)

    @property
    def _not_smoothable(self) -> str:
        return (
            f"Eigen smoothing does not apply to {self.name}, which returns a map without channels."
        )

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options with validated values, and defaults for those not given.

        Raises
        ------
        MethodError
            If an option does not exist, or a value is of the wrong type.
        """
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise MethodError(f"{self.name} has no option {name!r}; its options are: {known}.")
        return {
            name: option.checked(options[name], MethodError) if name in options else option.default
            for name, option in self.options.items()
        }

    def weigh(
        self,
        ingredients: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
        *,
        eigen_smooth: bool = False,
    ) -> torch.Tensor:
        """Return the raw map of one layer.

        Parameters
        ----------
        ingredients : mapping
            Values by name; the function is called with those in `needs`.
        options : mapping, optional
        eigen_smooth : bool
            Return the first principal component of the channels' contributions instead of their sum.

        Returns
        -------
        torch.Tensor
            Raw, signed map (*s).

        Raises
        ------
        NoMap
            If the method has no map for this layer.
        MethodError
            If an option is invalid, eigen smoothing does not apply, or the result of the function has
            another shape.
        """
        if self.meta or self.source:
            raise MethodError(f"{self.name} cannot be computed for a single layer.")
        if eigen_smooth:
            self.check_smoothable()
        settings = self.checked(options or {})
        arguments = {name: ingredients[name] for name in self.needs if name in self._parameters}
        if self.gives == "any map":
            result: torch.Tensor = self.function(**arguments, **settings, eigen_smooth=eigen_smooth)
            return result
        result = self.function(**arguments, **settings)
        return self._reduced(result, ingredients["activation"], eigen_smooth)

    @cached_property
    def _parameters(self) -> frozenset[str]:
        return frozenset(signature(self.function).parameters)

    def _reduced(self, result: Any, activation: torch.Tensor, eigen_smooth: bool) -> torch.Tensor:
        """Return the map (*s) from weights, products or a map."""
        # Imported here, so that methods can be listed without torch.
        import torch

        if not isinstance(result, torch.Tensor):
            result = torch.as_tensor(result)
        result = result.to(activation)
        if result.shape == activation.shape[:1]:
            if not eigen_smooth:
                return weighted_sum(result, activation)
            result = result.view(-1, *[1] * (activation.ndim - 1)) * activation
        if result.shape == activation.shape:
            summed: torch.Tensor = first_component(result) if eigen_smooth else result.sum(0)
            return summed
        if result.shape != activation.shape[1:]:
            raise MethodError(
                f"{self.name} returns {tuple(result.shape)} for an activation of "
                f"{tuple(activation.shape)}: return weights (C,), products (C, *s) or a map (*s)."
            )
        if eigen_smooth:
            raise MethodError(self._not_smoothable)
        raw: torch.Tensor = result
        return raw
