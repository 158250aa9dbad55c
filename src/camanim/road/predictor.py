"""Masks in, the target's values out: impute, add noise, ask the network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from camanim.errors import OutOfMemory
from camanim.execution.control_flow import ValueAccessDetector
from camanim.execution.fast_copy import FACTORS
from camanim.execution.forward import Forward
from camanim.model_state import is_out_of_memory, run_callback
from camanim.road.imputation import Imputer, is_own
from camanim.road.inference_settings import ConfiguredNetworks, InferenceSettings, SpeedMeasurement
from camanim.road.masks import Masks
from camanim.road.plan import HELD

if TYPE_CHECKING:
    from camanim.targets import Target

Floats = npt.NDArray[np.float64]

#: Images below which a measurement costs more than it gains; share of the images that one may cost.
FEW, BUDGET = 200, 0.06
#: Images that are imputed together, as solvers work best on several, and numbers that they may have.
TOGETHER, NUMBERS = 16, 2**23
#: Largest relative difference that rounding in a batch explains, of networks in single and in half
#: precision.
SAME, SAME_HALF = 1e-3, 3e-2


class Predictor:
    """Asks a network about perturbed images.

    Parameters
    ----------
    forward : Forward
        Within `Forward.evaluating`.
    image : torch.Tensor
        (1, C, *S), on the network's device and of its type.
    target : Target
    noise : float
        Standard deviation of what is added to imputed pixels; one field per seed serves all masks.
    imputer : Imputer

    Attributes
    ----------
    before : float
        The target's value for the image itself.
    alone : bool
        Whether the network must see one image at a time: it looks at values to find its way, takes no
        batches, or answers otherwise in one.
    form : InferenceSettings
        How the network is asked.
    """

    def __init__(
        self,
        forward: Forward,
        image: torch.Tensor,
        target: Target,
        noise: float,
        imputer: Imputer,
    ) -> None:
        self._forms, self._imputer, self._target = (
            ConfiguredNetworks(forward, image),
            imputer,
            target,
        )
        self._image, self._type = image[0].float(), image.dtype
        self._noise, self._scale = dict[int, torch.Tensor](), noise
        self._forward = forward
        with ValueAccessDetector() as detector:
            output = forward(image)
        self.before = float(run_callback(target.value, output)[0])
        self.alone = detector.detected or self._mixes(image)
        self.form = InferenceSettings()

    def _mixes(self, image: torch.Tensor) -> bool:
        """Whether the network takes no batches, or answers otherwise in one."""
        batch = torch.cat([image * factor for factor in FACTORS])
        try:
            values = self._values(self._forward, batch)
        except (RuntimeError, ValueError, AssertionError, IndexError, TypeError, MemoryError):
            # It takes no batches, or there is no memory for one.
            return True
        scale = max(abs(self.before), float(values.abs().max()), 1e-12)
        same = SAME if self._type in (torch.float32, torch.float64) else SAME_HALF
        return not bool((values[0] - self.before).abs() <= same * scale)

    def _field(self, seed: int) -> torch.Tensor:
        """Draw a seed's noise; of many repeats a few are held."""
        if seed not in self._noise:
            if len(self._noise) >= HELD:
                self._noise.clear()
            # On the CPU, so that a GPU has the same noise.
            generator = torch.Generator("cpu").manual_seed(seed)
            field = torch.randn(self._image.shape, generator=generator, device="cpu")
            self._noise[seed] = self._scale * field.to(self._image.device)
        return self._noise[seed]

    @property
    def at_once(self) -> int:
        """How many images to ask about at a time: what memory is needed for grows with it."""
        fitting = max(1, NUMBERS // self._image.numel())
        return max(self.form.batch_size, min(TOGETHER, fitting))

    def has(self, form: InferenceSettings) -> bool:
        """Whether the network can be had in a form."""
        return self._forms.has(form.memory_format)

    def take(self, form: InferenceSettings) -> None:
        """Ask in this form from now on."""
        self._forward, self.form = self._forms(form), form

    def measurement(
        self, kept: Masks, budget: float, report: Callable[[], None]
    ) -> SpeedMeasurement:
        """Prepare to find the form that answers fastest."""
        return SpeedMeasurement(
            self._forms,
            self._values,
            self._imputed(kept).to(self._type),
            budget,
            probabilities=self._target.unit == "probability",
            report=report,
        )

    def __call__(self, kept: Masks, which: npt.NDArray[np.intp], seeds: list[int]) -> Floats:
        """Predict perturbed images.

        Parameters
        ----------
        kept : (M, *S) bool
        which : (N,) int
            For each image its mask.
        seeds : list of N ints
            For each image the seed of its noise.

        Returns
        -------
        (N,)
        """
        masks = torch.from_numpy(which).to(self._image.device)
        images = self._imputed(kept)[masks]
        fields = torch.stack([self._field(seed) for seed in seeds])
        removed = ~torch.from_numpy(kept).to(self._image.device)[masks]
        images.addcmul_(fields, removed[:, None].to(fields))
        values: Floats = self._in_parts(images.to(self._type)).numpy()
        return values

    def _imputed(self, kept: Masks) -> torch.Tensor:
        """Impute, half of the masks at a time where memory runs out."""
        masks = torch.from_numpy(kept).to(self._image.device)
        try:
            if is_own(self._imputer):
                return self._imputer(self._image, masks)
            return run_callback(self._imputer, self._image, masks)
        except (RuntimeError, MemoryError, OutOfMemory) as error:
            if len(kept) == 1 or not is_out_of_memory(error):
                raise
            half = len(kept) // 2
            return torch.cat([self._imputed(part) for part in (kept[:half], kept[half:])])

    def _in_parts(self, images: torch.Tensor) -> torch.Tensor:
        """Ask in batches, halved whenever memory runs out.

        Every batch has the same size: a network rounds otherwise in another, and what a mask scores must
        not depend on how many others there are.
        """
        size = self.form.batch_size
        try:
            parts = [self._filled(part, size) for part in images.split(size)]
        except (RuntimeError, MemoryError, OutOfMemory) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            self.form = InferenceSettings(size // 2, self.form.memory_format, self.form.precision)
            return self._in_parts(images)
        return torch.cat(parts)

    def _filled(self, part: torch.Tensor, size: int) -> torch.Tensor:
        count = len(part)
        if count < size:
            part = torch.cat([part, part[-1:].expand(size - count, *part.shape[1:])])
        return self._values(self._forward, part)[:count]

    def _values(self, forward: Forward, images: torch.Tensor) -> torch.Tensor:
        """Ask what the target is worth for each of the images, (B,) float64 on the CPU."""
        own = forward.net is self._forms.own.net
        # A network of the user's may keep what it computes, and could not be trained with it then.
        with nullcontext() if own else torch.inference_mode():
            values = run_callback(self._target.value, forward(images)).cpu().double().reshape(-1)
        if len(values) != len(images):
            raise ValueError(f"{len(values)} answers for {len(images)} images")
        return values
