"""One forward for all layers, and one backward for each target.

Every call of every module is seen by a forward hook. Where a layer is selected, its activation, and its
gradient when that arrives in the backward pass, are handed to a `Consumer` as channels over space, and
let go of. The gradient is asked for at the *input* only, so no parameter collects one and frozen
networks work.

In-place operations (``ReLU(inplace=True)``, ``out += identity``) overwrite activations that are still
wanted. Their gradients stay right: a tensor hook set before the operation gets the gradient of the value
before it. The activation is cloned just before it is overwritten, and only then (`SaveOverwritten`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from camanim.errors import Cancelled
from camanim.execution.consumer import Consumer
from camanim.execution.double_backward import twice_derivable
from camanim.execution.outputs import check_count, detached
from camanim.execution.recorder import Recorder
from camanim.execution.request import AttributionRequest
from camanim.layer_info import LayerInfo
from camanim.model_state import as_cam_errors, check_weights, frozen, in_eval_mode, plain_attention
from camanim.targets import Target


@dataclass
class Captured:
    """What one pass through the network left.

    Attributes
    ----------
    layer_calls : list of list of LayerInfo
        Per target, every call of every module in order of execution, with what became of it.
    targets : list of Target
    output : object
        What the network returned, detached.
    input_gradients : list of torch.Tensor
        (B, C, *S) per target that had its backward pass; empty for methods without gradients.
    cancelled : bool
        Whether the caller stopped it, be it at the last step.
    """

    layer_calls: list[list[LayerInfo]]
    targets: list[Target]
    output: Any
    input_gradients: list[torch.Tensor]
    cancelled: bool = False

    def check_whole(self) -> None:
        """Stop where the caller has stopped: what is made of it all needs it all.

        Raises
        ------
        Cancelled
        """
        if self.cancelled:
            raise Cancelled("The run was cancelled.")


def capture(question: AttributionRequest, consumer: Consumer) -> Captured:
    """Run the network once forward, and once backward for each target.

    Raises
    ------
    Cancelled
        When there was nothing yet.
    ModelError, TargetError, OutOfMemory
        When the network fails, has no such target, or does not fit into memory.
    """
    net, tensor = question.forward.net, question.tensor
    recorder = Recorder(question, consumer)
    targets: list[Target] = []
    output: Any = None
    check_weights(net)
    with ExitStack() as stack:
        stack.enter_context(as_cam_errors(tuple(tensor.shape)))
        stack.enter_context(in_eval_mode(net))
        stack.enter_context(plain_attention())
        if consumer.needs_graph:
            stack.enter_context(twice_derivable())
        stack.enter_context(frozen(net))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.callback(recorder.let_go)
        try:
            with recorder.watching(net):
                output = question.forward(recorder.start_graph(tensor))
            check_count(output, len(tensor))
            targets = list(question.aim(output))
            recorder.settle()
            recorder.expect(len(targets))
            for target in targets:
                recorder.backward(target, output, last=target is targets[-1])
        except Cancelled:
            if not targets or not recorder.done:
                raise
            recorder.stop()
        finally:
            output = detached(output)
    layer_calls = [recorder.layers(t) for t in range(len(targets))]
    return Captured(layer_calls, targets, output, recorder.input_gradients, recorder.cancelled)
