"""The layers of a pass through the network, and the interface of what processes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from camanim.layout import Arrangement
from camanim.targets import Target


@dataclass
class Layer:
    """One selected call of one module.

    Attributes
    ----------
    index : int
        Among all calls of all modules.
    name : str
    call : int
    module : torch.nn.Module
    path : str
        Of the tensor in the module's output; empty where it is the output.
    arrangement : Arrangement or None
        None until the end of the forward pass, where the shape alone does not tell.
    edge : GradientEdge or None
        The activation's place in autograd's graph, whatever happens to the tensor later.
    same_as : int or None
        Index of an earlier layer with the same activation, arrangement and gradient.
    """

    index: int
    name: str
    call: int
    module: nn.Module
    path: str
    arrangement: Arrangement | None
    edge: Any = None
    same_as: int | None = None


class Consumer(Protocol):
    """Processes the activations and gradients of a pass, layer by layer."""

    #: Whether it waits for gradients; else it gets the activation in the forward pass.
    needs_gradient: bool
    #: Whether the gradients need a graph.
    needs_graph: bool
    #: Whether it needs the input of the network's last linear layer.
    needs_head: bool

    def consume(
        self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None
    ) -> None:
        """Process (B, C, *s) of one layer; raise `NoMap` where the layer has no map."""

    def begin_target(self, target: Target, forward_output: ForwardOutput) -> None:
        """Prepare for the backward pass of a target."""


@dataclass(frozen=True)
class Head:
    """The input of the network's last linear layer.

    Attributes
    ----------
    features : torch.Tensor
        (B, F); (F,) of one image.
    gradient : torch.Tensor
        Of the target's score in the features; for a class, its row of weights.
    """

    features: torch.Tensor
    gradient: torch.Tensor

    def of(self, b: int) -> Head:
        """Return that of image `b`."""
        return Head(self.features[b], self.gradient[b])


@dataclass
class ForwardOutput:
    """The results of a forward pass, beside the layers.

    Attributes
    ----------
    output : object
        Of the network, detached from the graph.
    score : torch.Tensor
        (B,) of the current target.
    head : Head or None
    """

    output: Any
    score: torch.Tensor
    head: Head | None
