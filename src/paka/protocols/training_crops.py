"""Labelled crops for training a segmenter: random scale, no crop of nearly one class, random flip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from paka.boxes import Box
from paka.datamodule import Key
from paka.protocols.finetune_settings import Recolour
from paka.resizing import Interpolation
from paka.sources import VOID, Source
from paka.views import render

TRIES = 10
"""Boxes that are drawn at most until one is not nearly all one class; then the last is taken."""

LONGEST = 4
"""Longest side of an image, in multiples of what its shortest side is scaled to: 2048 to 512, as published."""


class Crops(NamedTuple):
    """Labelled crops of B images.

    Attributes:
        images: (B, 3, S, S) uint8.
        labels: Class ids with 255 for void, (B, S, S) uint8.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class CropDataset(Dataset[Crops]):
    """Crops of a source's images by (epoch, index); each is a function of that and the seed.

    Attributes:
        source: Labelled images.
        seed: Seed of the crops.
        size: Side S of a crop in pixels.
        short_side: What the shorter side of an image is scaled to, before the random scale.
        scales: Range of the random scale.
        flip: Probability of mirroring a crop left to right.
        largest_share: Share of the labelled pixels that one class may have.
        fill: Colour around images that are smaller than a crop.
        photometric: Change of colours; None for none.
        interpolation: Filter that images are resized with.
    """

    source: Source
    seed: int
    size: int
    short_side: int
    scales: tuple[float, float]
    flip: float
    largest_share: float
    fill: tuple[int, int, int]
    photometric: Recolour | None = None
    interpolation: Interpolation = "area"

    def __getitem__(self, key: Key) -> Crops:
        """Return one crop, (3, S, S) and (S, S)."""
        epoch, index = key
        image, mask = self.source.image(index), self.source.mask(index)
        rng = np.random.default_rng([self.seed, epoch, index])
        scale = fitted_scale(mask.shape, self.short_side) * rng.uniform(*self.scales)
        box = self.draw(rng, mask, scale)
        size = self._drawn_size(box, scale)
        flip = bool(rng.random() < self.flip)
        pixels = render(image, box, size, flip=flip, interpolation=self.interpolation)
        labels = render_mask(mask, box, size, flip=flip)
        if self.photometric is not None:
            pixels = self.photometric(pixels, rng)
        return Crops(
            torch.from_numpy(_padded(pixels, self.size, self.fill)).permute(2, 0, 1).contiguous(),
            torch.from_numpy(_padded(labels, self.size, (VOID,))[..., 0]),
        )

    def draw(self, rng: np.random.Generator, mask: NDArray[np.uint8], scale: float) -> Box:
        """Draw a box that is S pixels wide and high once it is scaled, or as much of that as the image has."""
        height, width = (min(max(round(self.size / scale), 1), side) for side in mask.shape)
        for _ in range(TRIES):
            top = int(rng.integers(mask.shape[0] - height + 1))
            left = int(rng.integers(mask.shape[1] - width + 1))
            if varied(mask[top : top + height, left : left + width], self.largest_share):
                break
        return left, top, left + width, top + height

    def _drawn_size(self, box: Box, scale: float) -> tuple[int, int]:
        """Return height and width of a box once it is scaled; sides cut from a longer one are S, whole pixels or not."""
        height, width = (
            min(max(round(side * scale), 1), self.size) for side in (box[3] - box[1], box[2] - box[0])
        )
        whole = round(self.size / scale)
        return (
            self.size if box[3] - box[1] == whole else height,
            self.size if box[2] - box[0] == whole else width,
        )


def collate(crops: Sequence[Crops]) -> Crops:
    """Stack single crops to a batch."""
    return Crops(*(torch.stack(parts) for parts in zip(*crops, strict=True)))


def fitted_scale(shape: Sequence[int], short_side: int) -> float:
    """Return the factor that brings the shorter side to `short_side`, less where the longer one would pass four times it."""
    return min(short_side / min(shape), LONGEST * short_side / max(shape))


def varied(labels: NDArray[np.uint8], largest_share: float) -> bool:
    """Return whether labels have two classes or more, and none of them that share of the labelled pixels."""
    counts = np.bincount(labels[labels != VOID], minlength=1)
    return int((counts > 0).sum()) > 1 and bool(counts.max() < largest_share * counts.sum())


def render_mask(mask: NDArray[np.uint8], box: Box, size: tuple[int, int], *, flip: bool) -> NDArray[np.uint8]:
    """Return what `paka.views.render` shows of a mask, by nearest neighbour: (*size, 1) uint8."""
    left, top, right, bottom = box
    crop = np.ascontiguousarray(mask[top:bottom, left:right])
    resized: NDArray[np.uint8] = cv2.resize(  # type: ignore[assignment]
        crop, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT
    )
    return np.ascontiguousarray(resized[:, ::-1] if flip else resized)[..., None]


def _padded(pixels: NDArray[np.uint8], side: int, fill: Sequence[int]) -> NDArray[np.uint8]:
    padded = np.empty((side, side, pixels.shape[2]), dtype=np.uint8)
    padded[:] = fill
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return padded
