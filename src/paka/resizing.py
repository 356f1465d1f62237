"""Resizing of images by named filters."""

from __future__ import annotations

from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = TypeVar("Pixels", np.uint8, np.float32)
Interpolation = Literal["area", "bilinear", "bicubic"]

ANTIALIASED = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""Pillow's filters, which grow with the factor that an image shrinks by."""

INTERPOLATIONS: tuple[Interpolation, ...] = ("area", "bilinear", "bicubic")
"""Names of all filters."""


def resize(
    image: NDArray[Pixels], size: tuple[int, int], interpolation: Interpolation = "area"
) -> NDArray[Pixels]:
    """Return an image at another size.

    Pixel centres map linearly, `source = (target + 0.5) * old / new - 0.5`, for all filters.

    Args:
        image: (H, W, 3) uint8, or float32 with `area`.
        size: Height and width of the result in pixels.
        interpolation: `area` averages what shrinks and interpolates linearly what grows. `bilinear` and `bicubic` are
            Pillow's, which published evaluations resize with.

    Raises:
        ValueError: There is no such filter.
    """
    if interpolation in ANTIALIASED:
        resized = Image.fromarray(image).resize(size[::-1], ANTIALIASED[interpolation])
        return np.array(resized, dtype=image.dtype)
    if interpolation != "area":
        expected = ", ".join(INTERPOLATIONS)
        raise ValueError(f"expected interpolation to be one of {expected}, got {interpolation!r}")
    # OpenCV's area filter is exact only where both sides shrink; elsewhere it quietly changes its geometry.
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    found: NDArray[Pixels] = cv2.resize(  # type: ignore[assignment]
        image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return found
