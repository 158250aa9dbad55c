"""Any subclass of grad-cam's ``BaseCAM``, installed or a user's own, as a `Method`.

Three ways, from what the class overrides and what an instance of it says:

- it weighs activations and gradients (``get_cam_weights``, ``get_cam_image``): it gets ours, in one
  pass;
- it asks for no gradients: it gets our activations layer by layer, and may run the network itself;
- it does more on its own (its own ``forward``, ``compute_cam_per_layer``, graph or input gradient): it
  runs the network with hooks of its own, for one layer at a time.

In all of them the network is left as it was.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from camanim.cam_methods.method import Method
from camanim.declarations import Setting, settings_of
from camanim.errors import CamError, MethodError, NoMap
from camanim.model_state import frozen, in_eval_mode, is_out_of_memory

#: What a class overrides when it does more than weigh one layer's activation.
OWN_WAY = ("forward", "__call__", "compute_cam_per_layer", "aggregate_multi_layers")
#: Parameters of the constructor that are no options.
GIVEN = ("model", "target_layers", "reshape_transform")


def is_grad_cam(found: type) -> bool:
    """Whether it is a subclass of grad-cam's ``BaseCAM``, which is loaded if so."""
    base = sys.modules.get("pytorch_grad_cam.base_cam")
    return base is not None and issubclass(found, base.BaseCAM)


def adapt(found: type) -> Method:
    """Make a method of a subclass of ``BaseCAM``.

    Parameters
    ----------
    found : type
        Its constructor takes a network and a list of layers; what else it takes, with a default, is an
        option.

    Raises
    ------
    MethodError
        When its constructor asks for more.
    """
    options = _options(found)
    sample = _sample(found)
    plain = not _overrides(found, OWN_WAY)
    by_us = plain and sample is not None and sample.detach and not sample.compute_input_gradient
    one_pass = bool(by_us and sample.uses_gradients)
    text = " ".join((inspect.getdoc(found) or "").partition("\n\n")[0].split())
    inherited = found.__doc__ is None
    needs: tuple[str, ...] = ("activation", "generator", "image", "module", "net", "target")
    if one_pass:
        cost, needs = "1 forward and 1 backward for all layers", (*needs, "gradient")
    elif by_us:
        cost = "1 forward for each layer, and what the class asks for"
    else:
        cost, needs = "1 forward and 1 backward for each layer", (*needs, "arrangement")
    return Method(
        name=found.__name__,
        function=_Adapted(found, frozenset(options), by_us=by_us, native=plain),
        paper=f"{found.__module__}.{found.__qualname__}",
        summary="A subclass of grad-cam's BaseCAM." if inherited or not text else text,
        caveat="It runs as it was written: what grad-cam gets wrong it gets wrong too.",
        cost=cost,
        gives="own",
        needs=needs,
        options=options,
    )


def _overrides(found: type, names: tuple[str, ...]) -> bool:
    base = sys.modules["pytorch_grad_cam.base_cam"].BaseCAM
    return any(getattr(found, name) is not getattr(base, name) for name in names)


def _options(found: type) -> dict[str, Setting]:
    parameters = list(inspect.signature(found).parameters.values())
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for i, parameter in enumerate(parameters):
        needed = parameter.default is parameter.empty and parameter.kind not in kinds
        if needed and i > 1 and parameter.name not in GIVEN:
            raise MethodError(
                f"{found.__name__} needs {parameter.name!r} beside a network and its layers: "
                "give that a default."
            )
    every = settings_of(found.__init__)  # type: ignore[misc]
    simple = (bool, int, float, str, type(None))
    return {
        name: option
        for name, option in every.items()
        if name not in GIVEN and isinstance(option.default, simple)
    }


def _sample(found: type) -> Any:
    """Make an instance around the smallest network, to see how it works; None where it refuses."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1))
    try:
        return found(net, [])
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, MethodError):
            raise
        # It may want to see the network in question: it shall, when it runs its own way.
        return None


class _Adapted:
    """Runs a class on one layer."""

    def __init__(self, found: type, options: frozenset[str], *, by_us: bool, native: bool) -> None:
        self.found, self.options, self.by_us, self.native = found, options, by_us, native

    def __call__(
        self,
        *,
        activation: torch.Tensor,
        generator: torch.Generator,
        image: torch.Tensor,
        module: nn.Module,
        net: nn.Module,
        target: Any,
        gradient: torch.Tensor | None = None,
        arrangement: Any = None,
        eigen_smooth: bool = False,
        **options: Any,
    ) -> torch.Tensor:
        run = self._on_ours if self.by_us else self._own_way
        try:
            with unchanged(net), seeded(generator), in_eval_mode(net):
                made = run(
                    net,
                    module,
                    image,
                    activation,
                    gradient,
                    arrangement,
                    target,
                    options,
                    eigen_smooth,
                )
        except (CamError, NoMap):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            what = str(error).strip().partition("\n")[0]
            name = type(error).__name__
            raise NoMap(f"{name} in {self.found.__name__}: {what}"[:120]) from error
        found = torch.from_numpy(np.ascontiguousarray(made, np.float32))
        if found.ndim != activation.ndim - 1:
            raise NoMap(f"{self.found.__name__} gives {tuple(found.shape)}, no map")
        return found

    def _on_ours(
        self,
        net: nn.Module,
        module: nn.Module,
        image: torch.Tensor,
        activation: torch.Tensor,
        gradient: torch.Tensor | None,
        arrangement: Any,
        target: Any,
        options: dict[str, Any],
        eigen_smooth: bool,
    ) -> Any:
        with torch.enable_grad(), frozen(net), self._made(net, [], options) as cam:
            return cam.get_cam_image(
                image[None],
                module,
                [as_their_target(target)],
                _array(activation),
                None if gradient is None else _array(gradient),
                eigen_smooth,
            )[0]

    def _own_way(
        self,
        net: nn.Module,
        module: nn.Module,
        image: torch.Tensor,
        activation: torch.Tensor,
        gradient: torch.Tensor | None,
        arrangement: Any,
        target: Any,
        options: dict[str, Any],
        eigen_smooth: bool,
    ) -> Any:
        with torch.enable_grad(), self._made(net, [module], options) as cam:
            if cam.detach:
                read = _copied if arrangement is None else _read_by(arrangement)
                cam.activations_and_grads.reshape_transform = cam.reshape_transform = read
            kept: list[Any] = []
            if self.native:
                cam.compute_cam_per_layer = _unscaled(cam, module, activation, kept)
                cam.aggregate_multi_layers = lambda maps: np.zeros((1, 1, 1))
            for parameter in net.parameters():
                # Gradients lead to the input alone; but a gradient's own gradient needs all paths.
                if parameter.is_floating_point():
                    parameter.requires_grad_(not cam.detach)
            # No leaf, for the network may begin by writing into its input.
            start = image[None].detach().clone().requires_grad_()
            scaled = cam(start.clone(), [as_their_target(target)], eigen_smooth=eigen_smooth)
            return kept[0] if kept else scaled[0]

    @contextmanager
    def _made(
        self, net: nn.Module, layers: list[nn.Module], options: dict[str, Any]
    ) -> Iterator[Any]:
        cam = self.found(net, layers, **{k: v for k, v in options.items() if k in self.options})
        try:
            yield cam
        finally:
            cam.activations_and_grads.release()


def _array(tensor: torch.Tensor) -> Any:
    # A copy: the class may write into it.
    return tensor[None].detach().cpu().numpy().copy()


def _copied(output: torch.Tensor) -> torch.Tensor:
    return output.clone()


def _read_by(arrangement: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    # A copy: what comes after the layer may write into it.
    return lambda output: arrangement.to_channels(output).clone()


def _unscaled(
    cam: Any, module: nn.Module, activation: torch.Tensor, kept: list[Any]
) -> Callable[..., list[Any]]:
    """Stand in for ``compute_cam_per_layer`` without its scaling, for the call that is wanted."""

    def per_layer(input_tensor: torch.Tensor, targets: Any, eigen_smooth: bool) -> list[Any]:
        seen = cam.activations_and_grads
        own = activation[None].cpu()
        alike = [
            a.shape == own.shape and bool((a.detach().cpu() == own).all()) for a in seen.activations
        ]
        call = alike.index(True) if True in alike else 0
        given = [seen.activations[call], seen.gradients[call] if seen.gradients else None]
        if cam.detach:
            given = [None if one is None else one.cpu().data.numpy() for one in given]
        made = cam.get_cam_image(input_tensor, module, targets, *given, eigen_smooth)[0]
        kept.append(made.detach().cpu().numpy() if isinstance(made, torch.Tensor) else made)
        return []

    return per_layer


def as_their_target(target: Any) -> Callable[[Any], torch.Tensor]:
    """Turn a target into one of grad-cam's: a function from one image's output to its score."""

    def score(output: Any) -> torch.Tensor:
        whole = output[None] if isinstance(output, torch.Tensor) else [output]
        scores: torch.Tensor = target.score(whole)
        return scores[0]

    return score


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Seed numpy's and torch's global random numbers, which grad-cam draws from, and put them back."""
    seed = generator.initial_seed() % 2**32
    before = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            np.random.seed(seed)  # noqa: NPY002
            torch.default_generator.manual_seed(seed)
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


@contextmanager
def unchanged(net: nn.Module) -> Iterator[None]:
    """Put back what a class may change about a network: layers, hooks, modes, gradients, flags."""
    with ExitStack() as stack:
        for parameter in net.parameters():
            stack.callback(_put_back_flags, parameter, parameter.requires_grad, parameter.grad)
            parameter.grad = None
        for module in list(net.modules()):
            stack.callback(
                _put_back, module, module.training, dict(module._modules), _hooks(module)
            )
        yield


def _hooks(module: nn.Module) -> dict[str, list[Any]]:
    return {k: list(v) for k, v in vars(module).items() if k.endswith("_hooks") and v is not None}


def _put_back_flags(parameter: nn.Parameter, requires: bool, gradient: torch.Tensor | None) -> None:
    parameter.requires_grad = requires
    parameter.grad = gradient


def _put_back(
    module: nn.Module, training: bool, children: dict[str, Any], hooks: dict[str, list[Any]]
) -> None:
    module.training = training
    if module._modules != children:
        module._modules.clear()
        module._modules.update(children)
    for name, keys in hooks.items():
        now = vars(module)[name]
        for key in [key for key in now if key not in keys]:
            del now[key]
