"""Evaluation protocols: functions of frozen features, labels and a profile of settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures


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
        positive = ("memory", "k", "temperature", "clusters", "pca", "linear_epochs", "linear_batch")
        for name in positive:
            if getattr(self, name) <= 0:
                message = f"expected profile.{name} above 0, got {getattr(self, name)}"
                raise ValueError(message)
        if self.k > self.memory:
            message = f"expected profile.k of at most profile.memory, got k={self.k} and memory={self.memory}"
            raise ValueError(message)


@dataclass(frozen=True)
class Segmentation:
    """What a protocol made of n images.

    Attributes:
        confusion: Pixel counts per image, (n, C, C) int64; rows are the truth, columns the prediction.
        prediction: Predicted class ids, (n, H, W) uint8.
    """

    confusion: Tensor
    prediction: Tensor


Protocol = Callable[..., Segmentation]
"""`protocol(train, query, profile, *, seed)`: reads `DenseFeatures` of both, scores the query images."""


def upsampled_argmax(maps: Tensor, size: tuple[int, int], *, images: int = 16) -> Tensor:
    """Upsample class maps (n, C, h, w) bilinearly to `size` and take the best class, (n, *size) uint8."""
    best = [
        F.interpolate(part, size=size, mode="bilinear", align_corners=False).argmax(dim=1).to(torch.uint8)
        for part in maps.split(images)
    ]
    return torch.cat(best)


def label_size(features: DenseFeatures) -> tuple[int, int]:
    """Return height and width of the labels."""
    return features.labels.shape[1], features.labels.shape[2]
