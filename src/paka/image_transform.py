"""From a picture to what an encoder takes: uint8 pixels whose sides are whole patches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from paka.resizing import resize
from paka.sources.decode import WITHOUT_8_BIT, read_image


@dataclass(frozen=True)
class ImageTransform:
    """Brings one picture of any shape to an encoder's input.

    The pixel statistics are not its matter: the encoder normalises by itself.

    Attributes:
        patch: Side of a patch in pixels.
        size: Shorter side of the result in pixels, unless a call says otherwise; rounded to whole patches.
    """

    patch: int
    size: int

    def __call__(self, image: Any, *, size: int | Sequence[int] | None = None) -> Tensor:
        """Return a picture as (1, 3, H, W) uint8, with sides that are whole patches.

        Args:
            image: A path, a PIL image, or an RGB (H, W, 3) or grey (H, W) array of uint8. Files and PIL images are turned as
                their EXIF orientation says, and 16 bits become 8.
            size: Shorter side in pixels, the other in proportion; or height and width, which are taken exactly; None takes
                `self.size`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no picture, its values are no 8 or 16 bits, or the height or width that was asked for is not a
                multiple of the patch.
        """
        pixels = _pixels(image)
        resized = resize(pixels, self._sides(*pixels.shape[:2], size=size))
        return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))[None]

    def _sides(self, height: int, width: int, *, size: int | Sequence[int] | None) -> tuple[int, int]:
        """Return height and width in pixels of what a picture of this size becomes."""
        if isinstance(size, Sequence):
            if len(size) != 2 or any(side < 1 or side % self.patch for side in size):
                raise ValueError(
                    f"expected a height and width in multiples of the patch, {self.patch}, got {size}"
                )
            return size[0], size[1]
        scale = (size or self.size) / min(height, width)
        rows, columns = (max(round(side * scale / self.patch), 1) for side in (height, width))
        return rows * self.patch, columns * self.patch


def _pixels(image: Any) -> NDArray[np.uint8]:
    """Return a picture as RGB, (H, W, 3) uint8."""
    if isinstance(image, str | os.PathLike):
        return read_image(image, oriented=True)
    if isinstance(image, Image.Image):
        return _of_pillow(ImageOps.exif_transpose(image))
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(
            f"expected a path, a PIL image or an array (H, W, 3) of uint8, got {type(image).__name__} of {pixels.dtype} and shape {pixels.shape}"
        )
    return pixels


def _of_pillow(image: Image.Image) -> NDArray[np.uint8]:
    """Return a PIL image as RGB; of 16 bits the upper 8 stay, as of files, where Pillow would cut values above 255 off."""
    if image.mode in WITHOUT_8_BIT:
        raise ValueError(
            f"expected a PIL image of 8 or 16 unsigned bits, got one of mode {image.mode}: scale it to uint8"
        )
    if image.mode.startswith("I;16"):
        return _pixels((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image.convert("RGB"))
