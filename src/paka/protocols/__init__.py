"""Evaluation protocols: functions of frozen features, labels and a profile of settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.statistics import DELTA1, MIOU

COUNTS = (
    "memory",
    "k",
    "clusters",
    "pca",
    "kmeans_iterations",
    "kmeans_restarts",
    "linear_epochs",
    "linear_batch",
    "linear_resolution",
    "bootstrap",
)
"""Settings of a profile that are at least 1."""

CAPS = ("train_images", "val_images", "test_images")
"""Settings of a profile that are at least 1, or None for no limit."""


@dataclass(frozen=True)
class Profile:
    """Settings of all protocols; they are fixed before methods are compared.

    Attributes:
        name: Name, as results state it.
        grid: Rows and columns of tokens per image.
        train_images: At most this many labelled training images; None for all.
        val_images: At most this many validation images; None for all.
        test_images: At most this many test images; None for all.
        memory: Patches in the in-context memory.
        k: Neighbours per query patch.
        temperature: Of the softmax over the neighbours' cosine similarities.
        clusters: Clusters K of over-clustering.
        pca: Dimensions kept before clustering.
        kmeans_iterations: Lloyd iterations at most.
        kmeans_restarts: Initialisations; the one of least inertia counts.
        linear_lr: Learning rate of the linear probe's SGD.
        linear_momentum: Its momentum.
        linear_weight_decay: Its weight decay.
        linear_epochs: Passes over the training images.
        linear_batch: Images per step.
        linear_resolution: Side in pixels at which logits and masks are compared in training.
        bootstrap: Resamples behind each confidence interval.

    Raises:
        ValueError: A setting is out of range.
    """

    name: str
    grid: Sequence[int]
    train_images: int | None
    val_images: int | None
    test_images: int | None
    memory: int
    k: int
    temperature: float
    clusters: int
    pca: int
    kmeans_iterations: int
    kmeans_restarts: int
    linear_lr: float
    linear_momentum: float
    linear_weight_decay: float
    linear_epochs: int
    linear_batch: int
    linear_resolution: int
    bootstrap: int

    def __post_init__(self) -> None:
        """Refuse settings that no protocol can run with."""
        for name in COUNTS:
            self._require(name, "at least 1", met=getattr(self, name) >= 1)
        for name in CAPS:
            cap = getattr(self, name)
            self._require(name, "at least 1, or null for all images", met=cap is None or cap >= 1)
        for name in ("temperature", "linear_lr"):
            value = getattr(self, name)
            self._require(name, "finite and above 0", met=isfinite(value) and value > 0)
        self._require("linear_momentum", "in [0, 1)", met=0 <= self.linear_momentum < 1)
        decay = self.linear_weight_decay
        self._require("linear_weight_decay", "finite and at least 0", met=isfinite(decay) and decay >= 0)
        two = len(self.grid) == 2 and min(self.grid) >= 1
        self._require("grid", "two numbers of tokens, rows and columns, of at least 1", met=two)
        self._require("k", f"at most profile.memory={self.memory}", met=self.k <= self.memory)

    def _require(self, name: str, expected: str, *, met: bool) -> None:
        if not met:
            message = (
                f"expected profile.{name} to be {expected}, got {getattr(self, name)}: change profile.{name}"
            )
            raise ValueError(message)


@dataclass(frozen=True)
class Segmentation:
    """What a protocol made of n images.

    Attributes:
        confusion: Pixel counts per image, (n, C, C) int64; rows are the truth, columns the prediction.
        prediction: Predicted class ids, (n, H, W) uint8.
    """

    metric = MIOU
    confusion: Tensor
    prediction: Tensor

    @property
    def counts(self) -> Tensor:
        """What the metric is computed from once it is summed over images."""
        return self.confusion


@dataclass(frozen=True)
class DepthEstimate:
    """The depth that a protocol gave to the pixels of n images.

    Attributes:
        counts: Pixels estimated within a factor of 1.25, and pixels of known depth, (n, 2) int64.
        prediction: Estimated depth, (n, H, W) float32 in metres.
    """

    metric = DELTA1
    counts: Tensor
    prediction: Tensor


Outcome = Segmentation | DepthEstimate
"""What a protocol returns: counts per image, and the metric that sums of them give."""

Protocol = Callable[..., Outcome]
"""`protocol(train, query, profile, *, seed)`: reads `DenseFeatures` of both, scores the query images."""


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
