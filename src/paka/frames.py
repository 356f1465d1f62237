"""The frame: where images of any shape lie on one grid of patch tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from paka.resizing import Interpolation, resize
from paka.sources import VOID

Values = TypeVar("Values", np.uint8, np.float32)


@dataclass(frozen=True)
class Frame:
    """A grid of tokens that images of any shape are brought to.

    Attributes:
        rows: Rows of tokens.
        columns: Columns of tokens.
        patch: Side of a patch in pixels.
        aspect: `keep` scales an image to the largest size that fits, in whole patches, at the top left; what is left
            of the frame belongs to no class. `stretch` fills the frame, as most published protocols do.
        interpolation: Filter that images are resized with, see `paka.resizing.resize`.
    """

    rows: int
    columns: int
    patch: int
    aspect: Literal["keep", "stretch"] = "keep"
    interpolation: Interpolation = "area"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rows * self.patch, self.columns * self.patch

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of tokens that an image of this size gets, at least 1 each."""
        if self.aspect == "stretch":
            return self.rows, self.columns
        scale = min(self.rows / height, self.columns / width)
        return (
            min(max(round(height * scale), 1), self.rows),
            min(max(round(width * scale), 1), self.columns),
        )

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image (H, W, 3) as the encoder sees it: resized, and nothing around it."""
        return resize(image, self._pixels(image), self.interpolation)

    def picture(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image (H, W, 3) in the whole frame, on white."""
        return self._placed(self.image(image), 255)

    def mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return class ids (H, W) in the whole frame, by nearest neighbour; what is around them is void."""
        return self._placed(self._nearest(mask), VOID)

    def depth(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return depth (H, W) in the whole frame, by nearest neighbour; around it, it is not known: 0."""
        return self._placed(self._nearest(depth), 0)

    def _pixels(self, image: NDArray[Values]) -> tuple[int, int]:
        rows, columns = self.fit(*image.shape[:2])
        return rows * self.patch, columns * self.patch

    def _nearest(self, image: NDArray[Values]) -> NDArray[Values]:
        resized: NDArray[Values] = cv2.resize(  # type: ignore[assignment]
            image, self._pixels(image)[::-1], interpolation=cv2.INTER_NEAREST_EXACT
        )
        return resized

    def _placed(self, image: NDArray[Values], fill: int) -> NDArray[Values]:
        placed = np.full((*self.size, *image.shape[2:]), fill, dtype=image.dtype)
        placed[: image.shape[0], : image.shape[1]] = image
        return placed
