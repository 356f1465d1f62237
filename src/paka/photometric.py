"""Photometric augmentation of a view: colour jitter, grey, blur, solarization and erasure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import albumentations as A
import numpy as np
from numpy.typing import NDArray

GRAY = np.uint8(128)
"""What erased cells are painted with."""


@dataclass(frozen=True)
class Photometric:
    """Colour jitter, grey, blur, solarization and erasure of a view, in this order.

    The defaults are those of `conf/augmentation/paka.yaml`.

    Attributes:
        brightness: Brightness and, below, contrast and saturation are scaled by a factor in [1 - x, 1 + x].
        contrast: See `brightness`.
        saturation: See `brightness`.
        hue: The hue is shifted by [-hue, hue] turns.
        jitter_probability: Probability of the colour jitter.
        gray_probability: Probability of dropping the colour.
        blur_probability: Probability of a Gaussian blur.
        blur_sigma: Range of the blur's standard deviation in pixels of the view.
        solarize_probability: Probability of inverting the channel values above the middle of their range.
        erase: Probability of painting a cell of the view grey.
        erase_cell: Side of these square cells in pixels of the view.
    """

    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    jitter_probability: float = 0.8
    gray_probability: float = 0.2
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_probability: float = 0.0
    erase: float = 0.0
    erase_cell: int = 8

    @cached_property
    def pipeline(self) -> A.Compose:
        """The transforms in albumentations' terms."""
        jitter = A.ColorJitter(
            brightness=_around_one(self.brightness),
            contrast=_around_one(self.contrast),
            saturation=_around_one(self.saturation),
            hue=(-self.hue, self.hue),
            p=self.jitter_probability,
        )
        blur = A.GaussianBlur(blur_limit=0, sigma_limit=tuple(self.blur_sigma), p=self.blur_probability)
        # Every transform draws from the pipeline's stream, so one that is never applied is left out.
        solarize = [A.Solarize(p=self.solarize_probability)] if self.solarize_probability else []
        return A.Compose([jitter, A.ToGray(p=self.gray_probability), blur, *solarize])

    def __call__(self, view: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return an augmented copy of `view`, (H, W, 3) uint8, as a function of `rng` alone."""
        # Albumentations repeats one stream in every worker unless each sample seeds it.
        self.pipeline.set_random_seed(int(rng.integers(2**31)))
        augmented: NDArray[np.uint8] = self.pipeline(image=view)["image"]
        return self._erase(augmented, rng) if self.erase else augmented

    def _erase(self, view: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        height, width = view.shape[:2]
        cells = rng.random((-(-height // self.erase_cell), -(-width // self.erase_cell))) < self.erase
        erased = np.kron(cells, np.ones((self.erase_cell, self.erase_cell), bool))[:height, :width]
        return np.where(erased[..., None], GRAY, view)


def _around_one(strength: float) -> tuple[float, float]:
    return max(0.0, 1.0 - strength), 1.0 + strength
