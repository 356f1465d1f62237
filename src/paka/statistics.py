"""Statistics of dense predictions: counts per image, data-set metrics of their sums, paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from paka.sources import VOID


class Interval(NamedTuple):
    """A 95 % confidence interval, in units of the metric, in [0, 1]."""

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
    counts = torch.zeros(len(labels), num_classes, num_classes, dtype=torch.int64)
    # One image at a time: class pairs are int64, eight times the size of the maps.
    for image in range(len(labels)):
        counts[image] = _count(prediction[image], labels[image], num_classes)
    return counts


def _count(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    counted = labels != VOID
    truth, predicted = labels[counted].long(), prediction[counted].long()
    highest = max(int(ids.max()) for ids in (truth, predicted)) if len(truth) else 0
    if highest >= num_classes:
        message = f"expected class ids below {num_classes}, got {highest}"
        raise ValueError(message)
    pairs = torch.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    return pairs.view(num_classes, num_classes)


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


def share(counts: Tensor) -> Tensor:
    """Return the share of hits in pooled counts of hits and of all, (..., 2), as (...) float64; NaN of none."""
    return counts[..., 0].double() / counts[..., 1].double()


class Metric(NamedTuple):
    """A number in [0, 1] that counts summed over images have; more is better.

    Attributes:
        name: As results print it.
        of: The number, of counts (..., *count) to (...).
        truth: What of the counts depends on the images alone, so that two predictions of them agree in it.
    """

    name: str
    of: Callable[[Tensor], Tensor]
    truth: Callable[[Tensor], Tensor]


MIOU = Metric("mIoU", mean_iou, lambda counts: counts.sum(dim=-1))
DELTA1 = Metric("delta1", share, lambda counts: counts[..., 1])
"""Share of the pixels whose depth is estimated within a factor of 1.25 (Eigen et al., 2014, arXiv 1406.2283)."""


def paired_bootstrap(
    before: Tensor, after: Tensor, *, resamples: int, seed: int, metric: Metric = MIOU
) -> Interval:
    """Return the 95 % percentile interval of the difference in a metric over resampled images.

    Both sides are resampled together, so what makes an image hard cancels (Efron and Tibshirani, 1993).
    Resamples without a single labelled pixel have no score and are left out; NaN if that leaves none.

    Args:
        before: Counts per image, (n, *count).
        after: Counts of the same images.
        resamples: Number of resamples.
        seed: Seed of the resampling.
        metric: What is computed of the counts.

    Raises:
        ValueError: There is no image or no resample, or the two sides do not describe the same images.
    """
    if min(len(before), resamples) < 1:
        message = f"expected at least one image and one resample, got {len(before)} and {resamples}"
        raise ValueError(message)
    if not torch.equal(metric.truth(before), metric.truth(after)):
        message = "expected counts of the same images before and after, got different true class counts"
        raise ValueError(message)
    n = len(before)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (resamples, n), generator=generator)
    times = torch.zeros(resamples, n, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(resamples, n, dtype=torch.float64)
    )
    pooled = [(times @ side.double().flatten(1)).view(-1, *side.shape[1:]) for side in (before, after)]
    difference = metric.of(pooled[1]) - metric.of(pooled[0])
    low, high = torch.nanquantile(difference, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(low, high)
