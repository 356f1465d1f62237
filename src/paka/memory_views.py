"""Training images as the published in-context protocol puts them into its memory: several times, changed each time."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from paka.sources import Source

SCALE = (0.5, 2.0)
"""Area of a crop as a share of the image's; above 1 it never fits, as published."""
RATIO = (3 / 4, 4 / 3)
"""Width to height of a crop."""
TRIES = 10
"""Draws until one fits; then the largest centre crop of an allowed shape is taken."""
JITTER = 0.1
"""Strength of each of the four changes of colour, each made with probability 0.5."""


class MemoryViews(Source):
    """Each image of a source `passes` times, the passes one after another, cropped and with changed colours.

    A view is a function of seed and index, the same for the image, its mask and its depth.

    Args:
        source: Labelled images.
        passes: Times each image is there.
        augment: Whether images are changed at all.
        seed: Seed of the changes.

    Source: Hummingbird (Balazevic et al., 2023, arXiv 2306.01667) as its public reimplementation trains it.
    """

    def __init__(self, source: Source, *, passes: int, augment: bool, seed: int) -> None:
        self.source, self.passes, self.augment, self.seed = source, passes, augment, seed
        self.name, self.split, self.tag_names = source.name, source.split, source.tag_names
        self.has_depth = source.has_depth
        self.variant = ("memory", passes, augment, seed)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask classes of the source."""
        return self.source.classes

    @property
    def palette(self) -> NDArray[np.uint8]:
        """Colours of the mask classes of the source."""
        return self.source.palette

    def __len__(self) -> int:
        """Return the number of views."""
        return self.passes * len(self.source)

    def item(self, index: int) -> str:
        """Return what the image of view `index` is called."""
        return self.source.item(index % len(self.source))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return view `index`, (h, w, 3) uint8 RGB."""
        image = self.source.image(index % len(self.source))
        if not self.augment:
            return image
        generator = self._generator(index)
        crop = _crop(image, generator)
        return recolour(crop, generator)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the class ids of view `index`, (h, w) uint8 with 255 for void."""
        mask = self.source.mask(index % len(self.source))
        return _crop(mask, self._generator(index)) if self.augment else mask

    def depth(self, index: int) -> NDArray[np.float32]:
        """Return the depth of view `index`, (h, w) float32 in metres."""
        depth = self.source.depth(index % len(self.source))
        return _crop(depth, self._generator(index)) if self.augment else depth

    def tags(self, index: int) -> NDArray[np.bool_]:
        """Return the tags of the image of view `index`."""
        return self.source.tags(index % len(self.source))

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, index])


def _crop(image: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    left, top, width, height = crop_box(image.shape[1], image.shape[0], generator)
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def crop_box(width: int, height: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw left, top, width and height of a crop, in whole pixels."""
    for _ in range(TRIES):
        area = width * height * generator.uniform(*SCALE)
        ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = generator.integers(width - w + 1), generator.integers(height - h + 1)
            return int(left), int(top), w, h
    w = min(width, round(height * RATIO[1]))
    h = min(height, round(width / RATIO[0]))
    return (width - w) // 2, (height - h) // 2, w, h


def recolour(image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Change brightness, contrast, saturation and hue of an image (H, W, 3), each with probability 0.5."""
    changed = image.astype(np.float32)
    chosen, strengths = generator.random(4) < 0.5, generator.uniform(1 - JITTER, 1 + JITTER, 4)
    grey = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    if chosen[0]:
        changed = (changed * strengths[0]).clip(0, 255)
    if chosen[1]:
        mean = (changed @ grey).mean()
        changed = (mean + strengths[1] * (changed - mean)).clip(0, 255)
    if chosen[2]:
        plain = (changed @ grey)[..., None]
        changed = (plain + strengths[2] * (changed - plain)).clip(0, 255)
    pixels = changed.round().astype(np.uint8)
    return _turned(pixels, 180 * (strengths[3] - 1)) if chosen[3] else pixels


def _turned(image: NDArray[np.uint8], steps: float) -> NDArray[np.uint8]:
    """Turn the hue by `steps` of 2 degrees, of which OpenCV's circle has 180."""
    colours = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    colours[..., 0] = (colours[..., 0].astype(np.int16) + round(steps)) % 180
    turned: NDArray[np.uint8] = cv2.cvtColor(colours, cv2.COLOR_HSV2RGB)  # type: ignore[assignment]
    return turned
