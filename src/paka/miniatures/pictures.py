"""Generated pictures with class ids: coloured ellipses on a gradient, one colour a class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Image (H, W, 3) uint8 and class ids (H, W) uint8."""

SHAPES = 6
"""Ellipses in a picture."""


def picture(index: int, *, classes: int, height: int = 96, width: int = 128, seed: int = 0) -> Picture:
    """Return a picture and the class of each of its pixels.

    Every class occurs in some picture once there are more pictures than `classes / 7`.

    Args:
        index: Number of the picture; each has other shapes.
        classes: Number of classes, at least 1.
        height: Rows in pixels.
        width: Columns in pixels.
        seed: Seed of all pictures.
    """
    rng = np.random.default_rng([seed, index])
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    first = index * (SHAPES + 1)
    ids = np.full((height, width), first % classes, dtype=np.uint8)
    for shape in range(1, SHAPES + 1):
        centre = rng.uniform(0.1, 0.9, 2) * (height, width) / max(height, width)
        radii = rng.uniform(0.08, 0.22, 2)
        inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
        ids[inside] = (first + shape) % classes
    colours = np.random.default_rng([seed, classes, 1]).integers(30, 226, (classes, 3))
    shaded = colours[ids] + 40.0 * (y - 0.5)[..., None] + rng.normal(0, 8, (height, width, 1))
    return shaded.clip(0, 255).astype(np.uint8), ids
