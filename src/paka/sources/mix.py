"""A weighted mix of several sources of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paka.sources import Source
from paka.sources.subset import open_images


class Mix(Source):
    """Images of several sources in given shares, spread evenly over the indices.

    A pass goes once through the source that lasts longest at its share, and through the others as often as it takes. Tags
    are not carried over.

    Args:
        split: What the mix is called.
        parts: The parts by name, each with the keys of an option of the group `data`, see `open_images`.
        weights: Weight of each part, above 0; they need not sum to 1.
        name: Name of the mix, as reports print it.

    Raises:
        ValueError: Weights and parts do not belong together, or a weight is not above 0.
    """

    def __init__(
        self,
        split: str,
        *,
        parts: Mapping[str, Mapping[str, Any]],
        weights: Mapping[str, float],
        name: str = "mix",
    ) -> None:
        if not parts or {*parts} != {*weights} or min(weights.values()) <= 0:
            message = (
                f"expected a weight above 0 for each of the parts {', '.join(sorted(parts)) or 'none'}, got "
                f"{dict(weights)}: set data.weights"
            )
            raise ValueError(message)
        self.split, self.name = split, name
        self.parts = [open_images(**parts[part]) for part in sorted(parts)]
        shares = np.array([weights[part] for part in sorted(parts)], dtype=np.float64)
        shares /= shares.sum()
        lengths = np.array([len(part) for part in self.parts])
        self.length = round(float((lengths / shares).max()))
        # At most half an image from its share after any number of indices, and the same for any process.
        turns = np.concatenate([(np.arange(round(self.length * share)) + 0.5) / share for share in shares])
        part = np.repeat(np.arange(len(shares)), [round(self.length * share) for share in shares])
        rank = np.concatenate([np.arange(round(self.length * share)) for share in shares])
        order = np.argsort(turns, kind="stable")
        self.part, self.rank = part[order].astype(np.int16), rank[order]

    def __len__(self) -> int:
        """Return the number of images in a pass."""
        return len(self.part)

    def item(self, index: int) -> str:
        """Return what its own source calls image `index`."""
        source, own = self._place(index)
        return source.item(own)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index` as RGB, (H, W, 3) uint8."""
        source, own = self._place(index)
        return source.image(own)

    def _place(self, index: int) -> tuple[Source, int]:
        source = self.parts[self.part[index]]
        return source, int(self.rank[index]) % len(source)
