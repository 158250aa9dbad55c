"""The `Model`: a network with its preprocessing and the names of its classes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from camanim.errors import ImageError, ModelError, OutOfMemory
from camanim.images import (
    Fit,
    Geometry,
    Prepared,
    Preprocess,
    SourceImage,
    Window,
    as_array,
    display_image,
    unit_image,
)
from camanim.models.building import first_line
from camanim.models.classes import Classes, class_names
from camanim.models.fingerprint import fingerprint, sha256
from camanim.models.first_convolution import check_has_layers, check_initialised, infer_input
from camanim.models.names import NATIVE
from camanim.models.output_kind import output_kind
from camanim.precision import Precision

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.execution.forward import Forward

Outputs = Literal["auto", "softmax", "sigmoid", "values", "probabilities"]


def unwrap(net: nn.Module) -> nn.Module:
    """Return the network inside DataParallel, DistributedDataParallel or ``torch.compile``."""
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
    """A class and the probability that the network predicts for it.

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
        A network that takes images, (B, C, H, W) or (B, C, D, H, W), and returns an output that a
        target can be computed from, such as class scores (B, K). It stays on its device, and its
        state is restored after every use.
    preprocess : Preprocess or callable, optional
        A `Preprocess`, or any callable from the image to a tensor (1, C, *S) or (C, *S), such as a
        transform of MONAI or torchvision. Its output is assumed to cover the whole image. By default
        the image keeps its size, its intensities are scaled to [0, 1], and the number of channels and
        axes is that of the first convolution.
    classes : sequence of str, mapping from int to str, or path, optional
        Names of the K classes: in order, by index, or in a file (one per line, or ``.json``).
    name : str, optional
        Name for captions and records; by default the name of the network's class.
    outputs : {"auto", "softmax", "sigmoid", "values", "probabilities"}
        Meaning of the scores: logits of mutually exclusive classes or of independent labels, plain
        numbers (regression), or probabilities, of a network that ends in a softmax or sigmoid.
        ``"auto"`` notices probabilities (see `camanim.models.output_kind`), and takes all other scores
        for logits of mutually exclusive classes; a single logit has two classes.
    extra_inputs : tuple or dict
        Arguments of `forward` besides the image: a tuple of positional ones, or a dict of keywords.
    domain : str
        What the network was trained on, such as ``"ImageNet photographs"``; empty if it is not known.

    Attributes
    ----------
    source, weights
        Source and weights that were passed to `camanim.load_model`; `save_card` writes them.

    Raises
    ------
    ModelError
        If `net` is not a network, or one of TorchScript, or `classes` are not names.

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
        domain: str = "",
    ) -> None:
        from torch import nn

        if not isinstance(net, nn.Module):
            raise ModelError(f"net must be a torch.nn.Module, not {type(net).__name__}.")
        if not isinstance(extra_inputs, tuple | dict):
            raise ModelError(
                "extra_inputs must be a tuple of positional arguments or a dict of keyword arguments, "
                f"not {type(extra_inputs).__name__}."
            )
        check_has_layers(net)
        self.net = net
        self._inferred = preprocess is None
        channels, dims = infer_input(net)
        self.preprocess = preprocess or Preprocess(channels=channels, dims=dims)
        self.classes = class_names(classes)
        self.name = name or type(unwrap(net)).__name__
        self.outputs: Outputs = check_outputs(outputs)
        self.extra_inputs = extra_inputs
        self.domain = domain
        #: Whether settings of the user or a card replaced those of the source.
        self.overridden = False
        self._random: tuple[int, ...] | None = None
        self.source: str | None = None
        self.weights: str | Path | None = None
        self._hash: tuple[tuple[object, ...] | None, str] | None = None

    def __repr__(self) -> str:
        classes = "" if self.classes is None else f", {len(self.classes)} classes"
        return f"Model({self.shown_name}{classes})"

    @property
    def random_weights(self) -> bool:
        """Whether `camanim.load_model` gave the network random weights, and they are unchanged."""
        return self._random is not None and self._random == _versions(self.net)

    def mark_random(self, random: bool) -> None:
        """Record that the present weights are random, or that they are not."""
        self._random = _versions(self.net) if random else None

    @property
    def shown_name(self) -> str:
        """The name as shown with results, which says so if the weights are random."""
        return f"{self.name} (random weights)" if self.random_weights else self.name

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        import torch

        tensor = next(chain(self.net.parameters(), self.net.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the network's parameters."""
        import torch

        return next(
            (p.dtype for p in self.net.parameters() if p.is_floating_point()), torch.float32
        )

    @property
    def dims(self) -> int:
        """Number of spatial axes of the network's images, 2 or 3."""
        if isinstance(self.preprocess, Preprocess):
            return self.preprocess.dims
        return infer_input(self.net)[1]

    def to(self, device: str | torch.device) -> Model:
        """Return this model with a copy of its network on another device.

        Tensors are copied one by one, so the first device needs no extra memory. Wrappers for several
        GPUs and for compilation are removed. If the whole network is already on `device`, the model
        itself is returned.

        Raises
        ------
        ModelError
            If the device does not exist, or the network cannot be copied.
        OutOfMemory
            If the device has too little memory.
        """
        import torch

        from camanim.exclusive import exclusively

        try:
            target = torch.empty(0, device=device).device
            tensors = list(chain(self.net.parameters(), self.net.buffers()))
            if all(tensor.device == target for tensor in tensors):
                return self
            # Not while another thread computes with it, and has its hooks on it.
            net = exclusively(self.net, partial(_copy_network, self.net, tensors, target))
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemory(f"There is not enough memory on {device} for {self.name}.") from error
        except Exception as error:
            # torch and `__deepcopy__` of a module may raise any exception.
            raise ModelError(
                f"{self.name} cannot be copied to {device}: {first_line(error)}"
            ) from error
        model = copy.copy(self)
        model.net, model._hash = net, None
        model.mark_random(self.random_weights)
        model.extra_inputs = _move_inputs(self.extra_inputs, target)
        return model

    def forward(self, precision: Precision = "float32") -> Forward:
        """Return the forward pass of the unwrapped network, with its extra inputs and a precision."""
        from camanim.execution.forward import Forward

        extra = self.extra_inputs
        positional, keywords = (extra, {}) if isinstance(extra, tuple) else ((), extra)
        return Forward(unwrap(self.net), positional, keywords, precision)

    def save_card(self, path: str | Path) -> Path:
        """Write the source, weights, preprocessing and classes of the model to a TOML file.

        `camanim.load_model` loads the model from it. Paths are relative to the card, so that a folder
        with a card and its weights can be moved.

        Parameters
        ----------
        path : path-like
            Must end in ``.toml``.

        Raises
        ------
        CamError
            If the network was not loaded by `camanim.load_model`, or the file cannot be written.
        """
        from camanim.models.card import write_card

        if self.source is None:
            raise ModelError(
                f"{self.name} was given as an object, and a card can only refer to a source: "
                "load the network with camanim.load_model."
            )
        return write_card(self.card_entries(), path)

    def card_entries(self) -> dict[str, Any]:
        """Return the entries of a card, in the order in which they are written."""
        entries: dict[str, Any] = {
            "source": self.source,
            "name": self.name,
            "outputs": self.outputs,
            "weights": self.weights,
        }
        if self.domain:
            entries["domain"] = self.domain
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
        """Return an image as the network's input, on the network's device.

        Parameters
        ----------
        image : array-like
            See `camanim.images.unit_image`.
        fit, window, slices
            See `camanim.Preprocess`. A callable `preprocess` gets the unchanged image. With `slices` it
            must return all slices, (Z, C, h, w).

        Raises
        ------
        ImageError
            If the image cannot be used.
        ModelError
            If the network has lazy weights that do not exist yet.
        """
        check_initialised(self.net)
        if isinstance(image, SourceImage):
            window = image.window if window is None else window
            image = as_array(image)
        if isinstance(self.preprocess, Preprocess):
            array = as_array(image)
            try:
                prepared = self.preprocess(array, fit=fit, window=window, slices=slices)
            except ImageError as error:
                raise ImageError(self._with_inferred(str(error), array.ndim)) from error
        else:
            prepared = _prepare_by_callable(self.preprocess, image, window, slices, self.dims)
        return replace(prepared, tensor=prepared.tensor.to(self.device, self.dtype))

    def _with_inferred(self, message: str, ndim: int) -> str:
        """Return a message about an image, with what was inferred about images if that may be wrong."""
        prep = self.preprocess
        if not self._inferred or not isinstance(prep, Preprocess):
            return message
        if prep.channels in (1, 3) and ndim in (prep.dims, prep.dims + 1):
            return message
        return (
            f"{message.rstrip('.')} ({prep.channels} channels and {prep.dims} axes are those of the "
            "network's first convolution: pass Preprocess(channels=..., dims=...) to Model if those of "
            "its images are others)."
        )

    def predict(
        self,
        image: Any,
        k: int = 5,
        *,
        fit: Fit = "stretch",
        window: Window | None = None,
        slices: bool = False,
    ) -> list[Prediction]:
        """Return the k most probable classes; with `slices`, of the mean over all slices.

        Parameters
        ----------
        image, fit, window, slices
            See `prepare`.
        k : int

        Returns
        -------
        list of Prediction
            Most probable first; fewer than k if the network has fewer classes.

        Raises
        ------
        CamError
            If the image cannot be used or the network fails on it.
        """
        from camanim.exclusive import exclusively

        prepared = self.prepare(image, fit=fit, window=window, slices=slices)
        return exclusively(unwrap(self.net), partial(self._predict, prepared.tensor, k))

    def _predict(self, tensor: torch.Tensor, k: int) -> list[Prediction]:
        from camanim.execution.outputs import check_count
        from camanim.models.fitting import fitting_images
        from camanim.targets import likeliest

        forward = self.forward()
        fitting_images(self, tensor, len(tensor), gradients=False, at_least=len(tensor))
        with forward.evaluating(tuple(tensor.shape)):
            output = forward(tensor)
            check_count(output, len(tensor))
            kind, _ = output_kind(forward, tensor, output, self.outputs)
            ranking = likeliest(output, self.classes, kind, k)
        return [Prediction(*entry) for entry in ranking]

    def weights_hash(self) -> str:
        """Return the SHA-256 of all weights and buffers.

        The hash is cached, and computed again when `camanim.models.fingerprint.fingerprint` changes.
        """
        net = unwrap(self.net)
        state = fingerprint(net)
        if self._hash is None or state is None or self._hash[0] != state:
            self._hash = (state, sha256(net))
        return self._hash[1]


def check_outputs(outputs: str) -> Outputs:
    """Return `outputs` if it is a member of `Outputs`, and raise a `ModelError` otherwise."""
    if outputs not in get_args(Outputs):
        raise ModelError(f"outputs must be one of {', '.join(get_args(Outputs))}, not {outputs!r}.")
    return cast(Outputs, outputs)


def _prepare_by_callable(
    preprocess: Callable[[Any], torch.Tensor],
    image: Any,
    window: Window | None,
    slices: bool,
    dims: int,
) -> Prepared:
    import torch

    array = as_array(image)
    if not array.size or array.dtype.kind not in "buif":
        raise ImageError(
            f"The image must hold numbers, not {array.dtype} values of shape {array.shape}."
        )
    tensor = preprocess(image)
    if isinstance(tensor, torch.Tensor):
        # MONAI's tensors carry metadata, which a network need not support.
        tensor = tensor.as_subclass(torch.Tensor)
        if tensor.ndim == dims + 1 and not slices:
            tensor = tensor[None]
    valid = (
        isinstance(tensor, torch.Tensor)
        and tensor.numel() > 0
        and tensor.ndim in ((4,) if slices else (4, 5))
        and len(tensor) == (len(array) if slices else 1)
    )
    if not valid:
        shape = getattr(tensor, "shape", None)
        actual = type(tensor).__name__ if shape is None else tuple(shape)
        expected = "(Z, C, H, W) for all slices" if slices else "(1, C, *S) or (C, *S)"
        raise ImageError(f"preprocess must return a tensor {expected}, not {actual}.")
    space = 3 if slices else tensor.ndim - 2
    if window is None and array.dtype.kind == "f" and np.isfinite(array).all():
        # The callable defines the meaning of the values; only the display needs a window.
        window = (min(float(array.min()), 0.0), max(float(array.max()), 1.0))
    unit = unit_image(array, window, space=space, channels=int(tensor.shape[1]))
    displayed = display_image(unit, space)
    size = (len(tensor), *tensor.shape[2:]) if slices else tuple(tensor.shape[2:])
    scale = tuple(n / m for n, m in zip(displayed.shape, size, strict=False))
    # The callable may return a tensor that the caller keeps, and a network may write into its input.
    return Prepared(tensor.detach().clone(), Geometry(size, scale), displayed)


def _versions(net: nn.Module) -> tuple[int, ...]:
    """Return how often each parameter was written to, as by training or loading weights."""
    return tuple(0 if p.is_inference() else p._version for p in net.parameters())


def _copy_network(
    net: nn.Module, tensors: Sequence[torch.Tensor], device: torch.device
) -> nn.Module:
    copies = {id(tensor): _copy_tensor(tensor, device) for tensor in tensors}
    # `deepcopy` takes tensors from its memo instead of copying them on their device.
    copied: nn.Module = copy.deepcopy(unwrap(net), dict(copies))
    return copied


def _copy_tensor(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    from torch import nn

    copied = tensor.detach().to(device, copy=True)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copied, requires_grad=tensor.requires_grad)
    return copied


def _move_inputs(inputs: Any, device: torch.device) -> Any:
    """Return nested inputs with all tensors on `device`."""
    import torch

    if isinstance(inputs, torch.Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {key: _move_inputs(value, device) for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return type(inputs)(_move_inputs(value, device) for value in inputs)
    return inputs
