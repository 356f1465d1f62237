"""Evaluation protocols: functions of frozen features, labels and a profile of settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols.profile import Profile
from paka.statistics import MIOU, Metric, confusion_matrices

__all__ = [
    "READS",
    "Entry",
    "Outcome",
    "Profile",
    "Segmentation",
    "label_size",
    "segmentation",
    "upsampled_argmax",
]


@dataclass(frozen=True)
class Segmentation:
    """What a protocol made of n images.

    Attributes:
        confusion: Pixel counts per image, (n, C, C) int64; rows are the truth, columns the prediction.
        prediction: Predicted class ids, (n, H, W) uint8.
        metric: How the counts are scored.
    """

    confusion: Tensor
    prediction: Tensor
    metric: Metric = MIOU

    @property
    def counts(self) -> Tensor:
        """What the metric is computed from once it is summed over images."""
        return self.confusion

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the counts."""
        return (self.metric,)


class Outcome(Protocol):
    """What a protocol made of n images: counts per image, and the metrics that they give together."""

    @property
    def counts(self) -> Tensor:
        """What the metrics are computed from, (n, *count)."""
        ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the counts; the first is the protocol's score."""
        ...


READS = ("masks", "depth", "tags")
"""What protocols may compare with: classes of pixels, their depth, or what images show as a whole."""


@dataclass(frozen=True)
class Entry:
    """A protocol as a benchmark runs it.

    Attributes:
        run: `run(train, query, profile, *, seed)` of `DenseFeatures`; or, if it encodes itself,
            `run(encoder, train, query, profile, *, seed, folder)` of an encoder and two sources, with a folder for
            what an interrupted run goes on from, or None.
        reads: What it compares with, one of `READS`.
        memory: Whether its training images are the profile's memory, with its passes and augmentation.
        encodes: Whether it encodes images itself.

    Raises:
        ValueError: No data set has what it reads.
    """

    run: Callable[..., Outcome]
    reads: str
    memory: bool = False
    encodes: bool = False

    def __post_init__(self) -> None:
        """Refuse what no data set has."""
        if self.reads not in READS:
            raise ValueError(f"expected a protocol that reads one of {', '.join(READS)}, got {self.reads!r}")


def segmentation(prediction: Tensor, query: DenseFeatures, profile: Profile) -> Segmentation:
    """Return predicted class ids, (n, H, W) uint8, with their counts and the profile's metric."""
    return Segmentation(
        confusion_matrices(prediction, query.labels, query.num_classes), prediction, profile.iou
    )


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
