"""Image sources: where images, and for benchmarks their masks, come from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

VOID = 255
"""Mask value of pixels that no class is known for; every protocol leaves them out."""


class Source(Protocol):
    """One split of a data set, indexed from 0; every item is read on demand.

    Attributes:
        name: Name of the data set, as reports print it.
        split: `train`, `val` or `test`.
        tag_names: Names of the image-level tags; empty without tags.
    """

    name: str
    split: str
    tag_names: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask classes, in order of their ids; empty without masks."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index` as RGB, (H, W, 3) uint8; it may be read-only."""
        ...

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the class ids of image `index`, (H, W) uint8 with 255 for void.

        Raises:
            LookupError: The source has no masks.
        """
        ...

    def tags(self, index: int) -> NDArray[np.bool_]:
        """Return which tags image `index` carries, (T,) bool in the order of `tag_names`."""
        ...
