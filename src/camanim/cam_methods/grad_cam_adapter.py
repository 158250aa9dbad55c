"""Adapter from subclasses of grad-cam's ``BaseCAM`` to methods.

A class that overrides ``get_cam_weights`` or ``get_cam_image`` is called with the activations and
gradients of the engine: for all layers after one pass if it uses gradients, else layer by layer. Classes
that run a forward or backward pass themselves are not supported. The network is restored afterwards.
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
from camanim.errors import CamError, MethodError, NoMap, raise_interrupt_behind
from camanim.model_state import frozen, in_eval_mode, is_out_of_memory
from camanim.opencv import import_with_opencv
from camanim.shared_flags import SEEDING

#: Methods that a class overrides if it does more than combine the activation and gradient of a layer.
_PASSES = ("forward", "__call__", "compute_cam_per_layer", "aggregate_multi_layers")
#: Parameters of the constructor that are not options.
_FIXED = ("model", "target_layers", "reshape_transform")


def import_class(source: str) -> type:
    """Return the class with a name such as ``package.module:Class``.

    Raises
    ------
    MethodError
        If the name does not have this form, or the import fails.
    """
    module, _, name = source.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise MethodError(f"A class is specified as package.module:Class, not {source!r}.")
    try:
        imported: type = getattr(import_with_opencv(module), name)
    except (ImportError, AttributeError) as error:
        raise MethodError(f"{source!r} cannot be imported: {error}.") from error
    return imported


def is_grad_cam(cls: type) -> bool:
    """Return whether a class is a subclass of grad-cam's ``BaseCAM``."""
    # Not imported here: if the class is a subclass, grad-cam is loaded.
    base = sys.modules.get("pytorch_grad_cam.base_cam")
    return base is not None and issubclass(cls, base.BaseCAM)


def adapt(cls: type) -> Method:
    """Return a method that runs a subclass of ``BaseCAM``.

    Parameters
    ----------
    cls : type
        The constructor takes a network and a list of layers. All other parameters must have defaults;
        those with simple defaults become options.

    Raises
    ------
    MethodError
        If the constructor has other required parameters, or the class runs a forward or backward pass.
    """
    options = _options(cls)
    sample = _sample(cls)
    if _overrides(cls, _PASSES) or (sample is not None and _needs_passes(sample)):
        raise MethodError(_not_supported(cls))
    # BaseCAM's default if the class cannot be constructed here.
    uses_gradients = sample is None or sample.uses_gradients
    text = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())
    inherited = cls.__doc__ is None
    needs: tuple[str, ...] = ("activation", "generator", "image", "module", "net", "target")
    return Method(
        name=cls.__name__,
        function=_Adapted(cls, frozenset(options)),
        paper=f"{cls.__module__}.{cls.__qualname__}",
        summary="A subclass of grad-cam's BaseCAM." if inherited or not text else text,
        caveat="The code of the class is run unchanged, including any errors.",
        cost="1 forward and 1 backward for all layers"
        if uses_gradients
        else "1 forward for each layer, and the passes of the class",
        gives="any map",
        needs=(*needs, "gradient") if uses_gradients else needs,
        options=options,
    )


def _overrides(cls: type, names: tuple[str, ...]) -> bool:
    base = sys.modules["pytorch_grad_cam.base_cam"].BaseCAM
    return any(getattr(cls, name) is not getattr(base, name) for name in names)


def _needs_passes(cam: Any) -> bool:
    """Return whether an instance requires the autograd graph or the gradient of the input."""
    return not cam.detach or cam.compute_input_gradient


def _not_supported(cls: type) -> str:
    return (
        f"{cls.__name__} runs a forward or backward pass: override only get_cam_weights or "
        "get_cam_image, or write a function (docs/my-own-cam.md)."
    )


def _options(cls: type) -> dict[str, Setting]:
    parameters = list(inspect.signature(cls).parameters.values())
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for i, parameter in enumerate(parameters):
        required = parameter.default is parameter.empty and parameter.kind not in kinds
        if required and i > 1 and parameter.name not in _FIXED:
            raise MethodError(
                f"The parameter {parameter.name!r} of {cls.__name__} must have a default value."
            )
    declared = settings_of(cls.__init__)  # type: ignore[misc]
    simple = (bool, int, float, str, type(None))
    return {
        name: option
        for name, option in declared.items()
        if name not in _FIXED and isinstance(option.default, simple)
    }


def _sample(cls: type) -> Any:
    """Return an instance for a network of a single convolution; None if the constructor fails."""
    try:
        return cls(nn.Sequential(nn.Conv2d(1, 1, 1)), [])
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, MethodError):
            raise
        # The constructor may access a specific part of the user's network.
        return None


class _Adapted:
    """Callable that runs a class on one layer."""

    def __init__(self, cls: type, options: frozenset[str]) -> None:
        self._class, self._options = cls, options

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
        eigen_smooth: bool = False,
        **options: Any,
    ) -> torch.Tensor:
        name = self._class.__name__
        arguments = {key: value for key, value in options.items() if key in self._options}
        try:
            with (
                unchanged(net), seeded(generator), in_eval_mode(net), torch.enable_grad(), frozen(net),
                self._instance(net, arguments) as cam,
            ):  # fmt: skip
                if _needs_passes(cam):
                    raise MethodError(_not_supported(self._class))
                result = cam.get_cam_image(
                    image[None],
                    module,
                    [as_grad_cam_target(target)],
                    _array(activation),
                    None if gradient is None else _array(gradient),
                    eigen_smooth,
                )[0]
        except (CamError, NoMap):
            raise
        except Exception as error:
            raise_interrupt_behind(error)
            if is_out_of_memory(error):
                raise
            first_line = str(error).strip().partition("\n")[0]
            reason = f"{type(error).__name__} in {name}: {first_line}"
            raise NoMap(reason[:120]) from error
        raw = torch.from_numpy(np.ascontiguousarray(result, np.float32))
        if raw.ndim != activation.ndim - 1:
            raise NoMap(f"{name} returns {tuple(raw.shape)}, not a map")
        return raw

    @contextmanager
    def _instance(self, net: nn.Module, options: dict[str, Any]) -> Iterator[Any]:
        # Without layers, so that grad-cam registers no hooks.
        cam = self._class(net, [], **options)
        try:
            yield cam
        finally:
            cam.activations_and_grads.release()


def _array(tensor: torch.Tensor) -> Any:
    # A copy, because the class may modify it in place.
    return tensor[None].detach().cpu().numpy().copy()


def as_grad_cam_target(target: Any) -> Callable[[Any], torch.Tensor]:
    """Return a target in grad-cam's form: a function from the output of one image to its score."""

    def score(output: Any) -> torch.Tensor:
        batch = output[None] if isinstance(output, torch.Tensor) else [output]
        scores: torch.Tensor = target.score(batch)
        return scores[0]

    return score


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generators of numpy and torch, which grad-cam uses, and restore their states.

    One thread at a time: the generators are those of the process.
    """
    seed = generator.initial_seed() % 2**32
    with SEEDING, torch.random.fork_rng(devices=[]):
        before = np.random.get_state()  # noqa: NPY002
        try:
            np.random.seed(seed)  # noqa: NPY002
            torch.default_generator.manual_seed(seed)
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002


@contextmanager
def unchanged(net: nn.Module) -> Iterator[None]:
    """Restore layers, hooks, modes, gradients and flags of a network that a class may change."""
    with ExitStack() as stack:
        for parameter in net.parameters():
            stack.callback(_restore_flags, parameter, parameter.requires_grad, parameter.grad)
            parameter.grad = None
        for module in list(net.modules()):
            stack.callback(_restore, module, module.training, dict(module._modules), _hooks(module))
        yield


def _hooks(module: nn.Module) -> dict[str, list[Any]]:
    return {k: list(v) for k, v in vars(module).items() if k.endswith("_hooks") and v is not None}


def _restore_flags(parameter: nn.Parameter, requires: bool, gradient: torch.Tensor | None) -> None:
    parameter.requires_grad = requires
    parameter.grad = gradient


def _restore(
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
