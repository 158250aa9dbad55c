"""Re-initialisation of a network's weights, with the statistics of its normalisations recomputed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from camanim.execution.forward import Forward

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm
_NORMS = (_BATCH_NORMS, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_LINEAR = (nn.modules.conv._ConvNd, nn.Linear)


class Reinitialisation:
    """Draws new weights for the modules that own given parameters.

    Convolutions and linear layers get weights of He et al., "Delving Deep into Rectifiers", ICCV 2015
    (normal, fan-in), and biases of 0; normalisations a factor of 1 and a bias of 0. The running
    statistics of batch normalisations are recomputed on variants of the image, so that signals keep
    their scale. Other parameters, such as tokens and factors of residual branches, are permuted.

    Parameters
    ----------
    net : torch.nn.Module
        Put into evaluation mode.
    forward : Forward
        Runs `net`.
    image : torch.Tensor
        (1, C, *S)
    """

    def __init__(self, net: nn.Module, forward: Forward, image: torch.Tensor) -> None:
        self._net, self._forward, self._images = net.eval(), forward, variants(image)
        self._reset: list[Any] = []

    def __call__(
        self,
        parameters: Sequence[nn.Parameter],
        generator: torch.Generator,
        permute: Callable[[Sequence[nn.Parameter], torch.Generator], None],
    ) -> None:
        """Re-initialise parameters in place, and recompute the statistics that are affected."""
        left = {id(p): p for p in parameters}
        with torch.inference_mode(False), torch.no_grad():
            for module in self._net.modules():
                own = [p for p in module._parameters.values() if p is not None and id(p) in left]
                if not own or not isinstance(module, (*_NORMS, *_LINEAR)):
                    continue
                for parameter in own:
                    left.pop(id(parameter))
                    _initialise(parameter, module, generator)
                if isinstance(module, _BATCH_NORMS) and module.running_mean is not None:
                    self._reset.append(module)
        permute(list(left.values()), generator)
        if self._reset:
            # Not within `Forward.evaluating`, which restores the statistics.
            with torch.no_grad(), _recording(self._reset):
                self._forward(self._images)


def variants(image: torch.Tensor) -> torch.Tensor:
    """Return eight variants of an image: mirrored or not, and multiplied by 0.7, 0.9, 1.1 and 1.3.

    Parameters
    ----------
    image : torch.Tensor
        (1, C, *S)

    Returns
    -------
    torch.Tensor
        (8, C, *S)
    """
    both = torch.cat([image, image.flip(-1)])
    return torch.cat([factor * both for factor in (0.7, 0.9, 1.1, 1.3)])


def _initialise(parameter: nn.Parameter, module: nn.Module, generator: torch.Generator) -> None:
    if parameter is getattr(module, "bias", None):
        parameter.zero_()
    elif isinstance(module, _NORMS):
        parameter.fill_(1)
    else:
        # Drawn on the CPU, so that the weights do not depend on the device.
        drawn = torch.empty(parameter.shape)
        nn.init.kaiming_normal_(drawn, nonlinearity="relu", generator=generator)
        parameter.copy_(drawn)


@contextmanager
def _recording(norms: Sequence[Any]) -> Iterator[None]:
    """Let batch normalisations compute their running statistics anew, from the images that follow."""
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            # None: the mean over all batches.
            norm.momentum, norm.training = None, True
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False
