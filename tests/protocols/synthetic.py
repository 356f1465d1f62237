"""Synthetic features that the protocols' tests share, and settings small enough for them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols import Outcome, Profile
from paka.statistics import mean_iou

CLASSES = 5
PROFILE = Profile(
    name="test",
    grid=[6, 6],
    aspect="keep",
    interpolation="area",
    blue_std=None,
    train_images=None,
    val_images=None,
    test_images=None,
    seeds=1,
    memory=10_000,
    memory_passes=1,
    memory_augment=False,
    memory_void="skip",
    patch_void="skip",
    k=10,
    temperature=0.02,
    clusters=12,
    cluster_naming="majority",
    pca=8,
    kmeans_iterations=30,
    kmeans_restarts=2,
    linear_lr=0.5,
    linear_momentum=0.9,
    linear_weight_decay=1e-4,
    linear_epochs=15,
    linear_batch=4,
    linear_resolution=24,
    scored_at=None,
    matching=False,
    absent="drop",
    uncounted=0,
    depth_mean="pixels",
    bootstrap=100,
)


def features(kind: str, *, images: int = 24, seed: int = 0) -> DenseFeatures:
    """Two vertical stuff regions per image, on the patch grid; tokens are one-hot labels or noise."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randint(0, CLASSES, (images, 1, 2), generator=generator)
    token_labels = sides.repeat_interleave(3, dim=2).expand(images, 6, 6)
    labels = token_labels.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2).to(torch.uint8)
    noise = torch.randn(images, 6, 6, 12, generator=generator)
    oracle = F.one_hot(token_labels, 12).float() + 0.01 * noise
    return DenseFeatures(oracle if kind == "oracle" else noise, labels, CLASSES)


def score(outcome: Outcome) -> float:
    """Return the data-set mIoU."""
    return float(mean_iou(outcome.counts.sum(dim=0)))


def predicted(outcome: Outcome) -> Tensor:
    """Return the predictions of the images that are shown, (m, H, W): all of them up to six."""
    return torch.stack([*outcome.pictures.values()])
