"""Prediction of perturbed images: imputation, noise, forward passes in batches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from camanim.errors import OutOfMemory, raise_interrupt_behind
from camanim.execution.control_flow import ValueAccessDetector
from camanim.execution.fast_copy import FACTORS
from camanim.execution.forward import Forward
from camanim.model_state import is_out_of_memory, run_callback
from camanim.road.imputation import Imputer, is_builtin, noise_field
from camanim.road.inference_settings import ConfiguredNetworks, InferenceSettings, SpeedMeasurement
from camanim.road.masks import Masks
from camanim.road.plan import CACHED_SEEDS

if TYPE_CHECKING:
    from camanim.targets import Target

Floats = npt.NDArray[np.float64]

#: Minimum number of images for which the benchmark pays off, and its budget as a fraction of them.
MIN_IMAGES, MEASUREMENT_SHARE = 200, 0.06
#: Images per forward pass that must fit into memory, for batches of any size to be tried.
LARGE_BATCH = 32
#: Number of masks imputed together, and the maximum number of elements of their images.
IMPUTATION_BATCH, MAX_ELEMENTS = 16, 2**23
#: Maximum relative difference due to rounding in a batch, in single and in half precision.
TOLERANCE, TOLERANCE_HALF = 1e-3, 3e-2


class Predictor:
    """Predict the target's value of perturbed images.

    Parameters
    ----------
    forward : Forward
        Within `Forward.evaluating`.
    image : torch.Tensor
        (1, C, *S), on the network's device and of its data type.
    target : Target
    noise : float
        Standard deviation of the noise on imputed pixels. All masks share one noise field per seed.
    imputer : Imputer

    Attributes
    ----------
    before : float
        The target's value for the unperturbed image.
    one_at_a_time : bool
        Whether batches must have one image: the network has data-dependent control flow, does not accept
        batches, or its outputs differ between a batch and single images.
    settings : InferenceSettings
        Settings of the forward passes.
    """

    def __init__(
        self,
        forward: Forward,
        image: torch.Tensor,
        target: Target,
        noise: float,
        imputer: Imputer,
    ) -> None:
        self._networks, self._forward = ConfiguredNetworks(forward, image), forward
        self._imputer, self._target = imputer, target
        self._image, self._type = image[0].float(), image.dtype
        self._fields, self._noise = dict[int, torch.Tensor](), noise
        with ValueAccessDetector() as detector:
            output = forward(image)
        self.before = float(run_callback(target.value, output)[0])
        self.one_at_a_time = detector.detected or self._depends_on_batch(image)
        self.settings = InferenceSettings()

    def _depends_on_batch(self, image: torch.Tensor) -> bool:
        """Return whether batches fail, or outputs differ between a batch and single images."""
        batch = torch.cat([image * factor for factor in FACTORS])
        try:
            values = self._values(self._forward, batch)
        except (
            RuntimeError, ValueError, AssertionError, IndexError, TypeError, MemoryError
        ) as error:  # fmt: skip
            raise_interrupt_behind(error)
            return True
        scale = max(abs(self.before), float(values.abs().max()), 1e-12)
        single = self._type in (torch.float32, torch.float64)
        tolerance = TOLERANCE if single else TOLERANCE_HALF
        return not bool((values[0] - self.before).abs() <= tolerance * scale)

    def _noise_field(self, seed: int) -> torch.Tensor:
        """Return the noise of a seed; the fields of a few seeds are cached."""
        if seed not in self._fields:
            if len(self._fields) >= CACHED_SEEDS:
                self._fields.clear()
            field = noise_field(tuple(self._image.shape), seed)
            self._fields[seed] = self._noise * field.to(self._image.device)
        return self._fields[seed]

    @property
    def group_size(self) -> int:
        """Number of images to impute and predict per call, bounded by memory."""
        fitting = max(1, MAX_ELEMENTS // self._image.numel())
        return max(self.settings.batch_size, min(IMPUTATION_BATCH, fitting))

    def supports(self, settings: InferenceSettings) -> bool:
        """Return whether the network can run with these settings."""
        return self._networks.supports(settings.memory_format)

    def use(self, settings: InferenceSettings) -> None:
        """Run further forward passes with these settings."""
        self._forward, self.settings = self._networks(settings), settings

    def measurement(
        self, kept: Masks, budget: float, report: Callable[[], None], limit: int | None = None
    ) -> SpeedMeasurement:
        """Return a benchmark that selects the fastest settings on these masks."""
        return SpeedMeasurement(
            self._networks,
            self._values,
            self._imputed(kept).to(self._type),
            budget,
            probabilities=self._target.unit == "probability",
            report=report,
            limit=limit,
        )

    def __call__(self, kept: Masks, which: npt.NDArray[np.intp], seeds: list[int]) -> Floats:
        """Return the target's values for perturbed images.

        Parameters
        ----------
        kept : (M, *S) bool
        which : (N,) int
            Index of each image's mask.
        seeds : list of N ints
            Seed of each image's noise.

        Returns
        -------
        (N,)
        """
        masks = torch.from_numpy(which).to(self._image.device)
        images = self._imputed(kept)[masks]
        fields = torch.stack([self._noise_field(seed) for seed in seeds])
        removed = ~torch.from_numpy(kept).to(self._image.device)[masks]
        images.addcmul_(fields, removed[:, None].to(fields))
        values: Floats = self._predict_in_batches(images.to(self._type)).numpy()
        return values

    def _imputed(self, kept: Masks) -> torch.Tensor:
        """Return the imputed images of masks; halve the batch if memory runs out."""
        masks = torch.from_numpy(kept).to(self._image.device)
        try:
            if is_builtin(self._imputer):
                return self._imputer(self._image, masks)
            return run_callback(self._imputer, self._image, masks)
        except (RuntimeError, MemoryError, OutOfMemory) as error:
            if len(kept) == 1 or not is_out_of_memory(error):
                raise
            half = len(kept) // 2
            return torch.cat([self._imputed(part) for part in (kept[:half], kept[half:])])

    def _predict_in_batches(self, images: torch.Tensor) -> torch.Tensor:
        """Return the values of images, in batches that are halved if memory runs out.

        All batches have the same size, because rounding depends on it and the score of a mask must not
        depend on the number of masks.
        """
        size = self.settings.batch_size
        try:
            parts = [self._predict_padded(part, size) for part in images.split(size)]
        except (RuntimeError, MemoryError, OutOfMemory) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            self.settings = replace(self.settings, batch_size=size // 2)
            return self._predict_in_batches(images)
        return torch.cat(parts)

    def _predict_padded(self, part: torch.Tensor, size: int) -> torch.Tensor:
        count = len(part)
        if count < size:
            part = torch.cat([part, part[-1:].expand(size - count, *part.shape[1:])])
        return self._values(self._forward, part)[:count]

    def _values(self, forward: Forward, images: torch.Tensor) -> torch.Tensor:
        """Return the target's value for each image, (B,) float64 on the CPU."""
        is_copy = forward.net is not self._networks.original.net
        # Not for the user's network: tensors it stores would be inference tensors and break training.
        with torch.inference_mode() if is_copy else nullcontext():
            values = run_callback(self._target.value, forward(images)).cpu().double().reshape(-1)
        if len(values) != len(images):
            raise ValueError(f"{len(values)} values for {len(images)} images")
        return values
