"""How a network runs fastest: batch size, memory format and precision, found by a short measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch

from camanim.declarations import Checked, Positive
from camanim.errors import OutOfMemory, ScoreError
from camanim.execution.fast_copy import Copies
from camanim.execution.forward import Forward
from camanim.model_state import is_out_of_memory, run_callback
from camanim.precision import Precision
from camanim.road.settings import MemoryFormat

#: How much faster a larger batch, and half precision, must be to be taken.
WORTH_A_BATCH, WORTH_HALF = 1.03, 1.15
#: How far half precision may move a value: a probability, or as a share of how far scores lie apart.
CLOSE = 2e-3


@dataclass(frozen=True)
class InferenceSettings:
    """How the network is asked.

    Attributes
    ----------
    batch_size : int
        Perturbed images per forward pass.
    memory_format : {"own", "contiguous", "channels_last"}
        "own" is the network itself; the others are of a copy with its batch normalisations folded.
    precision : {"float32", "bfloat16", "float16"}
        Of autocast.
    """

    batch_size: int = 4
    memory_format: MemoryFormat = "own"
    precision: Precision = "float32"


@dataclass(frozen=True)
class InferenceOverrides(Checked, error=ScoreError):
    """Inference settings that the caller fixes; what is None is measured.

    Attributes
    ----------
    batch_size, memory_format, precision
        See `InferenceSettings`.
    """

    batch_size: Positive | None = None
    memory_format: MemoryFormat | None = None
    precision: Precision | None = None

    def on(self, form: InferenceSettings) -> InferenceSettings:
        """Give a form in which these wishes hold."""
        names = [f.name for f in fields(self)]
        return replace(form, **{n: getattr(self, n) for n in names if getattr(self, n) is not None})


class ConfiguredNetworks:
    """A network in any form.

    Parameters
    ----------
    forward : Forward
        Within `Forward.evaluating`.
    tensor : torch.Tensor
        (1, C, *S), an input.

    Attributes
    ----------
    own : Forward
        The network itself.
    """

    def __init__(self, forward: Forward, tensor: torch.Tensor) -> None:
        self.own, self._copies = forward, Copies(forward, tensor)

    def __call__(self, form: InferenceSettings) -> Forward:
        """Give the network in a form.

        Raises
        ------
        ScoreError
            Where a copy cannot be had, or answers otherwise.
        """
        network = self._of(form.memory_format)
        if network is None:
            raise ScoreError(
                f"The network does not answer the same as a copy in the format {form.memory_format}: "
                'use memory_format="own".'
            )
        return replace(network, precision=form.precision)

    def has(self, memory_format: MemoryFormat) -> bool:
        """Whether the network can be had in a format."""
        return self._of(memory_format) is not None

    def _of(self, memory_format: MemoryFormat) -> Forward | None:
        return self.own if memory_format == "own" else self._copies.of(memory_format)


class SpeedMeasurement:
    """Finds the form that answers fastest.

    Parameters
    ----------
    forms : ConfiguredNetworks
    value : callable
        From a network and (B, C, *S) to the target's (B,) values.
    images : torch.Tensor
        (B, C, *S) perturbed images, by which half precision is judged; repeated for larger batches.
    budget : float
        How many images it may show to the network.
    probabilities : bool
        Whether values are probabilities, or on no known scale.
    report : callable
        Called before each trial; what it raises ends the measurement.
    """

    def __init__(
        self,
        forms: ConfiguredNetworks,
        value: Callable[[Forward, torch.Tensor], torch.Tensor],
        images: torch.Tensor,
        budget: float,
        *,
        probabilities: bool = True,
        report: Callable[[], None] = lambda: None,
    ) -> None:
        self._forms, self._value, self._images, self._left = forms, value, images, budget
        self._probabilities, self._report = probabilities, report
        self._seconds: dict[InferenceSettings, float] = {}

    def best(self, wish: InferenceOverrides) -> InferenceSettings:
        """Try formats, then batches, then half precision, for as long as it pays."""
        formats: list[MemoryFormat] = ["channels_last", "contiguous"]
        if wish.memory_format is not None:
            formats = [wish.memory_format]
        formats = [f for f in formats if self._forms.has(f)] or ["own"]
        tried = [wish.on(InferenceSettings(memory_format=f)) for f in formats]
        best = min(tried, key=self._time) if len(tried) > 1 else tried[0]
        if wish.batch_size is None:
            larger = self._resized(best, 2)
            # Smaller ones where larger ones are no faster: they may fit the processor's cache.
            best = larger if larger != best else self._resized(best, 0.5)
        half = replace(best, precision=half_precision(self._images.device))
        if wish.precision is None and half != best and self._is_faster(half, best, WORTH_HALF):
            best = half if self._is_close(half, best) else best
        return best

    def _resized(self, form: InferenceSettings, factor: float) -> InferenceSettings:
        """Change the batch by a factor for as long as that is faster."""
        while (size := int(factor * form.batch_size)) >= 1:
            other = replace(form, batch_size=size)
            if not self._is_faster(other, form, WORTH_A_BATCH):
                break
            form = other
        return form

    def _is_faster(self, form: InferenceSettings, than: InferenceSettings, factor: float) -> bool:
        """Whether a form is that many times as fast; not so where there is no budget left to know."""
        if 2 * form.batch_size > self._left:
            return False
        return self._time(form) * factor < self._time(than)

    def _time(self, form: InferenceSettings) -> float:
        """Measure the seconds per image, once."""
        if form not in self._seconds:
            run_callback(self._report)
            network, images = self._forms(form), self._batch(form.batch_size)
            self._left -= 2 * form.batch_size
            try:
                self._value(network, images)
                start = time.perf_counter()
                # The values come to the CPU, so that a GPU has done its work.
                self._value(network, images).cpu()
                self._seconds[form] = (time.perf_counter() - start) / form.batch_size
            except (RuntimeError, MemoryError, OutOfMemory) as error:
                if not is_out_of_memory(error):
                    raise
                self._seconds[form] = float("inf")
        return self._seconds[form]

    def _batch(self, size: int) -> torch.Tensor:
        repeats = -(-size // len(self._images))
        return self._images.repeat(repeats, *[1] * (self._images.ndim - 1))[:size]

    def _is_close(self, form: InferenceSettings, to: InferenceSettings) -> bool:
        values, exact = (self._value(self._forms(f), self._images) for f in (form, to))
        scale = 1.0 if self._probabilities else float(exact.max() - exact.min())
        return bool((values - exact).abs().max() <= CLOSE * scale)

    def holds(self, form: InferenceSettings) -> bool:
        """Whether a form that was found for other weights may be taken for these."""
        if not self._forms.has(form.memory_format):
            return False
        single = replace(form, precision="float32")
        return form.precision == "float32" or self._is_close(form, single)


def half_precision(device: torch.device) -> Precision:
    """Name the half precision that a device computes fast; float32 where it has none."""
    if device.type == "cuda":
        return "float16"
    known: dict[str, object] = (
        getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    )
    return "bfloat16" if any(known.get(name) for name in ("avx512_bf16", "amx_bf16")) else "float32"
