"""Image-level predictions and their scores: top-1 accuracy of labels, mean average precision of tags.

The truth of n images is either labels, (n,) int64, one class each, or tags, (n, T) bool, any number each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols import Outcome
from paka.sources import VOID
from paka.statistics import Metric, share

TOP1 = Metric("top-1", share, lambda counts: counts[..., 1])
"""Share of the images whose class is predicted first."""


def outcome(scores: Tensor, truth: Tensor, stated: Mapping[str, Any] | None = None) -> Outcome:
    """Return what the scores of each class or tag are worth.

    The counts of labels are hits and images, (n, 2) int64, and give the top-1 accuracy. Those of tags are the scores
    and the truth of each image, (n, C, 2) float64, and give the mean average precision of the tags that occur.

    Args:
        scores: The higher, the surer, (n, C) float.
        truth: Labels (n,) int64 or tags (n, C) bool.
        stated: See `Outcome.stated`.
    """
    stated = {**(stated or {}), "upsampling": "none"}
    if truth.ndim == 2:
        return Outcome(torch.stack([scores.double(), truth.double()], dim=2), (MAP,), stated=stated)
    correct = scores.argmax(dim=1) == truth
    return Outcome(torch.stack([correct, torch.ones_like(correct)], dim=1).long(), (TOP1,), stated=stated)


def check_truth(truth: Tensor, images: int, classes: int) -> None:
    """Raise unless the truth is labels or tags of that many images and classes.

    Raises:
        ValueError: It is not of shape (n,) and int64, nor (n, C) and bool, or a label is not a class.
    """
    labels = truth.dtype == torch.int64 and truth.shape == (images,)
    if not labels and not (truth.dtype == torch.bool and truth.shape == (images, classes)):
        message = (
            f"expected labels ({images},) int64 or tags ({images}, {classes}) bool,"
            f" got {tuple(truth.shape)} {truth.dtype}: one row for each image"
        )
        raise ValueError(message)
    if labels and images and not 0 <= int(truth.min()) <= int(truth.max()) < classes:
        message = f"expected labels in [0, {classes}), got {int(truth.min())} to {int(truth.max())}: leave unlabelled images out"
        raise ValueError(message)


def values(truth: Tensor, classes: int) -> Tensor:
    """Return the truth as one float32 row for each image, (n, C), of zeros and ones."""
    return (truth if truth.ndim == 2 else F.one_hot(truth, classes)).float()


def loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean over images of the cross-entropy: of the softmax for labels, summed over tags for tags."""
    if truth.ndim == 1:
        return F.cross_entropy(logits, truth)
    return F.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none").sum(dim=1).mean()


def held_out(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split training images at random into nine tenths to fit and a tenth, at least one image, to choose by.

    Raises:
        ValueError: There are fewer than two images.
    """
    if images < 2:
        raise ValueError(f"expected at least 2 training images, got {images}: raise profile.train_images")
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    count = max(round(images / 10), 1)
    return order[count:].sort().values, order[:count].sort().values


def mean_average_precision(counts: Tensor, times: Tensor) -> Tensor:
    """Return the mean average precision in each of R resamples, (R,), of scores and truth of n images, (n, T, 2).

    Average precision is no function of sums over images, so the images' scores are ranked anew in each resample.

    Args:
        counts: Scores and truth, (n, T, 2).
        times: How often each image counts, (R, n).
    """
    return average_precision(counts[..., 0], counts[..., 1] > 0, times).nanmean(dim=1)


MAP = Metric("mAP", mean_average_precision, lambda counts: counts[..., 1], weighs=True)
"""Mean over the tags of the precision down to each image that carries them."""


def image_truth(*sides: DenseFeatures) -> tuple[list[Tensor], int]:
    """Return what images show as a whole, and of how many classes.

    These are their tags, or, where a data set has none, which classes their masks show beside the background. Where each image has one tag
    they are labels.

    Args:
        *sides: Images to learn from and images that are scored, or only these.

    Returns:
        Labels (n,) int64 or tags (n, T) bool of each side, and T.
    """
    shown = [side.tags if side.tags.shape[1] else shown_classes(side) for side in sides]
    classes = shown[0].shape[1]
    if all(bool((side.sum(dim=1) == 1).all()) for side in shown):
        return [side.long().argmax(dim=1) for side in shown], classes
    return shown, classes


def shown_classes(features: DenseFeatures) -> Tensor:
    """Return which classes the mask of each of n images shows, (n, C) bool; the background is none of them."""
    shown = torch.zeros(len(features), features.num_classes, dtype=torch.bool)
    for image, mask in enumerate(features.labels):
        shown[image, mask[mask != VOID].unique().long()] = True
    return shown[:, int(_has_background(features)) :]


def image_names(features: DenseFeatures) -> tuple[str, ...]:
    """Return the names of what images show as a whole, in the order of `image_truth`."""
    masks = not features.tags.shape[1]
    return tuple(features.names[int(masks and _has_background(features)) :])


def _has_background(features: DenseFeatures) -> bool:
    """Return whether the first class of the masks is what no image lacks."""
    return features.num_classes > 1 and tuple(features.names[:1]) == ("background",)


def average_precision(scores: Tensor, tags: Tensor, times: Tensor | None = None) -> Tensor:
    """Return the average precision of each tag: the mean, over its images, of the precision down to each.

    Images of equal score are retrieved together.

    Args:
        scores: (n, T) float.
        tags: (n, T) bool.
        times: How often each image counts in each of R resamples, (R, n); None for once.

    Returns:
        (T,) float64 in [0, 1], or (R, T) with `times`; NaN for a tag that no image carries.

    Raises:
        ValueError: The shapes differ.
    """
    if scores.shape != tags.shape:
        message = f"expected scores and tags of one shape, got {tuple(scores.shape)} and {tuple(tags.shape)}"
        raise ValueError(message)
    weights = torch.ones(1, len(scores), dtype=torch.float64) if times is None else times.double()
    columns = [_precision(scores[:, tag], tags[:, tag], weights) for tag in range(scores.shape[1])]
    found = torch.stack(columns, dim=1) if columns else weights.new_zeros(len(weights), 0)
    return found[0] if times is None else found


def _precision(scores: Tensor, carried: Tensor, times: Tensor) -> Tensor:
    """Return the average precision of one tag in each resample, (R,)."""
    ordered, order = scores.sort(descending=True)
    _, tied = ordered.unique_consecutive(return_counts=True)
    last = (tied.cumsum(dim=0) - 1).repeat_interleave(tied)  # of the images of equal score
    counted = times[:, order]
    hits = counted * carried[order]
    precision = (hits.cumsum(dim=1) / counted.cumsum(dim=1).clamp_min(1))[:, last]
    return (hits * precision).sum(dim=1) / hits.sum(dim=1)
