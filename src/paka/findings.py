"""What the inspection of a data set found, as plain numbers: the same ones in terminal and JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paka.sources import VOID, Source

IDS = VOID + 1
"""Values that a pixel of a mask can have."""

TRAINING = {"data", "train"}
"""Roles of splits that may share images with each other, but with none that is scored."""


class Problem(NamedTuple):
    """Something that has to be put right.

    Attributes:
        split: Name of the split.
        item: The image, as its source calls it; empty for the split as a whole.
        sentence: What was expected, what came, what to do.
    """

    split: str
    item: str
    sentence: str


@dataclass(frozen=True)
class Reading:
    """What one image has, or why it cannot be used.

    Attributes:
        index: Number of the image in the split.
        size: Width and height in pixels; None if it cannot be read.
        digest: 64 bits of a hash of its pixels.
        counts: Pixels of each mask id, (256,) int64; None without a mask.
        depth: Nearest, median and farthest depth in metres, and the share of pixels without; None without depth.
        problem: Why the image or its labels cannot be used; None if they can.
    """

    index: int
    size: tuple[int, int] | None = None
    digest: int = 0
    counts: NDArray[np.int64] | None = None
    depth: tuple[float, float, float, float] | None = None
    problem: str | None = None


@dataclass
class SplitFindings:
    """What was found in one split; it grows with every reading.

    Attributes:
        split: Its name, in the data set's own words.
        roles: What it is used for: `data`, `train`, `val`, `test`.
        source: The opened split; None if it cannot be opened.
        read: Number of images that were tried.
        indices: Numbers of the n images that can be read.
        sizes: Their widths and heights in pixels, (n, 2).
        digests: Hashes of their pixels, (n,).
        depths: `Reading.depth` of each image with depth, (m, 4).
        pixels: Pixels of each mask id, (256,) int64.
        images: Images in which each mask id occurs, (256,) int64.
        masked: Images with a mask that is not void everywhere.
        objects: Objects in the first frames of videos.
        problems: What has to be put right.
        warnings: What may surprise.
    """

    split: str
    roles: tuple[str, ...]
    source: Source | None = None
    read: int = 0
    indices: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)
    depths: list[tuple[float, float, float, float]] = field(default_factory=list)
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(IDS, np.int64))
    images: NDArray[np.int64] = field(default_factory=lambda: np.zeros(IDS, np.int64))
    masked: int = 0
    objects: int = 0
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask classes; empty where no mask was read."""
        return self.source.classes if self.source is not None and self.pixels.any() else ()

    def add(self, reading: Reading) -> None:
        """Take in what was read of one image."""
        self.read += 1
        if reading.size is not None:
            self.indices.append(reading.index)
            self.sizes.append(reading.size)
            self.digests.append(reading.digest)
        if reading.counts is not None:
            self.pixels += reading.counts
            self.images += reading.counts > 0
            self.masked += int(reading.counts[:VOID].any())
            if self.source is not None and reading.index in {video.start for video in self.source.videos}:
                self.objects += int(np.count_nonzero(reading.counts[1:VOID]))
        if reading.depth is not None:
            self.depths.append(reading.depth)
        if reading.problem is not None:
            self.problems.append(Problem(self.split, self.item(reading.index), reading.problem))

    @property
    def title(self) -> str:
        """Name of the data set, if it is known, and of the split."""
        return self.split if self.source is None else f"{self.source.name} {self.split}"

    def item(self, index: int) -> str:
        """Return what the source calls an image, as it can be printed."""
        return "" if self.source is None else printable(self.source.item(index))


def printable(text: str) -> str:
    """Return text in which parts of file names that are not UTF-8 are escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def cautions(splits: Sequence[SplitFindings]) -> list[str]:
    """Return what may surprise in the splits and between them: one sentence each."""
    between = [
        shared
        for one, other in combinations(splits, 2)
        if not {*one.roles, *other.roles} <= TRAINING and (shared := _shared(one, other))
    ]
    return [
        *(warning for split in splits for warning in (*split.warnings, *_copies(split), *_absent(split))),
        *between,
    ]


def summary(splits: Sequence[SplitFindings]) -> dict[str, Any]:
    """Return everything that was found as plain types, for the terminal and for `findings.json`."""
    problems = [problem for split in splits for problem in split.problems]
    return {
        "sound": not problems,
        "splits": [_summary(split) for split in splits],
        "warnings": cautions(splits),
        "problems": [problem._asdict() for problem in problems],
    }


def _summary(split: SplitFindings) -> dict[str, Any]:
    by_area = sorted(split.sizes, key=lambda size: size[0] * size[1])
    middles = {"smallest": 0, "median": len(by_area) // 2, "largest": -1}
    total = 0 if split.source is None else len(split.source)
    suffixes = (os.path.splitext(split.item(index))[1] for index in range(total))  # noqa: PTH122 - of a million names
    endings = Counter(suffix.lower().lstrip(".") for suffix in suffixes).most_common()
    return {
        "data set": "" if split.source is None else split.source.name,
        "split": split.split,
        "roles": list(split.roles),
        "images": total,
        "read": split.read,
        "problems": len(split.problems),
        "sizes": {name: list(by_area[place]) for name, place in middles.items()} if by_area else {},
        "endings": {ending: count for ending, count in endings if ending},
        **_class_summary(split),
        "depth": _depth_summary(split),
        "pairs": _pair_summary(split),
        "videos": _video_summary(split),
    }


def _class_summary(split: SplitFindings) -> dict[str, Any]:
    """Return shares in percent: of a class among the labelled pixels, of void among all."""
    labelled = max(int(split.pixels[:VOID].sum()), 1)
    rows = [
        {
            "class": name,
            "share": 100 * int(pixels) / labelled,
            "pixels": int(pixels),
            "images": int(images),
        }
        for name, pixels, images in zip(split.classes, split.pixels, split.images, strict=False)
    ]
    void = 100 * int(split.pixels[VOID]) / max(int(split.pixels.sum()), 1) if rows else None
    return {"classes": rows, "void": void}


def _depth_summary(split: SplitFindings) -> dict[str, float]:
    """Return metres, and the share of pixels without depth in percent; the median is that of the images' medians."""
    if not split.depths:
        return {}
    near, middle, far, unknown = np.array(split.depths).T
    return {
        "nearest": float(near.min()),
        "median": float(np.median(middle)),
        "farthest": float(far.max()),
        "unknown": float(100 * unknown.mean()),
    }


def _pair_summary(split: SplitFindings) -> dict[str, int]:
    """Return how many pairs of images there are, with points that both show."""
    pairs = () if split.source is None or split.problems else split.source.pairs
    if not pairs:
        return {}
    categories = len({pair.category for pair in pairs if pair.category})
    return {"pairs": len(pairs), "points": sum(len(pair.points) for pair in pairs), "categories": categories}


def _video_summary(split: SplitFindings) -> dict[str, int]:
    """Return how many videos there are, their lengths in frames, the frames that have a mask, and the objects."""
    lengths = [] if split.source is None else [len(video) for video in split.source.videos]
    if not lengths:
        return {}
    return {
        "videos": len(lengths),
        "shortest": min(lengths),
        "longest": max(lengths),
        "masks": split.masked,
        "objects": split.objects,
    }


def _absent(split: SplitFindings) -> list[str]:
    if split.source is None or split.read < len(split.source):  # a sample cannot tell
        return []
    absent = [name for name, images in zip(split.classes, split.images, strict=False) if not images]
    shown = ", ".join(absent[:8]) + ", ..." * (len(absent) > 8)
    return [f"{len(absent)} of {len(split.classes)} classes never occur in {split.title}: {shown}"] * bool(
        absent
    )


def _copies(split: SplitFindings) -> list[str]:
    digests = np.array(split.digests, np.uint64)
    _, first, inverse, counts = np.unique(digests, return_index=True, return_inverse=True, return_counts=True)
    if not (count := int((counts - 1).sum())):
        return []
    place = int(np.flatnonzero(first[inverse] != np.arange(len(digests)))[0])
    copy, original = (split.item(split.indices[one]) for one in (place, int(first[inverse][place])))
    return [
        f"images of {split.title} that copy others in it, pixel by pixel: {count}, as {copy} does {original}"
    ]


def _shared(one: SplitFindings, other: SplitFindings) -> str | None:
    left, right = (np.array(split.digests, np.uint64) for split in (one, other))
    _, places, elsewhere = np.intersect1d(left, right, return_indices=True)
    if not len(places):
        return None
    items = one.item(one.indices[int(places[0])]), other.item(other.indices[int(elsewhere[0])])
    return (
        f"leak: images of {other.title} that are in {one.title} too, pixel by pixel: {len(places)}, as {items[1]} is "
        f"{items[0]}; leave them out of one of the two"
    )
