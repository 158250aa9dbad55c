"""One forward pass for all layers, and one backward pass for each target.

A forward hook records every call of every module. Where a layer is selected, its activation, and its
gradient when that arrives in the backward pass, go to a `Consumer` as channels over space, and are
released. Only the gradient in the *input* is computed, so parameters get none, and frozen networks work.

In-place operations (``ReLU(inplace=True)``, ``out += identity``) overwrite activations that are still
needed. Their gradients stay correct: a tensor hook set before the operation gets the gradient of the
value before it. The activation is cloned just before it is overwritten, and only then
(`SaveOverwritten`).
"""

from __future__ import annotations

import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from camanim.errors import Cancelled
from camanim.execution.consumer import Consumer
from camanim.execution.double_backward import twice_differentiable
from camanim.execution.outputs import check_count, detached
from camanim.execution.recorder import Recorder
from camanim.execution.request import AttributionRequest
from camanim.layer_info import LayerInfo
from camanim.model_state import with_gradients
from camanim.targets import Target


@dataclass
class Captured:
    """The results of one pass through the network.

    Attributes
    ----------
    layer_calls : list of list of LayerInfo
        Per target, every call of every module in order of execution, with its status.
    targets : list of Target
    output : object
        Of the network, detached.
    input_gradients : list of torch.Tensor
        (B, C, *S) per target that had its backward pass; empty for methods without gradients.
    cancelled : bool
        Whether the caller stopped it, be it at the last step.
    forward_seconds : float
        Time of the forward pass, with the hooks.
    """

    layer_calls: list[list[LayerInfo]]
    targets: list[Target]
    output: Any
    input_gradients: list[torch.Tensor]
    cancelled: bool = False
    forward_seconds: float = 0.0

    def check_complete(self) -> None:
        """Raise where the caller has stopped the pass: results of all layers need all of them.

        Raises
        ------
        Cancelled
        """
        if self.cancelled:
            raise Cancelled("The run was cancelled.")


def capture(request: AttributionRequest, consumer: Consumer) -> Captured:
    """Run the network once forward, and once backward for each target.

    Raises
    ------
    Cancelled
        When no layer has a map yet.
    ModelError, TargetError, OutOfMemory
        When the network fails, has no such target, or does not fit into memory.
    """
    net, tensor = request.forward.net, request.tensor
    recorder = Recorder(request, consumer)
    targets: list[Target] = []
    output: Any = None
    seconds = 0.0
    with (
        with_gradients(net, tuple(tensor.shape)),
        twice_differentiable() if consumer.needs_graph else nullcontext(),
        closing(recorder),
    ):
        try:
            with recorder.hooked(net):
                start = time.perf_counter()
                output = request.forward(recorder.start_graph(tensor))
                seconds = time.perf_counter() - start
            check_count(output, len(tensor))
            targets = list(request.target_function(output))
            recorder.settle()
            recorder.expect(len(targets))
            for target in targets:
                recorder.backward(target, output, last=target is targets[-1])
        except Cancelled:
            if not targets or not recorder.completed:
                raise
            recorder.stop()
        finally:
            output = detached(output)
    layer_calls = [recorder.statuses(t) for t in range(len(targets))]
    return Captured(
        layer_calls, targets, output, recorder.input_gradients, recorder.cancelled, seconds
    )
