"""Parts of a source: the first so many images, a share drawn by a seed, or what is held out of the training split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from paka.cores import available_cores
from paka.sources import VOID, KeypointPair, Source

HELD_OUT = 10
"""One labelled training image in so many is held out where a data set has no split to choose by."""


class Subset(Source):
    """Some images of a source, in their order.

    Args:
        source: The whole.
        indices: Which of its images, (n,) int64.
        split: What the part is called; None keeps the name of the whole.
    """

    def __init__(self, source: Source, indices: NDArray[np.int64], *, split: str | None = None) -> None:
        self.source, self.indices = source, indices
        self.name, self.split, self.tag_names = source.name, split or source.split, source.tag_names
        self.has_depth = source.has_depth

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask classes of the whole."""
        return self.source.classes

    @property
    def palette(self) -> NDArray[np.uint8]:
        """Colours of the mask classes of the whole."""
        return self.source.palette

    @property
    def pairs(self) -> tuple[KeypointPair, ...]:
        """The pairs of the whole both images of which are in the part."""
        place = {int(index): n for n, index in enumerate(self.indices)}
        return tuple(
            pair._replace(first=place[pair.first], second=place[pair.second])
            for pair in self.source.pairs
            if pair.first in place and pair.second in place
        )

    @property
    def videos(self) -> tuple[range, ...]:
        """The videos of the whole, each as far as the part has its images from the first one on."""
        place = {int(index): n for n, index in enumerate(self.indices)}
        runs = [[*takewhile(place.__contains__, video)] for video in self.source.videos]
        return tuple(range(place[run[0]], place[run[-1]] + 1) for run in runs if run)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def item(self, index: int) -> str:
        """Return what the whole calls the image."""
        return self.source.item(int(self.indices[index]))

    def label_item(self, index: int) -> str:
        """Return the file that holds the labels of the image."""
        return self.source.label_item(int(self.indices[index]))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index` as RGB, (H, W, 3) uint8."""
        return self.source.image(int(self.indices[index]))

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the class ids of image `index`, (H, W) uint8 with 255 for void."""
        return self.source.mask(int(self.indices[index]))

    def depth(self, index: int) -> NDArray[np.float32]:
        """Return the depth of image `index` in metres, (H, W) float32 with 0 where it is not known."""
        return self.source.depth(int(self.indices[index]))

    def tags(self, index: int) -> NDArray[np.bool_]:
        """Return which tags image `index` carries, (T,) bool."""
        return self.source.tags(int(self.indices[index]))


def subset(source: Source, *, limit: int | None, fraction: float | str, seed: int) -> Source:
    """Return at most `limit` images of a share of a source, both drawn by `seed`.

    A smaller part lies in a larger one of the same seed.

    Args:
        source: The whole.
        limit: At most this many images; None for all.
        fraction: Share of the images, above 0 and up to 1, as a number or as text like `1/8`; rounded to
            at least one image.
        seed: Seed of the draw.
    """
    count = max(1, round(len(source) * Fraction(fraction)))
    count = count if limit is None else min(count, limit)
    if count == len(source):
        return source
    drawn = np.random.default_rng(seed).permutation(len(source))[:count]
    return Subset(source, np.sort(drawn))


def open_images(
    source: Callable[..., Source],
    *,
    split: str,
    limit: int | None = None,
    fraction: float | str = 1,
    subset_seed: int = 0,
    **_: object,
) -> Source:
    """Return what is post-trained on of a data set: the keys of an option of the group `data` are the arguments.

    Args:
        source: Opens a split of the data set, called with `split=NAME`.
        split: Which split.
        limit: At most this many images; None for all.
        fraction: Share of the images, see `subset`.
        subset_seed: Seed of the draw.
    """
    return subset(source(split=split), limit=limit, fraction=fraction, seed=subset_seed)


def labelled_splits(
    open_split: Callable[..., Source], names: Mapping[str, str | None], role: str, *, seed: int
) -> tuple[Source | None, Source]:
    """Return the labelled images that memories and probes are built from, if there are any, and those that are scored.

    Most public data sets publish two labelled splits: one to train on and one to report on. So that nothing is
    chosen on the one that is reported, a tenth of the training split is held out for `val` there, and
    the memory is built from the rest then. Images without any labels are scored as they are.

    Args:
        open_split: Opens a split of the data set, called with `split=NAME`.
        names: The data set's own names of the roles `train`, `val` and `test`; None for what it does not have.
        role: What is scored, `val` or `test`.
        seed: Seed of what is held out.

    Raises:
        ValueError: The data set has no labelled images for that role.
    """
    train = None if names["train"] is None else open_split(split=names["train"])
    if train is not None and not is_labelled(train):
        return None, train
    name = names[role]
    if name is not None:
        return train, open_split(split=name)
    if role != "val" or train is None:
        other = "val" if role == "test" else "test"
        message = f"expected split={other}, got split={role}, of which the data set has no labelled images"
        raise ValueError(message)
    order = np.random.default_rng(seed).permutation(len(train))
    count = max(1, len(train) // HELD_OUT)
    held, rest = np.sort(order[:count]), np.sort(order[count:])
    return Subset(train, rest), Subset(train, held, split=f"{train.split}, held out")


def is_labelled(source: Source) -> bool:
    """Return whether more is known of images than that they are there."""
    return bool(source.classes or source.has_depth or source.pairs or source.videos)


def verify_labels(source: Source, count: int | None = None) -> None:
    """Read the masks or depths of the first `count` images once, so that a bad one is named before any time is spent.

    Args:
        source: Labelled images.
        count: How many of them; None for all.

    Raises:
        ValueError: One cannot be read, has another size than its image, or an id of no class; or nothing is known of any.
        FileNotFoundError: One is missing.
    """
    has_masks = bool(source.classes or source.videos)
    if not has_masks and not source.has_depth:
        return

    def known(index: int) -> bool:
        return bool((source.mask(index) != VOID).any() if has_masks else (source.depth(index) > 0).any())

    images = range(len(source) if count is None else min(count, len(source)))
    with ThreadPoolExecutor(available_cores()) as pool:
        if not any([*pool.map(known, images)]):
            message = (
                f"expected a labelled pixel in the {len(images)} {source.split} images of {source.name}, "
                f"got {'void masks' if has_masks else 'unknown depth'} only: correct the labels or choose another split"
            )
            raise ValueError(message)
