"""What a method is, and how what its function returns becomes a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

from camanim.declarations import Setting
from camanim.errors import MethodError

if TYPE_CHECKING:
    import torch

#: What a function returns: weights (C,), products (C, *s), a map (*s); "any" of them, found by looking;
#: or a map of any size by a function that smooths by itself ("own").
Gives = Literal["weights", "products", "map", "any", "own"]

#: What a method's function can ask for, by the names of its parameters.
INGREDIENTS = (
    "activation", "gradient", "curvature", "generator", "image", "predict", "rerun", "score",
    "module", "head", "memory", "net", "target", "arrangement",
)  # fmt: skip

#: Those there are only where the network is asked again, and those known only after a pass.
REEVALUATION = frozenset({"predict", "rerun", "memory", "arrangement"})
AFTER_PASS = frozenset({"score", "net", "target"})


@dataclass(frozen=True, eq=False)
class Method:
    """A method and what is known about it.

    Attributes
    ----------
    name : str
        As the field writes it, such as ``GradCAM++``.
    function : callable
        Takes what it needs and its options by keyword, and returns what `gives` says.
    paper : str
        Where it was published.
    summary : str
        One sentence: what its map shows.
    caveat : str
        One sentence: what its map cannot say.
    cost : str
        In passes through the network.
    aliases : tuple of str
        Further names; spelling is all one in any case.
    class_specific : bool
        Whether another target gives another map.
    gives : {"weights", "products", "map", "any", "own"}
    needs : tuple of str
        The ingredients; ``activation`` is always one.
    options : mapping of str to Option
    target : callable, optional
        ``target(target, output, **options)`` gives what is explained in place of the target.
    averages : mapping of str to callable
        By ingredient: its ``f(activation, gradient)`` is averaged over noisy inputs, as many as the
        option ``samples`` says, with noise of the standard deviation ``noise``, in units of the
        network's input.
    meta : {"", "layers", "windows"}
        Whether it is made of the maps that another method (option ``base``) makes: of all layers, or of
        windows of the image. See `camanim.cam_methods.meta`.
    guided : {"", "times", "alone"}
        Whether its maps are multiplied with the guided gradient in the input, or its own gradients are
        guided ones.
    source : str
        ``module:Class`` of a method that is not loaded yet; `find_method` loads it.
    """

    name: str
    function: Callable[..., Any]
    paper: str
    summary: str
    caveat: str
    cost: str
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

    @property
    def needs_gradient(self) -> bool:
        """Whether a backward pass is needed."""
        return bool(
            {"gradient", "curvature", "head"} & set(self.needs)
            or self.averages
            or self.target is not None
        )

    @property
    def needs_reevaluation(self) -> bool:
        """Whether each layer has its own turn, with the network at hand, after the first pass."""
        needs = set(self.needs)
        return bool(needs & REEVALUATION or (needs & AFTER_PASS and not self.needs_gradient))

    @property
    def smoothable(self) -> bool:
        """Whether ``eigen_smooth`` has a meaning: not where the function returns a finished map."""
        return self.gives != "map"

    def check_smoothable(self) -> None:
        """Refuse ``eigen_smooth`` where there is nothing to smooth.

        Raises
        ------
        MethodError
        """
        if not self.smoothable:
            raise MethodError(self._finished)

    @property
    def _finished(self) -> str:
        return f"{self.name} gives a map that has no channels left: use it without eigen smoothing."

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Complete the options that were asked for with the defaults of all others.

        Raises
        ------
        MethodError
            When there is no such option, or a value is of the wrong type.
        """
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options)
                has = f"there are {known}" if known else "it has none"
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
        """Make the raw map of one layer.

        Parameters
        ----------
        ingredients : mapping
            By name; of these the function gets what it needs.
        options : mapping, optional
        eigen_smooth : bool
            Take the first principal component of what the channels contribute, instead of their sum.

        Returns
        -------
        torch.Tensor
            The raw, signed map (*s).

        Raises
        ------
        NoMap
            When the method can make nothing of this layer.
        MethodError
            When an option is unknown, nothing can be smoothed, or the function returns something else.
        """
        if self.meta or self.source:
            raise MethodError(f"{self.name} cannot be made from a single layer's activation.")
        if eigen_smooth:
            self.check_smoothable()
        settings = self.checked(options or {})
        own = {name: ingredients[name] for name in self.needs if name in self._parameters}
        activation = ingredients["activation"]
        if self.gives == "own":
            result: torch.Tensor = self.function(**own, **settings, eigen_smooth=eigen_smooth)
            return result
        return self._summed(self.function(**own, **settings), activation, eigen_smooth)

    @property
    def _parameters(self) -> frozenset[str]:
        return frozenset(signature(self.function).parameters)

    def _summed(self, result: Any, activation: torch.Tensor, eigen_smooth: bool) -> torch.Tensor:
        import torch

        from camanim.cam_methods.projection import first_component, weighted_sum

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
            raise MethodError(self._finished)
        finished: torch.Tensor = result
        return finished
