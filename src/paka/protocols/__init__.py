"""Evaluation protocols: functions of frozen features, labels and a profile of settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.encoder import Encoder
from paka.features import DenseFeatures, shown
from paka.protocols.profile import Profile
from paka.sources import VOID
from paka.statistics import Metric, confusion_matrices

__all__ = [
    "READS",
    "STATED",
    "VIEWS",
    "Entry",
    "Outcome",
    "Profile",
    "class_counts",
    "counted",
    "label_size",
    "segmentation",
    "shown",
    "upsampled_argmax",
]

STATED = ("memory", "k", "temperature", "note", "upsampling")
"""What a protocol may state of itself: columns of its scores."""


@dataclass(frozen=True)
class Outcome:
    """What a protocol made of n images; or of n pairs of images, or n videos, where those are what it scores.

    Attributes:
        counts: What the metrics are computed from once it is summed over the images, (n, *count).
        metrics: The metrics of the counts; the first is the protocol's score.
        pictures: What was predicted for some images, by their number: class ids (H, W) uint8, or depth (H, W) float32.
        stated: What the scores depend on beside the profile, by names out of `STATED`.

    Raises:
        ValueError: A name is not one of those.
    """

    counts: Tensor
    metrics: tuple[Metric, ...]
    pictures: Mapping[int, Tensor] = field(default_factory=dict)
    stated: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what results have no column for."""
        if unknown := {*self.stated} - {*STATED}:
            raise ValueError(f"expected statements of {', '.join(STATED)}, got {', '.join(sorted(unknown))}")

    @property
    def score(self) -> float:
        """The first metric of all images, a share in [0, 1] or in its own unit."""
        return self.metrics[0].once(self.counts)


READS = ("images", "masks", "background", "depth", "tags", "keypoints", "objects")
"""What protocols may compare with: nothing but the images; classes of pixels, whatever they are, or of which the first
is the background of the others; their depth, what images show as a whole, points that pairs of images share, or objects
that move through videos."""

VIEWS = ("plain", "memory", "warped", "own")
"""Which images protocols may see: the labelled ones; training images as the profile's memory has them, with its passes
and augmentation; scored images with a warped copy of each; or sources that the protocol encodes itself."""


@dataclass(frozen=True)
class Entry:
    """A protocol as a benchmark runs it.

    Attributes:
        run: `run(train, query, profile, *, seed)` of two `DenseFeatures`; or, with `views="own"`,
            `run(encoder, train, query, profile, *, seed, folder)` of an encoder and two sources, with a folder for what
            an interrupted run goes on from, or None.
        reads: What it compares with, one of `READS`.
        views: Which images it sees, one of `VIEWS`.
        trains: Whether it reads training images; without, `train` is None.
        attends: Whether it reads the attention of the class token, which not every encoder has.
        pools: Whether what it makes of a scored image depends on the others, so that several processes cannot share them.
        seeds: Runs, whose mean is the score; None for as many as the profile says.
        ready: `ready(profile, encoder)` returns why the protocol cannot serve an encoder with these settings, or None if
            it can; None for a protocol that serves all.

    Raises:
        ValueError: No data set has what it reads, or there are no such views.
    """

    run: Callable[..., Outcome]
    reads: str
    views: str = "plain"
    trains: bool = True
    attends: bool = False
    pools: bool = False
    seeds: int | None = None
    ready: Callable[[Profile, Encoder], str | None] | None = None

    def __post_init__(self) -> None:
        """Refuse what no data set has."""
        for name, known in (("reads", READS), ("views", VIEWS)):
            if getattr(self, name) not in known:
                message = f"expected a protocol whose {name} is one of {', '.join(known)}, got {getattr(self, name)!r}"
                raise ValueError(message)


def segmentation(
    predictions: Iterable[Tensor],
    query: DenseFeatures,
    profile: Profile,
    stated: Mapping[str, Any] | None = None,
    *,
    void: bool = False,
) -> Outcome:
    """Count predicted class ids as they come, and keep those that are shown.

    Args:
        predictions: Predictions of consecutive images, (b, H, W) uint8 each.
        query: Their labels.
        profile: Reads how mIoU is defined.
        stated: See `Outcome.stated`.
        void: Whether void may be predicted: it then counts as one more class, of which no pixel is right.
    """
    counts, pictures = counted(
        predictions,
        query.shown,
        lambda part, rows: class_counts(part, query.labels[rows], query.num_classes, void=void),
    )
    return Outcome(counts, (profile.iou,), pictures, stated or {})


def class_counts(prediction: Tensor, labels: Tensor, classes: int, *, void: bool = False) -> Tensor:
    """Count pixels by true and predicted class, per image; see `paka.statistics.confusion_matrices`.

    Args:
        prediction: Class ids, (n, H, W) uint8, with 255 for void if that may be predicted.
        labels: Class ids with 255 for void, (n, H, W) uint8.
        classes: Number of classes C.
        void: Whether void may be predicted: it is then the class C, of which no pixel is right.

    Returns:
        (n, C, C) int64, or (n, C + 1, C + 1) with `void`.
    """
    found = prediction.masked_fill(prediction == VOID, classes) if void else prediction
    return confusion_matrices(found, labels, classes + void)


def counted(
    predictions: Iterable[Tensor], wanted: Collection[int], count: Callable[[Tensor, slice], Tensor]
) -> tuple[Tensor, dict[int, Tensor]]:
    """Count predictions as they come; return the counts (n, *count), and the predictions that are shown by number.

    Args:
        predictions: Predictions of consecutive images, (b, H, W) each.
        wanted: Numbers of the images that are shown.
        count: Returns the counts of predictions, (b, *count), given which images they are of.
    """
    counts: list[Tensor] = []
    pictures: dict[int, Tensor] = {}
    start = 0
    for prediction in predictions:
        part = prediction.cpu()
        counts.append(count(part, slice(start, start + len(part))))
        pictures |= {n: part[n - start].clone() for n in wanted if start <= n < start + len(part)}
        start += len(part)
    return torch.cat(counts), pictures


def upsampled_argmax(maps: Tensor, size: tuple[int, int], *, images: int = 16) -> Tensor:
    """Upsample class maps (n, C, h, w) bilinearly to `size` and take the best class, (n, *size) uint8."""
    best = [
        F.interpolate(part, size=size, mode="bilinear", align_corners=False).argmax(dim=1).to(torch.uint8)
        for part in maps.split(images)
    ]
    return torch.cat(best)


def label_size(features: DenseFeatures) -> tuple[int, int]:
    """Return height and width of the labels, or of the depth."""
    truth = features.labels if features.num_classes else features.depth
    return truth.shape[1], truth.shape[2]
