"""Simpler ways to fill removed pixels, for measures that were published with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class BlurImputer:
    """Fill removed pixels with the blurred image, as insertion has it (Petsiuk et al., BMVC 2018).

    Parameters
    ----------
    sigma : float
        Standard deviation of the Gaussian, as a share of the image's longest side: 5 pixels of 224,
        as published. It is cut off at three of them.
    """

    sigma: float = 5 / 224

    def __call__(self, image: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Impute; see `Imputer`. Nothing need be kept."""
        return torch.where(kept[:, None], image, self._blurred(image))

    def _blurred(self, image: torch.Tensor) -> torch.Tensor:
        ndim, sigma = image.ndim - 1, self.sigma * max(image.shape[1:])
        radius = max(1, round(3 * sigma))
        steps = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image.device)
        kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
        blurred = image[:, None].float()
        inside = torch.ones_like(blurred[:1])
        convolve = getattr(functional, f"conv{ndim}d")
        for axis in range(ndim):
            shape = [len(kernel) if a == axis else 1 for a in range(ndim)]
            padding = [radius if a == axis else 0 for a in range(ndim)]
            weight = kernel.view(1, 1, *shape)
            blurred, inside = (convolve(x, weight, padding=padding) for x in (blurred, inside))
        # Beyond the border nothing counts.
        result: torch.Tensor = (blurred / inside)[:, 0]
        return result


@dataclass(frozen=True)
class MeanImputer:
    """Fill removed pixels with the mean of each channel of the image."""

    def __call__(self, image: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Impute; see `Imputer`. Nothing need be kept."""
        mean = image.flatten(1).mean(1).view(-1, *[1] * (image.ndim - 1))
        return torch.where(kept[:, None], image, mean)
