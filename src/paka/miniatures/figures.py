"""Generated figures whose keypoints are known: five coloured discs in the arrangement of their kind, turned and scaled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paka.miniatures.files import shares

PARTS = 5
"""Discs of a figure, one of which is hidden."""

LEAST = 10
"""Pictures from which on each of three splits has a pair."""

_COLOURS = np.array([(214, 39, 40), (255, 221, 60), (44, 160, 44), (31, 119, 220), (200, 90, 220)])


class Figure(NamedTuple):
    """A picture of a figure.

    Attributes:
        image: (H, W, 3) uint8.
        points: x and y of the middle of each part that is seen, by its number, in whole pixels from 0 at the top left.
        box: Left, top, right and bottom of the figure, in pixels.
    """

    image: NDArray[np.uint8]
    points: dict[int, tuple[int, int]]
    box: tuple[int, int, int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]


def figure(index: int, *, kind: int, seed: int = 0) -> Figure:
    """Return a picture of a figure, upright or wide by turns.

    Args:
        index: Number of the picture; each shows its figure elsewhere.
        kind: Which arrangement, of colours too.
        seed: Seed of all pictures.
    """
    rng = np.random.default_rng([seed, index, 2])
    height, width = ((96, 128), (128, 96))[index % 2]
    y, x = np.mgrid[0:height, 0:width]
    image = 110.0 + 60.0 * (y / height)[..., None] + rng.normal(0, 6, (height, width, 1))
    image = np.repeat(image, 3, axis=2)
    centre, reach = rng.uniform(0.42, 0.58, 2) * (width, height), rng.uniform(22, 34)
    turn, hidden = rng.uniform(-0.4, 0.4), int(rng.integers(PARTS))
    points = {}
    for part in range(PARTS):
        angle = turn + 2 * math.pi * part / PARTS + kind
        place = centre + reach * (0.6 + 0.4 * (part % 2)) * np.array([math.cos(angle), math.sin(angle)])
        column, row = (round(float(one)) for one in place)
        if part != hidden:
            image[(x - column) ** 2 + (y - row) ** 2 < (0.32 * reach) ** 2] = _COLOURS[(part + kind) % PARTS]
            points[part] = (column, row)
    corners = (*(centre - 1.25 * reach), *(centre + 1.25 * reach))
    left, top, right, bottom = np.clip(np.round(corners), 0, (width, height) * 2).astype(int).tolist()
    return Figure(image.clip(0, 255).astype(np.uint8), points, (left, top, right, bottom))


def kinds(images: int, splits: tuple[str, ...]) -> dict[str, dict[int, int]]:
    """Return the kind of each picture by its number, for each split: two of one kind, two of the other, and so on.

    Args:
        images: Pictures in all; fewer than `LEAST` are as many.
        splits: Names of the splits.
    """
    parts = shares(max(images, LEAST), splits)
    return {split: {i: (i - part.start) // 2 % 2 for i in part} for split, part in parts.items()}


def pairs(kind_of: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Yield every two different pictures of one kind, both ways."""
    yield from (
        (one, other)
        for one, kind in kind_of.items()
        for other in kind_of
        if one != other and kind_of[other] == kind
    )
