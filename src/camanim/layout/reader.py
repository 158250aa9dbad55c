"""Select the tensor of an output that has space, and its arrangement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from camanim.errors import LayerError
from camanim.layout import Arrangement, LayoutInference, Override, parse, stripes, tensors_of
from camanim.layout.position_tracing import trace_positions

if TYPE_CHECKING:
    from camanim.execution.forward import Forward


@dataclass(frozen=True)
class FeatureTensor:
    """The tensor of an output from which maps are computed.

    Attributes
    ----------
    tensor : torch.Tensor or None
        None if the output holds no floating-point tensor.
    path : str
        Path of the tensor in the output; empty if it is the output.
    arrangement : Arrangement or None
        None if the tensor has no space, or if its shape is ambiguous.
    ambiguous : bool
        Whether the arrangement is decided by `LayoutReader.trace`.
    """

    tensor: torch.Tensor | None
    path: str = ""
    arrangement: Arrangement | None = None
    ambiguous: bool = False

    @property
    def name(self) -> str:
        """Path and name of the arrangement; empty without one."""
        if self.arrangement is None:
            return ""
        name = self.arrangement.name
        return f"{self.path} {name}" if self.path else name


class LayoutReader:
    """Reader of the layouts of a network's outputs, call by call.

    Parameters
    ----------
    input_shape : (B, C, *S)
    overrides : mapping of str to (str or callable)
        Layouts by patterns of names (``blocks.*``, or ``norm:1`` for a second call); see
        `camanim.layout.parse`.
    show_1d : bool
        Whether outputs without space are arranged as stripes.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        overrides: Mapping[str, Override] | None = None,
        *,
        show_1d: bool = False,
    ) -> None:
        self._inference = LayoutInference(input_shape)
        self._overrides = dict(overrides or {})
        self._show_1d = show_1d

    def for_input(self, input_shape: tuple[int, ...]) -> LayoutReader:
        """Return a new reader with the same settings, for an input of another size."""
        return LayoutReader(input_shape, self._overrides, show_1d=self._show_1d)

    def read(self, module: nn.Module, name: str, call: int, output: Any) -> FeatureTensor:
        """Return the first tensor with an arrangement, else the first ambiguous one, else the first."""
        tensors = [("", output)] if isinstance(output, torch.Tensor) else tensors_of(output)
        tensors = [(path, t) for path, t in tensors if t.is_floating_point()]
        override = self._override(name, call) if self._overrides else None
        if len(tensors) == 1:
            return self._read(module, *tensors[0], override)
        features = [self._read(module, path, tensor, override) for path, tensor in tensors]
        for feature in features:
            if feature.arrangement is not None:
                return feature
        for feature in features:
            if feature.ambiguous:
                return feature
        return features[0] if features else FeatureTensor(None)

    def _read(
        self, module: nn.Module, path: str, tensor: torch.Tensor, override: Override | None
    ) -> FeatureTensor:
        shape = tuple(tensor.shape)
        if override is not None:
            return FeatureTensor(tensor, path, parse(override, shape, self._inference))
        inferred = self._inference.infer(module, shape)
        arrangement = inferred.arrangement
        if arrangement is None and not inferred.ambiguous and self._show_1d:
            arrangement = stripes(shape, self._inference.dims)
        return FeatureTensor(tensor, path, arrangement, inferred.ambiguous)

    def _override(self, name: str, call: int) -> Override | None:
        for pattern, override in self._overrides.items():
            if fnmatchcase(name, pattern) or fnmatchcase(f"{name}:{call}", pattern):
                return override
        return None

    def trace(
        self, forward: Forward, tensor: torch.Tensor, calls: Mapping[tuple[str, int], str]
    ) -> Mapping[tuple[str, int], Arrangement | None]:
        """Return the arrangements of ambiguous outputs, by one more forward pass.

        Parameters
        ----------
        forward : Forward
        tensor : torch.Tensor
            The network's input, (B, C, *S).
        calls : mapping from (name, call) to path
            Calls of modules, and the paths of the tensors in their outputs.

        Returns
        -------
        mapping from (name, call) to Arrangement or None
            See `camanim.layout.position_tracing.trace_positions`.
        """
        return trace_positions(forward.net, tensor, calls, run=forward)


def check_names(overrides: Mapping[str, Override], net: nn.Module) -> None:
    """Check that each override names a module of the network.

    Raises
    ------
    LayerError
        If a pattern matches no name.
    """
    names = [name for name, _ in net.named_modules()]
    for pattern in overrides:
        if not any(fnmatchcase(name, pattern.partition(":")[0]) for name in names):
            raise LayerError(
                f"layouts names the layer {pattern!r}, which the network does not have: "
                "Animation.table() lists the names of layers."
            )


def pick(output: Any, path: str) -> torch.Tensor:
    """Return the tensor at a path in an output."""
    return output if isinstance(output, torch.Tensor) else dict(tensors_of(output))[path]
