"""Photometric distortion: brightness, contrast, saturation and hue of a training crop, each changed half of the time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional

PROBABILITY = 0.5
"""Probability of each of the four changes."""


@dataclass(frozen=True)
class Distortion:
    """Brightness, then contrast, saturation and hue; or saturation and hue, then contrast, as likely.

    Attributes:
        brightness: What is added to all values lies in [-x, x], of values in [0, 255].
        contrast: Range of the factor on all values.
        saturation: Range of the factor on the distance from grey.
        hue: The hue is shifted by [-x, x] turns, x at most 0.5.

    Raises:
        ValueError: A setting is out of range.

    Source: SSD (Liu et al., 2016, arXiv 1512.02325), with the values that segmentation trains with: a hue of 18 in 180.
    """

    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what colours cannot be changed by."""
        ordered = all(0 <= low <= high for low, high in (self.contrast, self.saturation))
        if not ordered or self.brightness < 0 or not 0 <= self.hue <= 0.5:
            message = (
                f"expected ascending factors of at least 0 and a hue in [0, 0.5], got {self}: correct them"
            )
            raise ValueError(message)

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return a distorted copy of an image, (H, W, 3) uint8, as a function of `rng` alone."""
        chosen = rng.random(4) < PROBABILITY
        brightness = rng.uniform(-self.brightness, self.brightness) if chosen[0] else 0.0
        contrast = rng.uniform(*self.contrast) if chosen[1] else 1.0
        saturation = rng.uniform(*self.saturation) if chosen[2] else 1.0
        hue = rng.uniform(-self.hue, self.hue) if chosen[3] else 0.0
        found = _scaled(image, 1.0, brightness)
        if rng.random() < PROBABILITY:
            return _tinted(_scaled(found, contrast, 0.0), saturation, hue)
        return _scaled(_tinted(found, saturation, hue), contrast, 0.0)


def _scaled(image: NDArray[np.uint8], factor: float, offset: float) -> NDArray[np.uint8]:
    """Return `factor * image + offset`, cut off at 0 and 255 and rounded down."""
    values = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset)
    return values.clip(0, 255).astype(np.uint8)[image]


def _tinted(image: NDArray[np.uint8], saturation: float, hue: float) -> NDArray[np.uint8]:
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    if saturation != 1.0:
        pixels = functional.adjust_saturation(pixels, saturation)
    if hue:
        pixels = functional.adjust_hue(pixels, hue)
    return pixels.permute(1, 2, 0).contiguous().numpy()
