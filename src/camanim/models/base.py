"""A network with what must be known to use it: its preprocessing and its classes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError, ModelError
from camanim.images import (
    Fit,
    Geometry,
    Prepared,
    Preprocess,
    Window,
    as_array,
    to_display,
    unit_image,
)

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Prediction:
    """One class and how likely the network finds it.

    Attributes
    ----------
    index : int
    name : str
    probability : float
    """

    index: int
    name: str
    probability: float


class Model:
    """A network, its preprocessing and the names of its classes.

    Parameters
    ----------
    net : torch.nn.Module
        Any classifier: from (1, C, H, W) to class scores (1, K). It is used where it lies (its device)
        and comes back from every use as it was.
    preprocess : Preprocess or callable, optional
        A `Preprocess`, which knows its geometry, or any callable from the image to a (1, C, H, W)
        tensor, which is then taken as stretching the whole image. By default the image's own size,
        intensities in [0, 1], and as many channels as the first convolution takes.
    classes : sequence of str, optional
        Names of the K classes, in order.
    name : str, optional
        For captions and records; by default the network's class.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Conv2d(1, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ... )
    >>> Model(net, classes=["a", "b", "c", "d"]).name
    'Sequential'
    """

    def __init__(
        self,
        net: nn.Module,
        preprocess: Preprocess | Callable[[Any], torch.Tensor] | None = None,
        classes: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        from torch import nn

        if not isinstance(net, nn.Module):
            raise ModelError(f"A network is a torch.nn.Module, not {type(net).__name__}.")
        self.net = net
        self.preprocess = preprocess or Preprocess(channels=_input_channels(net))
        self.classes = None if classes is None else [str(c) for c in classes]
        self.name = name or type(net).__name__
        self._hash: tuple[object, str] | None = None

    def __repr__(self) -> str:
        classes = "" if self.classes is None else f", {len(self.classes)} classes"
        return f"Model({self.name}{classes})"

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        import torch

        tensor = next(chain(self.net.parameters(), self.net.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """The network's floating type."""
        import torch

        return next(
            (p.dtype for p in self.net.parameters() if p.is_floating_point()), torch.float32
        )

    def prepare(
        self, image: Any, *, fit: Fit = "stretch", window: Window | None = None
    ) -> Prepared:
        """Turn an image into the network's input, on the network's device.

        Parameters
        ----------
        image : array-like
            See `camanim.images.unit_image`.
        fit, window
            See `camanim.Preprocess`; a callable of your own sees the image as it is.

        Raises
        ------
        ImageError
            When the image cannot be used as it is.
        """
        if isinstance(self.preprocess, Preprocess):
            prepared = self.preprocess(image, fit=fit, window=window)
        else:
            prepared = self._prepare_by_callable(self.preprocess, image, window)
        tensor = prepared.tensor.to(self.device, self.dtype)
        return Prepared(tensor, prepared.geometry, prepared.image)

    @staticmethod
    def _prepare_by_callable(
        preprocess: Callable[[Any], torch.Tensor], image: Any, window: Window | None
    ) -> Prepared:
        import torch

        array = as_array(image)
        if window is None and array.dtype.kind == "f" and array.size and np.isfinite(array).all():
            # The callable knows what its values mean; only the display needs a window.
            low, high = float(array.min()), float(array.max())
            window = (min(low, 0.0), max(high, 1.0))
        shown = to_display(unit_image(array, window))
        tensor = preprocess(image)
        is_tensor = isinstance(tensor, torch.Tensor) and tensor.numel() > 0
        if not is_tensor or tensor.ndim != 4 or tensor.shape[0] != 1:
            what = tuple(tensor.shape) if is_tensor else type(tensor).__name__
            raise ImageError(f"preprocess must return a tensor (1, C, H, W), not {what}.")
        height, width = int(tensor.shape[2]), int(tensor.shape[3])
        scale = (shown.shape[0] / height, shown.shape[1] / width)
        # A copy: a network may write into its input, and this one belongs to the caller.
        return Prepared(tensor.detach().clone(), Geometry((height, width), scale), shown)

    def predict(
        self, image: Any, k: int = 5, *, fit: Fit = "stretch", window: Window | None = None
    ) -> list[Prediction]:
        """Name the k likeliest classes.

        Parameters
        ----------
        image, fit, window
            See `prepare`.
        k : int

        Returns
        -------
        list of Prediction
            Likeliest first; fewer than k where the network has fewer classes.

        Raises
        ------
        CamError
            When the image cannot be used or the network fails on it.
        """
        import torch

        from camanim.guard import in_eval_mode, own_errors
        from camanim.targets import class_name, class_scores, probabilities

        prepared = self.prepare(image, fit=fit, window=window)
        with own_errors(tuple(prepared.tensor.shape)), in_eval_mode(self.net), torch.no_grad():
            logits = class_scores(self.net(prepared.tensor))
        likely = probabilities(logits)[0].topk(min(k, logits.shape[1]))
        return [
            Prediction(int(i), class_name(int(i), self.classes), float(p))
            for p, i in zip(likely.values, likely.indices, strict=True)
        ]

    def weights_hash(self) -> str:
        """Return the SHA-256 of all weights and buffers; computed again only when one has changed.

        Change is seen by each tensor's memory, version, and product with a ramp, which is cheaper than
        hashing. The version alone would not do: writing through ``.data``, as averaging of weights
        often does, leaves it as it was.
        """
        import torch

        state = self.net.state_dict()
        seen = tuple(
            (name, _fingerprint(value) if isinstance(value, torch.Tensor) else str(value))
            for name, value in state.items()
        )
        if self._hash is None or self._hash[0] != seen:
            digest = hashlib.sha256()
            for name, value in state.items():
                digest.update(name.encode())
                known = isinstance(value, torch.Tensor)
                digest.update(_bytes(value).data if known else str(value).encode())
            self._hash = (seen, digest.hexdigest())
        return self._hash[1]


def _fingerprint(tensor: torch.Tensor) -> tuple[object, ...]:
    """Tell a tensor from what it was: the order of its values matters too."""
    version = None if tensor.is_inference() else tensor._version
    flat = tensor.detach().reshape(-1)
    if not flat.is_floating_point():
        return tensor.data_ptr(), version, flat.tolist()
    ramp = _ramp(flat.numel(), flat.dtype, flat.device)
    return tensor.data_ptr(), version, float(flat @ ramp)


@lru_cache(maxsize=32)
def _long_ramp(length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    import torch

    return torch.linspace(0.5, 1.5, length, dtype=dtype, device=device)


def _ramp(length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    # Lengths are rounded up, so that few ramps serve all tensors.
    return _long_ramp(1 << length.bit_length(), dtype, device)[:length]


def _bytes(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: npt.NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return array


def _input_channels(net: nn.Module) -> int:
    """Read off the first convolution how many channels the network takes; 3 where there is none."""
    for module in net.modules():
        channels = getattr(module, "in_channels", None)
        if isinstance(channels, int) and hasattr(module, "kernel_size"):
            return channels
    return 3
