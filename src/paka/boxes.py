"""Crop boxes of an image: how they are drawn, and how much of one lies inside another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the source image; right and bottom are exclusive."""


def containment(inner: Box, outer: Box) -> float:
    """Return the share of `inner`'s own area that lies inside `outer`, in [0, 1] (GLIM's measure)."""
    return intersection_area(inner, outer) / area(inner)


def intersection_area(a: Box, b: Box) -> int:
    """Return the area in pixels that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def area(box: Box) -> int:
    """Return the area of a box in pixels."""
    return (box[2] - box[0]) * (box[3] - box[1])


def draw_box(
    rng: np.random.Generator, shape: tuple[int, int], scale: Sequence[float], ratio: Sequence[float]
) -> Box:
    """Draw a crop of random area, aspect and position inside an image of `shape` (H, W).

    Args:
        rng: Source of randomness.
        shape: Height and width of the image in pixels.
        scale: Smallest and largest area as a fraction of the image's.
        ratio: Smallest and largest width / height, drawn on a log scale; sides are clipped to the image.
    """
    width, height = _draw_size(rng, shape, scale, ratio, limit=shape)
    left = int(rng.integers(shape[1] - width + 1))
    top = int(rng.integers(shape[0] - height + 1))
    return left, top, left + width, top + height


def draw_inside(
    rng: np.random.Generator,
    shape: tuple[int, int],
    parent: Box,
    scale: Sequence[float],
    ratio: Sequence[float],
    least: float,
) -> Box:
    """Draw a crop of which at least the share `least` lies inside `parent`, without rejection.

    The overhang is drawn first, as a share in [least, 1] split at random between the two axes, and bounds
    how far the crop may stick out of the parent. Sides are clipped to the parent's.
    """
    parent_size = parent[3] - parent[1], parent[2] - parent[0]
    width, height = _draw_size(rng, shape, scale, ratio, limit=parent_size)
    inside, split = rng.uniform(least, 1.0), rng.uniform()
    overhang_x = int((1.0 - inside**split) * width)
    overhang_y = int((1.0 - inside ** (1.0 - split)) * height)
    left = _draw_offset(rng, parent[0], parent[2], width, overhang_x, shape[1])
    top = _draw_offset(rng, parent[1], parent[3], height, overhang_y, shape[0])
    return left, top, left + width, top + height


def _draw_size(
    rng: np.random.Generator,
    shape: tuple[int, int],
    scale: Sequence[float],
    ratio: Sequence[float],
    limit: tuple[int, int],
) -> tuple[int, int]:
    area = shape[0] * shape[1] * rng.uniform(scale[0], scale[1])
    aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
    width = int(np.clip(round(np.sqrt(area * aspect)), 1, limit[1]))
    height = int(np.clip(round(np.sqrt(area / aspect)), 1, limit[0]))
    return width, height


def _draw_offset(rng: np.random.Generator, low: int, high: int, side: int, overhang: int, bound: int) -> int:
    first = max(low - overhang, 0)
    last = min(high - side + overhang, bound - side)
    return int(rng.integers(first, last + 1))
