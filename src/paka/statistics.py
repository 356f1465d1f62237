"""Statistics of dense predictions: counts per image, data-set metrics of their sums, paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
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


def mean_iou(confusion: Tensor, *, absent: str = "drop", uncounted: int = 0) -> Tensor:
    """Return the data-set mean intersection over union of pooled counts.

    Args:
        confusion: Counts (..., C, C), pooled over the images that count.
        absent: What becomes of classes in neither truth nor prediction: `drop` leaves them out of the mean, `zero`
            counts them as 0.
        uncounted: Classes whose pixels are left out, yet count as 0 in the mean.

    Returns:
        (...) float64 in [0, 1]; NaN where no class counts.
    """
    iou, occurs = class_iou(confusion)
    counted = occurs.sum(dim=-1) if absent == "drop" else torch.full_like(iou[..., 0], iou.shape[-1])
    return iou.nansum(dim=-1) / (counted + uncounted)


def class_iou(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """Return the intersection over union of each class in pooled counts.

    Args:
        confusion: Counts (..., C, C).

    Returns:
        (..., C) float64 in [0, 1], NaN for classes in neither truth nor prediction; and whether they occur.
    """
    counts = confusion.double()
    intersection = counts.diagonal(dim1=-2, dim2=-1)
    union = counts.sum(dim=-1) + counts.sum(dim=-2) - intersection
    occurs = union > 0
    return torch.where(occurs, intersection / union.clamp_min(1), torch.nan), occurs


def matched(confusion: Tensor) -> Tensor:
    """Reorder the predicted classes so that the sum of IoU is largest (Hungarian matching), one to one.

    Args:
        confusion: Counts (..., C, C), pooled over the images that count.

    Returns:
        Counts of the same shape.
    """
    flat = confusion.reshape(-1, *confusion.shape[-2:])
    return torch.stack([counts[:, matching(counts)] for counts in flat]).view(confusion.shape)


def matching(confusion: Tensor) -> Tensor:
    """Return which predicted class stands for each true one, (C,) int64; see `matched`.

    Args:
        confusion: Counts (C, C), pooled over the images that count.
    """
    counts = confusion.double()
    union = counts.sum(dim=1, keepdim=True) + counts.sum(dim=0, keepdim=True) - counts
    _, columns = linear_sum_assignment((counts / union.clamp_min(1)).numpy(), maximize=True)
    return torch.from_numpy(columns)


def share(counts: Tensor) -> Tensor:
    """Return the share of hits in pooled counts of hits and of all, (..., 2), as (...) float64; NaN of none."""
    return counts[..., 0].double() / counts[..., 1].double()


class Metric(NamedTuple):
    """A number that counts summed over images have.

    Attributes:
        name: As results print it.
        of: The number, of counts (..., *count) to (...).
        truth: What of the counts depends on the images alone, so that two predictions of them agree in it.
        unit: What it is printed in: `%` of a share, `m` of metres, or nothing.
        rises: Whether more is better.
        weighs: Whether `of` is no function of sums: it then gets the counts of each image, (n, *count), and how often
            each counts in each of R resamples, (R, n), and returns (R,).
    """

    name: str
    of: Callable[..., Tensor]
    truth: Callable[[Tensor], Tensor]
    unit: str = "%"
    rises: bool = True
    weighs: bool = False

    @property
    def scale(self) -> float:
        """What the number is multiplied by to be printed."""
        return 100.0 if self.unit == "%" else 1.0

    def resampled(self, counts: Tensor, times: Tensor) -> Tensor:
        """Return the number in each of R resamples, (R,), of counts (n, *count) that enter (R, n) times."""
        if self.weighs:
            return self.of(counts, times)
        return self.of((times @ counts.double().flatten(1)).view(-1, *counts.shape[1:]))

    def once(self, counts: Tensor) -> float:
        """Return the number of the images as they are, of counts (n, *count)."""
        return float(
            self.of(counts, counts.new_ones(1, len(counts))) if self.weighs else self.of(counts.sum(dim=0))
        )


def iou_metric(*, matching: bool = False, absent: str = "drop", uncounted: int = 0) -> Metric:
    """Return mIoU as a profile defines it: see `mean_iou` and `matched`."""

    def of(confusion: Tensor) -> Tensor:
        counts = matched(confusion) if matching else confusion
        return mean_iou(counts, absent=absent, uncounted=uncounted)

    return Metric("mIoU", of, lambda counts: counts.sum(dim=-1))


MIOU = iou_metric()


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
    times = draws(len(before), resamples, seed)
    if not torch.equal(metric.truth(before), metric.truth(after)):
        message = "expected counts of the same images before and after, got different true class counts"
        raise ValueError(message)
    return percentile_interval(metric.resampled(after, times) - metric.resampled(before, times))


def bootstrap(counts: Tensor, *, resamples: int, seed: int, metric: Metric = MIOU) -> Interval:
    """Return the 95 % percentile interval of a metric over resampled images.

    Args:
        counts: Counts per image, (n, *count).
        resamples: Number of resamples.
        seed: Seed of the resampling.
        metric: What is computed of the counts.

    Raises:
        ValueError: There is no image or no resample.
    """
    return percentile_interval(metric.resampled(counts, draws(len(counts), resamples, seed)))


def percentile_interval(values: Tensor) -> Interval:
    """Return the 95 % percentile interval of resampled values, (R,); NaN among them are left out."""
    low, high = torch.nanquantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(low, high)


def draws(n: int, resamples: int, seed: int) -> Tensor:
    """Return how often each of n images is drawn in each resample, (resamples, n) float64.

    Raises:
        ValueError: There is no image or no resample.
    """
    if min(n, resamples) < 1:
        message = f"expected at least one image and one resample, got {n} and {resamples}"
        raise ValueError(message)
    drawn = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed))
    ones = torch.ones(resamples, n, dtype=torch.float64)
    return torch.zeros_like(ones).scatter_add_(1, drawn, ones)
