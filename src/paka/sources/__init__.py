"""Image sources: where images, and for benchmarks their masks, come from."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from paka import colours

VOID = 255
"""Mask value of pixels that no class is known for; every protocol leaves them out."""


class KeypointPair(NamedTuple):
    """Two images of a source, and points of the first with the places in the second that show the same.

    Attributes:
        first: Number of the image that the points are given in.
        second: Number of the image that they are looked for in.
        points: x and y of the points in pixels of the first image, (m, 2) float32; the middle of the pixel at the top
            left is (0.5, 0.5).
        targets: Their places in pixels of the second image, (m, 2) float32.
        extent: What distances in the second image are measured by, in pixels: mostly the longer side of the box around
            the object.
        category: What the pair shows; empty where that is not known.
    """

    first: int
    second: int
    points: NDArray[np.float32]
    targets: NDArray[np.float32]
    extent: float
    category: str = ""


class Source(Protocol):
    """One split of a data set, indexed from 0; every item is read on demand.

    Classes that inherit from it need `__len__`, `item` and `image`; what they do not have is refused or empty.

    Attributes:
        name: Name of the data set, as reports print it.
        split: Name of the split, in the data set's own words.
        tag_names: Names of the image-level tags; empty without tags.
        has_depth: Whether the depth of the images is known.
        variant: How its images were made from those that `item` names, as JSON; empty if they were not.
    """

    name: str
    split: str
    tag_names: tuple[str, ...] = ()
    has_depth: bool = False
    variant: tuple[str | int | float, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask classes, in order of their ids; empty without masks."""
        return ()

    @property
    def palette(self) -> NDArray[np.uint8]:
        """Colours of the mask classes, (C, 3) uint8 RGB: those of the data set's owners where they have any."""
        return colours.palette(len(self.classes))

    @property
    def pairs(self) -> tuple[KeypointPair, ...]:
        """Pairs of images with points that both show; empty without."""
        return ()

    @property
    def videos(self) -> tuple[range, ...]:
        """The images of each video, in the order of time; empty without.

        Their masks hold the numbers of objects, from 1 on and the same through a video, 0 for what is around them
        and 255 for void. A mask that is void everywhere says nothing of its image, which is not scored.
        """
        return ()

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def item(self, index: int) -> str:
        """Return what image `index` is called in messages and lists: its file, or its place in the source."""
        ...

    def label_item(self, index: int) -> str:
        """Return the file that holds the mask or depth of image `index`; empty without one."""
        del index
        return ""

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index` as RGB, (H, W, 3) uint8; it may be read-only.

        Raises:
            ValueError: It cannot be decoded.
        """
        ...

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the class ids of image `index`, (H, W) uint8 with 255 for void.

        Raises:
            LookupError: The source has no masks.
        """
        raise LookupError(
            f"image {self.item(index)} has no mask, because {self.name} {self.split} is unlabelled; "
            "use it as data, and a labelled source as benchmark"
        )

    def depth(self, index: int) -> NDArray[np.float32]:
        """Return the depth of image `index` in metres, (H, W) float32 with 0 where it is not known.

        Raises:
            LookupError: The source has no depth.
        """
        raise LookupError(
            f"image {self.item(index)} has no depth, because {self.name} has none; "
            "choose a benchmark with depth, as benchmark=nyu"
        )

    def tags(self, index: int) -> NDArray[np.bool_]:
        """Return which tags image `index` carries, (T,) bool in the order of `tag_names`."""
        del index
        return np.zeros(len(self.tag_names), dtype=np.bool_)
