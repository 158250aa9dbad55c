"""The type `Method`: a function with its metadata, and the step from its result to a map."""

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

#: What a function returns: weights (C,), products (C, *s), a map (*s); "any" of them, told apart by the
#: shape; or a map of any size from a function that has its own smoothing ("own").
Gives = Literal["weights", "products", "map", "any", "own"]

#: What a method's function can take, by the names of its parameters.
INGREDIENTS = {
    "activation": "A, (C, *space)",
    "gradient": "g, the gradient of the target's score in A, (C, *space)",
    "curvature": "the Hessian of the score in A, times A, (C, *space)",
    "image": "the network's input, (Cin, *space)",
    "module": "the layer",
    "head": "`.features` (F,), the input of the last linear layer, and `.gradient` (F,) of the score in "
    "them; None where the network does not end in such a layer",
    "generator": "random numbers on the CPU, seeded for each layer",
    "score": "the target's score, a float",
    "net": "the network",
    "target": "the target, with `score(output)`",
    "predict": "`predict(count, make)`: scores of other images",
    "rerun": "`rerun(count, make)`: scores with this layer's output replaced",
    "memory": "a dict that is kept from layer to layer, for the same image and target",
}

#: Ingredients of the one forward and backward pass for all layers.
ONE_PASS = frozenset({"gradient", "curvature", "head"})
#: Ingredients of methods that evaluate the network again for each layer.
REEVALUATION = frozenset({"predict", "rerun", "memory"})
#: Ingredients that are known only after a forward pass.
AFTER_PASS = frozenset({"score", "net", "target"})


@dataclass(frozen=True, eq=False)
class Method:
    """A method: a function from a layer's ingredients to weights, products or a map.

    Attributes
    ----------
    name : str
        As in the literature, such as ``GradCAM++``.
    function : callable
        Takes ingredients and options by keyword, and returns what `gives` says.
    paper : str
        Where it was published.
    summary : str
        One sentence: what its map shows.
    caveat : str
        One sentence: what its map cannot show.
    cost : str
        In passes through the network; where it is not given, that of the ingredients.
    aliases : tuple of str
        Further names.
    class_specific : bool
        Whether another target gives another map.
    gives : {"weights", "products", "map", "any", "own"}
    needs : tuple of str
        The ingredients; ``activation`` is always one.
    options : mapping of str to Setting
    target : callable, optional
        ``target(target, output, **options)`` returns the target that is explained instead.
    averages : mapping of str to callable
        Ingredients that are means of ``f(activation, gradient)`` over noisy inputs. The option
        ``samples`` is their number, ``noise`` the standard deviation of the noise in units of the
        network's input.
    meta : {"", "layers", "windows"}
        Whether it combines maps of another method (option ``base``): of all layers, or of windows of
        the image. See `camanim.cam_methods.meta`.
    guided : {"", "times", "alone"}
        Whether its maps are multiplied by the guided gradient in the input, or its gradients are
        guided ones.
    source : str
        ``module:Class`` of a class that is not imported yet; `find_method` imports it.
    """

    name: str
    function: Callable[..., Any]
    paper: str
    summary: str
    caveat: str
    cost: str = ""
    aliases: tuple[str, ...] = ()
    class_specific: bool = True
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
        """Whether a backward pass is needed."""
        return bool(ONE_PASS & set(self.needs) or self.averages or self.target is not None)

    @property
    def needs_reevaluation(self) -> bool:
        """Whether the layers are processed one by one after the first pass, with the network."""
        needs = set(self.needs)
        return bool(needs & REEVALUATION or (needs & AFTER_PASS and not self.needs_gradient))

    @property
    def smoothable(self) -> bool:
        """Whether ``eigen_smooth`` applies: not where the function returns a finished map."""
        return self.gives != "map"

    def check_smoothable(self) -> None:
        """Refuse ``eigen_smooth`` for a finished map.

        Raises
        ------
        MethodError
        """
        if not self.smoothable:
            raise MethodError(self._not_smoothable)

    @property
    def _not_smoothable(self) -> str:
        return f"{self.name} gives a map without channels: use it without eigen smoothing."

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options: the given ones, checked, and the defaults of the others.

        Raises
        ------
        MethodError
            When there is no such option, or a value is of the wrong type.
        """
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options)
                has = f"its options are {known}" if known else "it has no options"
                raise MethodError(f"{self.name} has no option {name!r}: {has}.")
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
            By name; the function gets those that it needs.
        options : mapping, optional
        eigen_smooth : bool
            Take the first principal component of the channels' contributions instead of their sum.

        Returns
        -------
        torch.Tensor
            The raw, signed map (*s).

        Raises
        ------
        NoMap
            When the method has no map for this layer.
        MethodError
            When an option is unknown, nothing can be smoothed, or the function's result has another
            shape.
        """
        if self.meta or self.source:
            raise MethodError(f"{self.name} cannot be made from a single layer's activation.")
        if eigen_smooth:
            self.check_smoothable()
        settings = self.checked(options or {})
        taken = {name: ingredients[name] for name in self.needs if name in self._parameters}
        if self.gives == "own":
            result: torch.Tensor = self.function(**taken, **settings, eigen_smooth=eigen_smooth)
            return result
        result = self.function(**taken, **settings)
        return self._summed(result, ingredients["activation"], eigen_smooth)

    @cached_property
    def _parameters(self) -> frozenset[str]:
        return frozenset(signature(self.function).parameters)

    def _summed(self, result: Any, activation: torch.Tensor, eigen_smooth: bool) -> torch.Tensor:
        # In a function: the methods are listed without torch.
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
        finished: torch.Tensor = result
        return finished
