"""Imputers of published measures other than ROAD: blur and mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class BlurImputer:
    """Fill removed pixels with the blurred image, as in insertion (Petsiuk et al., BMVC 2018).

    Parameters
    ----------
    sigma : float
        Standard deviation of the Gaussian, as a fraction of the image's longest side: 5 pixels of 224,
        as published. The kernel is truncated at 3 sigma, and renormalised at the border.
    """

    sigma: float = 5 / 224

    def __call__(self, image: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Return the imputed images; see `Imputer`. A mask may keep no pixel."""
        from skimage.filters import gaussian

        sigma = self.sigma * max(image.shape[1:])
        pixels = image.float().cpu().numpy()
        total, weight = (
            gaussian(array, sigma, mode="constant", truncate=3.0, channel_axis=0)
            for array in (pixels, np.ones_like(pixels))
        )
        blurred = torch.from_numpy(total / weight).to(image)
        return torch.where(kept[:, None], image, blurred)


@dataclass(frozen=True)
class MeanImputer:
    """Fill removed pixels with the mean of each channel of the image."""

    def __call__(self, image: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Return the imputed images; see `Imputer`. A mask may keep no pixel."""
        mean = image.flatten(1).mean(1).view(-1, *[1] * (image.ndim - 1))
        return torch.where(kept[:, None], image, mean)
