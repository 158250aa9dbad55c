"""Settings of forward passes, and the benchmark that selects them."""

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

#: Batch sizes that the benchmark tries.
BATCH_SIZES = tuple(2**k for k in range(11))
#: Minimum speedups for which another batch size, and half precision, are selected.
MIN_BATCH_SPEEDUP, MIN_HALF_SPEEDUP = 1.03, 1.15
#: Maximum error of half precision: of a probability, or as a fraction of the range of scores.
MAX_HALF_ERROR = 2e-3


@dataclass(frozen=True)
class InferenceSettings:
    """How forward passes are run: batch size, memory format, precision.

    Attributes
    ----------
    batch_size : int
        Perturbed images per forward pass.
    memory_format : {"own", "contiguous", "channels_last"}
        "own" runs the user's network; the others run a copy with folded batch normalisations.
    precision : {"float32", "bfloat16", "float16"}
        Precision of autocast.
    """

    batch_size: int = 4
    memory_format: MemoryFormat = "own"
    precision: Precision = "float32"


@dataclass(frozen=True)
class InferenceOverrides(Checked, error=ScoreError):
    """Inference settings fixed by the caller; those that are None are selected by benchmark.

    Attributes
    ----------
    batch_size, memory_format, precision
        See `InferenceSettings`.
    """

    batch_size: Positive | None = None
    memory_format: MemoryFormat | None = None
    precision: Precision | None = None

    def apply_to(self, settings: InferenceSettings) -> InferenceSettings:
        """Return the settings with these overrides."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(settings, **{k: v for k, v in values.items() if v is not None})


class ConfiguredNetworks:
    """A network and its copies in other memory formats.

    Parameters
    ----------
    forward : Forward
        Within `Forward.evaluating`.
    tensor : torch.Tensor
        An input, (1, C, *S), with which copies are verified.

    Attributes
    ----------
    original : Forward
        The user's network.
    """

    def __init__(self, forward: Forward, tensor: torch.Tensor) -> None:
        self.original, self._copies = forward, Copies(forward, tensor)

    def __call__(self, settings: InferenceSettings) -> Forward:
        """Return the network configured with these settings.

        Raises
        ------
        ScoreError
            If no copy can be made in the memory format, or its outputs differ.
        """
        network = self._of(settings.memory_format)
        if network is None:
            raise ScoreError(
                "The network has no copy with the same outputs in the memory format "
                f'{settings.memory_format}: use memory_format="own".'
            )
        return replace(network, precision=settings.precision)

    def supports(self, memory_format: MemoryFormat) -> bool:
        """Return whether the network can run in a memory format."""
        return self._of(memory_format) is not None

    def _of(self, memory_format: MemoryFormat) -> Forward | None:
        return self.original if memory_format == "own" else self._copies.of(memory_format)


class SpeedMeasurement:
    """Benchmark that selects the fastest inference settings.

    Parameters
    ----------
    networks : ConfiguredNetworks
    value : callable
        Map a network and images (B, C, *S) to the target's values, (B,).
    images : torch.Tensor
        Perturbed images, (B, C, *S), on which half precision is validated; repeated for larger batches.
    budget : float
        Maximum number of images passed through the network.
    probabilities : bool
        Whether values are probabilities rather than scores of unknown scale.
    report : callable
        Called before each trial; an exception it raises ends the benchmark.
    limit : int, optional
        Largest batch size that is tried.
    """

    def __init__(
        self,
        networks: ConfiguredNetworks,
        value: Callable[[Forward, torch.Tensor], torch.Tensor],
        images: torch.Tensor,
        budget: float,
        *,
        probabilities: bool = True,
        report: Callable[[], None] = lambda: None,
        limit: int | None = None,
    ) -> None:
        self._networks, self._value, self._images = networks, value, images
        self._remaining, self._limit = budget, limit
        self._probabilities, self._report = probabilities, report
        self._seconds: dict[InferenceSettings, float] = {}

    def best(self, overrides: InferenceOverrides) -> InferenceSettings:
        """Return the fastest settings: select the memory format, then batch size, then precision."""
        formats: list[MemoryFormat] = ["channels_last", "contiguous"]
        if overrides.memory_format is not None:
            formats = [overrides.memory_format]
        formats = [f for f in formats if self._networks.supports(f)] or ["own"]
        tried = [overrides.apply_to(InferenceSettings(memory_format=f)) for f in formats]
        best = min(tried, key=self._time) if len(tried) > 1 else tried[0]
        if overrides.batch_size is None:
            larger = self._resized(best, 2)
            # A smaller batch may fit into the processor's cache.
            best = larger if larger != best else self._resized(best, 0.5)
        half = replace(best, precision=half_precision(self._images.device))
        if overrides.precision is not None or half == best:
            return best
        faster = self._is_faster(half, best, MIN_HALF_SPEEDUP)
        return half if faster and self._is_close(half, best) else best

    def _resized(self, settings: InferenceSettings, factor: float) -> InferenceSettings:
        """Scale the batch size by a factor repeatedly, as long as this is faster."""
        while (size := int(factor * settings.batch_size)) in BATCH_SIZES:
            if self._limit is not None and size > self._limit:
                break
            other = replace(settings, batch_size=size)
            if not self._is_faster(other, settings, MIN_BATCH_SPEEDUP):
                break
            settings = other
        return settings

    def _is_faster(
        self, settings: InferenceSettings, reference: InferenceSettings, factor: float
    ) -> bool:
        """Return whether settings are faster by a factor; False if the budget is spent."""
        if 2 * settings.batch_size > self._remaining:
            return False
        return self._time(settings) * factor < self._time(reference)

    def _time(self, settings: InferenceSettings) -> float:
        """Return the seconds per image; cached."""
        if settings not in self._seconds:
            run_callback(self._report)
            network, images = self._networks(settings), self._batch(settings.batch_size)
            self._remaining -= 2 * settings.batch_size
            try:
                self._value(network, images)
                start = time.perf_counter()
                # The copy to the CPU waits for the GPU.
                self._value(network, images).cpu()
                self._seconds[settings] = (time.perf_counter() - start) / settings.batch_size
            except (RuntimeError, MemoryError, OutOfMemory) as error:
                if not is_out_of_memory(error):
                    raise
                self._seconds[settings] = float("inf")
        return self._seconds[settings]

    def _batch(self, size: int) -> torch.Tensor:
        repeats = -(-size // len(self._images))
        return self._images.repeat(repeats, *[1] * (self._images.ndim - 1))[:size]

    def _is_close(self, settings: InferenceSettings, reference: InferenceSettings) -> bool:
        values, exact = (
            self._value(self._networks(each), self._images) for each in (settings, reference)
        )
        scale = 1.0 if self._probabilities else float(exact.max() - exact.min())
        return bool((values - exact).abs().max() <= MAX_HALF_ERROR * scale)

    def is_valid(self, settings: InferenceSettings) -> bool:
        """Return whether settings selected for other weights are also valid for these."""
        if not self._networks.supports(settings.memory_format):
            return False
        if settings.precision not in ("float32", half_precision(self._images.device)):
            return False
        single = replace(settings, precision="float32")
        return settings.precision == "float32" or self._is_close(settings, single)


def half_precision(device: torch.device) -> Precision:
    """Return the half precision with hardware support on a device; float32 if there is none."""
    if device.type == "cuda":
        return "float16"
    capabilities: dict[str, object] = (
        getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    )
    supported = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return "bfloat16" if supported else "float32"
