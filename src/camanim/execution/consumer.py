"""What a pass through the network hands on, and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from camanim.layout import Arrangement
from camanim.targets import Target


@dataclass
class Layer:
    """One selected call of one module, as a `Consumer` sees it.

    Attributes
    ----------
    index : int
        Into the trace.
    name : str
    call : int
    module : torch.nn.Module
    path : str
        Where in the module's output the tensor is that is looked at; empty where it is the output.
    arrangement : Arrangement or None
        None until the whole network was seen, where the shape alone does not tell.
    edge : GradientEdge or None
        The activation's place in autograd's graph, whatever happens to the tensor later.
    """

    index: int
    name: str
    call: int
    module: nn.Module
    path: str
    arrangement: Arrangement | None
    edge: Any = None


class Consumer(Protocol):
    """Takes what a pass gives, layer by layer."""

    #: Whether it waits for gradients; else it gets the activation in the forward pass.
    needs_gradient: bool
    #: Whether the gradients keep a graph of their own.
    needs_graph: bool
    #: Whether it must know what the network's last linear layer got.
    needs_head: bool

    def take(self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None) -> None:
        """Take (B, C, *s) of one layer; raise `NoMap` where nothing can be made of it."""

    def start(self, target: Target, seen: ForwardOutput) -> None:
        """Prepare for the backward pass of a target."""


@dataclass(frozen=True)
class Head:
    """What the network's last linear layer got.

    Attributes
    ----------
    features : torch.Tensor
        (B, F); (F,) of one image.
    gradient : torch.Tensor
        The same of the target's score; for a class, its row of weights.
    """

    features: torch.Tensor
    gradient: torch.Tensor

    def of(self, b: int) -> Head:
        """Give that of image `b`."""
        return Head(self.features[b], self.gradient[b])


@dataclass
class ForwardOutput:
    """What a forward pass gave, beside the layers.

    Attributes
    ----------
    output : object
        What the network returned, detached from the graph.
    score : torch.Tensor
        (B,) of the target in hand.
    head : Head or None
    """

    output: Any
    score: torch.Tensor
    head: Head | None
