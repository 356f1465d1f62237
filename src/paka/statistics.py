"""Segmentation statistics: confusion counts per image, data-set mIoU, paired bootstrap."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from paka.sources import VOID


class Interval(NamedTuple):
    """A 95 % confidence interval, in units of mIoU in [0, 1]."""

    low: float
    high: float


def confusion_matrices(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count pixels by true and predicted class, per image; void pixels are left out.

    Args:
        prediction: Class ids, (n, H, W) uint8.
        labels: Class ids with 255 for void, (n, H, W) uint8.
        num_classes: Number of classes C.

    Returns:
        Counts (n, C, C) int64; rows are the truth, columns the prediction.

    Raises:
        ValueError: The shapes differ, or an id is not a class.
    """
    if prediction.shape != labels.shape:
        message = f"expected predictions and labels of one shape, got {tuple(prediction.shape)} and {tuple(labels.shape)}"
        raise ValueError(message)
    counted = labels != VOID
    highest = max(int((prediction * counted).max()), int((labels * counted).max()))
    if highest >= num_classes:
        message = f"expected class ids below {num_classes}, got {highest}"
        raise ValueError(message)
    n, cells = len(labels), num_classes**2
    image = torch.arange(n).view(n, 1, 1).expand_as(labels)[counted]
    cell = labels[counted].long() * num_classes + prediction[counted].long()
    counts = torch.bincount(image * cells + cell, minlength=n * cells)
    return counts.view(n, num_classes, num_classes)


def mean_iou(confusion: Tensor) -> Tensor:
    """Return the data-set mean intersection over union of pooled counts.

    The mean is over the classes that occur in truth or prediction; NaN if none does.

    Args:
        confusion: Counts (..., C, C), pooled over the images that count.

    Returns:
        (...) float64 in [0, 1].
    """
    counts = confusion.double()
    intersection = counts.diagonal(dim1=-2, dim2=-1)
    union = counts.sum(dim=-1) + counts.sum(dim=-2) - intersection
    occurs = union > 0
    iou = torch.where(occurs, intersection / union.clamp_min(1), 0.0)
    return iou.sum(dim=-1) / occurs.sum(dim=-1)


def paired_bootstrap(before: Tensor, after: Tensor, *, resamples: int, seed: int) -> Interval:
    """Return the 95 % percentile interval of the difference in data-set mIoU over resampled images.

    Both sides are resampled together, so what makes an image hard cancels (Efron and Tibshirani, 1993).

    Args:
        before: Counts per image, (n, C, C).
        after: Counts of the same images, (n, C, C).
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: The two sides do not describe the same images.
    """
    if not torch.equal(before.sum(dim=-1), after.sum(dim=-1)):
        message = "expected confusions of the same images before and after, got different true class counts"
        raise ValueError(message)
    n = len(before)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (resamples, n), generator=generator)
    times = torch.zeros(resamples, n, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(resamples, n, dtype=torch.float64)
    )
    pooled = [(times @ side.double().flatten(1)).view(-1, *side.shape[1:]) for side in (before, after)]
    difference = mean_iou(pooled[1]) - mean_iou(pooled[0])
    low, high = torch.quantile(difference, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(low, high)
