"""Images, and perhaps masks, that are already in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paka.sources import VOID, Source


class Arrays(Source):
    """Images in memory, and a mask for each if there are any.

    Args:
        images: Images of any sizes, (H, W, 3) uint8 RGB each.
        masks: Class ids of their pixels, (H, W) uint8 each, counted from 0, with 255 for void; None without.
        classes: Names of the classes, or how many there are; None for as many as the masks have.
        name: What reports call the images.
        split: What reports call this part of them.

    Raises:
        ValueError: There are no images, one has another shape or type, or a mask does not fit its image or the classes.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.uint8]],
        masks: Sequence[NDArray[np.uint8]] | None = None,
        *,
        classes: Sequence[str] | int | None = None,
        name: str = "arrays",
        split: str = "train",
    ) -> None:
        self.name, self.split = name, split
        self.images = [np.asarray(image) for image in images]
        self.masks = None if masks is None else [np.asarray(mask) for mask in masks]
        self._check_images()
        found = 0 if self.masks is None else self._check_masks(self.masks)
        names = found if classes is None else classes
        self._classes = tuple(f"class {n}" for n in range(names)) if isinstance(names, int) else tuple(names)
        if len(self._classes) < found:
            raise ValueError(
                f"expected class ids below {len(self._classes)}, the number of classes, or {VOID} for void, got {found - 1} in "
                f"a mask of {name} {split}: name more classes"
            )

    def _check_images(self) -> None:
        if not self.images:
            raise ValueError(f"expected at least one image of {self.name} {self.split}, got none")
        for index, image in enumerate(self.images):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(
                    f"expected images (H, W, 3) uint8, got {image.shape} {image.dtype} for {self.item(index)}"
                )

    def _check_masks(self, masks: Sequence[NDArray[np.uint8]]) -> int:
        """Return one more than the largest class id."""
        if len(masks) != len(self.images):
            raise ValueError(
                f"expected a mask for each of {len(self.images)} images of {self.name}, got {len(masks)}"
            )
        largest = -1
        for index, (image, mask) in enumerate(zip(self.images, masks, strict=True)):
            if mask.shape != image.shape[:2] or mask.dtype != np.uint8:
                raise ValueError(
                    f"expected a mask {image.shape[:2]} uint8 for {self.item(index)}, got {mask.shape} {mask.dtype}"
                )
            largest = max(largest, int(np.where(mask == VOID, -1, mask.astype(np.int16)).max()))
        return largest + 1

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask classes; empty without masks."""
        return self._classes

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def item(self, index: int) -> str:
        """Return the name of image `index`."""
        return f"{self.name} {self.split} {index}"

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index` as RGB, (H, W, 3) uint8."""
        return self.images[index]

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the class ids of image `index`, (H, W) uint8 with 255 for void.

        Raises:
            LookupError: There are no masks.
        """
        return super().mask(index) if self.masks is None else self.masks[index]
