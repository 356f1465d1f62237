"""Images beside warped copies of themselves: pairs whose correspondence is known exactly, without any label."""

from __future__ import annotations

import math
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from paka.sources import KeypointPair, Source

TURN = 30.0  # assumed, as all ranges here
"""Degrees that a copy is turned by at most, either way."""
SCALE = 4 / 3
"""Factor that it is enlarged or shrunk by at most."""
SHIFT = (0.15, 0.3)
"""Shares of the longer side that it is moved by along it, at least and at most, either way; across it, up to half the most, of
the shorter side."""
TILT = 0.15
"""How much nearer or farther one end of the longer side is than the middle at most: perspective."""
GREY = 128
"""Value of what lies outside the image; a reflection would show points a second time."""
GRID = 9
"""Points along each side; odd, so that the middle is one of them: it moves by the shift alone, and stays in the copy."""
LEAST_MOVE = SHIFT[0]
"""Share of the longer side up to which points that move less are left out: tokens of nothing but position would find them."""


class WarpPairs(Source):
    """Each image twice: image 2 i is image i of the source, image 2 i + 1 a copy that is turned, scaled, moved and tilted.

    The points of a pair are those of a regular grid over the image that the copy shows, and shows elsewhere; distances are
    measured by the longer side of the image. A warp is a function of seed and index. Masks and depth are left out.

    Args:
        source: Images, labelled or not.
        seed: Seed of the warps.
    """

    def __init__(self, source: Source, *, seed: int) -> None:
        self.source, self.seed = source, seed
        self.name, self.split = source.name, source.split
        self.variant = (*source.variant, "warped", seed, TURN, SCALE, *SHIFT, TILT, GREY)
        self._sizes: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        """Return the number of images and copies."""
        return 2 * len(self.source)

    def item(self, index: int) -> str:
        """Return what the source calls the image, and whether this is its copy."""
        return self.source.item(index // 2) + " (warped)" * (index % 2)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return an image of the source or its copy, (H, W, 3) uint8 RGB."""
        image = self.source.image(index // 2)
        self._sizes[index // 2] = image.shape[0], image.shape[1]
        return warped(image, self.warp(index // 2)) if index % 2 else image

    @cached_property
    def pairs(self) -> tuple[KeypointPair, ...]:
        """Each image with its copy; images that were not read yet are, for their sizes."""
        return tuple(self._pair(index) for index in range(len(self.source)))

    def warp(self, index: int) -> NDArray[np.float64]:
        """Return the homography from pixels of image `index` of the source to those of its copy, (3, 3) float64."""
        return draw_warp(*self._size(index), np.random.default_rng([self.seed, index]))

    def _size(self, index: int) -> tuple[int, int]:
        if index not in self._sizes:
            self.image(2 * index)
        return self._sizes[index]

    def _pair(self, index: int) -> KeypointPair:
        height, width = self._size(index)
        steps = (np.arange(GRID) + 0.5) / GRID
        points = np.stack(np.meshgrid(width * steps, height * steps), axis=-1).reshape(-1, 2)
        targets = moved(points, self.warp(index))
        extent = float(max(height, width))
        used = ((targets >= 0) & (targets <= (width, height))).all(axis=1)
        used &= np.linalg.norm(targets - points, axis=1) >= LEAST_MOVE * extent
        shown, where = (side[used].astype(np.float32) for side in (points, targets))
        return KeypointPair(2 * index, 2 * index + 1, shown, where, extent)


def draw_warp(height: int, width: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw a homography of images of one size, (3, 3) float64, on pixels of which the first has its middle at (0.5, 0.5).

    Args:
        height: Height of the image and of its copy in pixels.
        width: Their width.
        generator: Where it is drawn from.
    """
    turn = math.radians(generator.uniform(-TURN, TURN))
    scale = SCALE ** generator.uniform(-1, 1)
    along = generator.uniform(*SHIFT) * generator.choice((-1, 1))
    across = generator.uniform(-SHIFT[1], SHIFT[1]) / 2
    shift = (along * width, across * height) if width >= height else (across * width, along * height)
    tilt = generator.uniform(-TILT, TILT, 2)
    reach = max(height, width) / 2
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    centred = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    perspective = np.array([[1, 0, 0], [0, 1, 0], [*(tilt / reach), 1]])
    similarity = np.array([[cos, -sin, width / 2 + shift[0]], [sin, cos, height / 2 + shift[1]], [0, 0, 1]])
    return np.asarray(similarity @ perspective @ centred)


def moved(points: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where a homography (3, 3) takes points (m, 2)."""
    lifted = points @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(lifted[:, :2] / lifted[:, 2:])


def warped(image: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) moved by a homography of its pixels, at the same size and grey where it shows nothing."""
    # OpenCV has the middle of the first pixel at (0, 0).
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    pixels: NDArray[np.uint8] = cv2.warpPerspective(  # type: ignore[assignment]
        image,
        np.linalg.inv(half) @ matrix @ half,
        image.shape[1::-1],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(GREY, GREY, GREY),
    )
    return pixels
