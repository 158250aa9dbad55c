"""A network with what must be known to use it: its preprocessing and its classes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError, ModelError, OutOfMemory
from camanim.images import (
    Fit,
    Geometry,
    Prepared,
    Preprocess,
    Window,
    as_array,
    shown_image,
    unit_image,
)
from camanim.models.classes import Classes, class_names
from camanim.models.fingerprint import fingerprint, sha256
from camanim.models.names import NATIVE

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.execution.forward import Forward
from camanim.precision import Precision

Outputs = Literal["auto", "softmax", "sigmoid", "values"]


def bare(net: nn.Module) -> nn.Module:
    """Unwrap a network: out of DataParallel, DistributedDataParallel and ``torch.compile``."""
    from torch import nn

    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(net, wrappers):
            net = net.module
        elif isinstance(inner := dict(net.named_children()).get("_orig_mod"), nn.Module):
            net = inner
        else:
            return net


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
        Any network of images: from (B, C, H, W) or (B, C, D, H, W) to whatever a target can be made
        of, such as class scores (B, K). It is used where it lies (its device) and comes back from
        every use as it was.
    preprocess : Preprocess or callable, optional
        A `Preprocess`, which knows its geometry, or any callable from the image to a (B, C, ...)
        tensor, which is then taken as stretching the whole image. By default the image's own size,
        intensities in [0, 1], and as many channels and axes as the first convolution takes.
    classes : sequence of str, mapping from int to str, or path, optional
        Names of the K classes: in order, by number, or in a file (one per line, or ``.json``).
    name : str, optional
        For captions and records; by default the network's class.
    outputs : {"auto", "softmax", "sigmoid", "values"}
        What the scores are: of classes that exclude one another, of labels that do not, or plain
        numbers (regression). ``"auto"`` tells by their number.
    extra_inputs : tuple or dict
        What `forward` takes besides the image: more positional arguments, or keywords.

    Attributes
    ----------
    source, weights
        Where `camanim.load_model` had the network and its weights from; a `save_card` keeps them.

    Raises
    ------
    ModelError
        For what is no network, or classes that are no names.

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
        classes: Classes | None = None,
        name: str | None = None,
        *,
        outputs: Outputs = "auto",
        extra_inputs: tuple[Any, ...] | dict[str, Any] = (),
    ) -> None:
        from torch import nn

        if not isinstance(net, nn.Module):
            raise ModelError(f"A network is a torch.nn.Module, not {type(net).__name__}.")
        if not isinstance(extra_inputs, tuple | dict):
            raise ModelError(
                "extra_inputs is a tuple of further arguments of forward, or a dict of keywords, "
                f"not {type(extra_inputs).__name__}."
            )
        self.net = net
        channels, dims = input_of(net)
        self.preprocess = preprocess or Preprocess(channels=channels, dims=dims)
        self.classes = class_names(classes)
        self.name = name or type(bare(net)).__name__
        self.outputs: Outputs = checked_outputs(outputs)
        self.extra_inputs = extra_inputs
        self.source: str | None = None
        self.weights: str | Path | None = None
        self._hash: tuple[tuple[object, ...] | None, str] | None = None

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

    @property
    def dims(self) -> int:
        """How many axes the network's images have: 2 or 3."""
        if isinstance(self.preprocess, Preprocess):
            return self.preprocess.dims
        return input_of(self.net)[1]

    def to(self, device: str | torch.device) -> Model:
        """Return this model with a copy of its network on another device.

        The copy is made tensor by tensor, so that the first device needs no memory for it. Wrappers
        for several GPUs and for compilation are left behind. Where all of the network lies on `device`
        already, the model itself is returned.

        Raises
        ------
        ModelError
            When there is no such device, or the network cannot be copied.
        OutOfMemory
            When there is no room for it.
        """
        import torch

        try:
            target = torch.empty(0, device=device).device
            tensors = list(chain(self.net.parameters(), self.net.buffers()))
            if all(tensor.device == target for tensor in tensors):
                return self
            copied = {id(tensor): _moved(tensor, target) for tensor in tensors}
            net = copy.deepcopy(bare(self.net), dict(copied))
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemory(f"There is not enough memory on {device} for {self.name}.") from error
        except Exception as error:
            # No such device, or a network that holds what cannot be copied: each in its own way.
            first_line = str(error).partition("\n")[0]
            raise ModelError(f"{self.name} cannot be copied to {device}: {first_line}") from error
        model = copy.copy(self)
        model.net, model._hash = net, None
        model.extra_inputs = _on(target, self.extra_inputs)
        return model

    def forward(self, precision: Precision = "float32") -> Forward:
        """Give the network with all that its call needs beside the image."""
        from camanim.execution.forward import Forward

        extra = self.extra_inputs
        positional, keywords = (extra, {}) if isinstance(extra, tuple) else ((), extra)
        return Forward(bare(self.net), positional, keywords, precision)

    def save_card(self, path: str | Path) -> Path:
        """Write down where the network comes from and how it is used, as a small TOML file.

        `camanim.load_model` opens it again. Paths in it are relative to the card, so that a folder with
        a card and its weights can be passed around.

        Parameters
        ----------
        path : path-like
            Must end in ``.toml``.

        Raises
        ------
        CamError
            When the network did not come from `camanim.load_model`, or the file cannot be written.
        """
        from camanim.models.card import write_card

        if self.source is None:
            raise ModelError(
                f"{self.name} was given as an object, so that no card can lead back to it: "
                "load it with camanim.load_model."
            )
        return write_card(self._card(), path)

    def _card(self) -> dict[str, Any]:
        """Return the entries of a card, in the order in which they are read."""
        entries: dict[str, Any] = {
            "source": self.source,
            "name": self.name,
            "outputs": self.outputs,
            "weights": self.weights,
        }
        if isinstance(prep := self.preprocess, Preprocess):
            entries["size"] = NATIVE if prep.size is None else [int(n) for n in prep.size]
            if prep.size is None:
                entries["dims"] = prep.dims
            if prep.resize is not None:
                entries["resize"] = int(prep.resize)
            entries["channels"] = int(prep.channels)
            entries["mean"] = [float(v) for v in prep.mean]
            entries["std"] = [float(v) for v in prep.std]
            entries["interpolation"] = prep.interpolation
        if self.classes is not None:
            entries["classes"] = self.classes
        return entries

    def prepare(
        self,
        image: Any,
        *,
        fit: Fit = "stretch",
        window: Window | None = None,
        slices: bool = False,
    ) -> Prepared:
        """Turn an image into the network's input, on the network's device.

        Parameters
        ----------
        image : array-like
            See `camanim.images.unit_image`.
        fit, window, slices
            See `camanim.Preprocess`; a callable of your own sees the image as it is, and gives all
            slices (Z, C, h, w) where `slices` are wanted.

        Raises
        ------
        ImageError
            When the image cannot be used as it is.
        """
        if isinstance(self.preprocess, Preprocess):
            prepared = self.preprocess(image, fit=fit, window=window, slices=slices)
        else:
            prepared = _prepare_by_callable(self.preprocess, image, window, slices)
        tensor = prepared.tensor.to(self.device, self.dtype)
        return Prepared(tensor, prepared.geometry, prepared.image)

    def predict(
        self,
        image: Any,
        k: int = 5,
        *,
        fit: Fit = "stretch",
        window: Window | None = None,
        slices: bool = False,
    ) -> list[Prediction]:
        """Name the k likeliest classes; of slices, on average.

        Parameters
        ----------
        image, fit, window, slices
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
        from camanim.execution.outputs import check_count
        from camanim.targets import likeliest

        prepared = self.prepare(image, fit=fit, window=window, slices=slices)
        forward = self.forward()
        with forward.evaluating(tuple(prepared.tensor.shape)):
            output = forward(prepared.tensor)
            check_count(output, len(prepared.tensor))
            found = likeliest(output, self.classes, self.outputs, k)
        return [Prediction(*one) for one in found]

    def weights_hash(self) -> str:
        """Return the SHA-256 of all weights and buffers; computed again only when one has changed.

        Changes are detected by `camanim.models.fingerprint.fingerprint`.
        """
        net = bare(self.net)
        state = fingerprint(net)
        if self._hash is None or state is None or self._hash[0] != state:
            self._hash = (state, sha256(net))
        return self._hash[1]


def checked_outputs(outputs: str) -> Outputs:
    """Refuse what is not one of the kinds of outputs."""
    for known in get_args(Outputs):
        if outputs == known:
            kind: Outputs = known
            return kind
    raise ModelError(f"outputs is one of {', '.join(get_args(Outputs))}, not {outputs!r}.")


def _prepare_by_callable(
    preprocess: Callable[[Any], torch.Tensor], image: Any, window: Window | None, slices: bool
) -> Prepared:
    import torch

    array = as_array(image)
    if not array.size or array.dtype.kind not in "buif":
        raise ImageError(f"This is no image: {array.dtype} values of shape {array.shape}.")
    tensor = preprocess(image)
    known = isinstance(tensor, torch.Tensor) and tensor.numel() > 0
    if not known or tensor.ndim not in ((4,) if slices else (4, 5)):
        raise ImageError(_wrong_tensor(tensor, slices))
    space = 3 if slices else tensor.ndim - 2
    if len(tensor) != (len(array) if slices else 1):
        raise ImageError(_wrong_tensor(tensor, slices))
    shown = _shown_to_a_callable(array, window, space, int(tensor.shape[1]))
    size = (len(tensor), *tensor.shape[2:]) if slices else tuple(tensor.shape[2:])
    scale = tuple(n / m for n, m in zip(shown.shape, size, strict=False))
    # A copy: a network may write into its input, and this one belongs to the caller.
    return Prepared(tensor.detach().clone(), Geometry(size, scale), shown)


def _wrong_tensor(tensor: Any, slices: bool) -> str:
    shape = getattr(tensor, "shape", None)
    what = type(tensor).__name__ if shape is None else tuple(shape)
    wanted = "(Z, C, H, W) for all slices" if slices else "(1, C, H, W) or (1, C, D, H, W)"
    return f"preprocess must return a tensor {wanted}, not {what}."


def _shown_to_a_callable(
    array: npt.NDArray[Any], window: Window | None, space: int, channels: int
) -> npt.NDArray[np.uint8]:
    if window is None and array.dtype.kind == "f" and np.isfinite(array).all():
        # The callable knows what its values mean; only the display needs a window.
        low, high = float(array.min()), float(array.max())
        window = (min(low, 0.0), max(high, 1.0))
    return shown_image(unit_image(array, window, space=space, channels=channels), space)


def input_of(net: nn.Module) -> tuple[int, int]:
    """Read off the first convolution how many channels and axes go in; 3 and 2 where there is none."""
    for module in net.modules():
        channels = getattr(module, "in_channels", None)
        kernel = getattr(module, "kernel_size", None)
        if isinstance(channels, int) and channels > 0 and kernel is not None:
            dims = len(kernel) if isinstance(kernel, Sequence) else 2
            return channels, dims if dims in (2, 3) else 2
    return 3, 2


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    from torch import nn

    moved = tensor.detach().to(device, copy=True)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(moved, requires_grad=tensor.requires_grad)
    return moved


def _on(device: torch.device, inputs: Any) -> Any:
    """Move the tensors among further inputs."""
    import torch

    if isinstance(inputs, torch.Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {key: _on(device, value) for key, value in inputs.items()}
    return (
        type(inputs)(_on(device, v) for v in inputs) if isinstance(inputs, tuple | list) else inputs
    )
