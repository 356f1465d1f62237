"""Errors of estimated depth, as sums per image that data-set scores and their bootstrap are computed from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from paka.features import DenseFeatures
from paka.protocols import Outcome, Profile, counted
from paka.statistics import Metric

CLOSE = 1.25
"""Factor up to which an estimate counts as close for delta1."""

EIGEN_SIZE = (480, 640)
EIGEN_ROWS = (45, 471)
EIGEN_COLUMNS = (41, 601)
"""Size of the images of NYU Depth V2, and the rows and columns of them that are scored."""


def eigen_crop(size: tuple[int, int]) -> Tensor:
    """Return which pixels of an image lie in the Eigen crop of NYU Depth V2, bool of that size.

    Images of another size than 480 x 640 get the same shares of their sides, rounded to whole pixels.

    Args:
        size: Height H and width W in pixels.

    Source: Eigen et al., 2014 (arXiv 1406.2283); rows 45 to 470 and columns 41 to 600, counted from 0.
    """
    inside = torch.zeros(size, dtype=torch.bool)
    (top, bottom), (left, right) = (
        (round(low * side / whole), round(high * side / whole))
        for (low, high), side, whole in zip((EIGEN_ROWS, EIGEN_COLUMNS), size, EIGEN_SIZE, strict=True)
    )
    inside[top:bottom, left:right] = True
    return inside


def depth_counts(prediction: Tensor, depth: Tensor, region: Tensor | None = None) -> Tensor:
    """Sum the errors of each image over its pixels of known depth.

    Args:
        prediction: Estimated depth in metres, (n, H, W) float.
        depth: True depth in metres, (n, H, W) float with 0 where it is not known.
        region: Which pixels are scored, (H, W) bool; None for all.

    Returns:
        (n, 8) float64. Over the scored pixels: their number, the sums of squared errors in square metres and of
        errors relative to the true depth, the number of close ones. Of the image as a whole: 1 if it has scored
        pixels, and its RMSE, AbsRel and delta1; all 0 without such pixels.

    Raises:
        ValueError: The shapes differ, or an estimate that is scored is not finite.
    """
    if prediction.shape != depth.shape:
        message = f"expected estimated and true depth of one shape, got {tuple(prediction.shape)} and {tuple(depth.shape)}"
        raise ValueError(message)
    # One image at a time: float64 maps are twice the size of what they are made of.
    return torch.stack([_counts(*maps, region) for maps in zip(prediction, depth, strict=True)])


def _counts(prediction: Tensor, depth: Tensor, region: Tensor | None) -> Tensor:
    known = depth > 0 if region is None else (depth > 0) & region
    guess, truth = prediction[known].double(), depth[known].double()
    if not bool(guess.isfinite().all()):
        raise ValueError("expected finite depth, got estimates that are not: lower the learning rate")
    error = guess - truth
    # Close is said by products: a quotient would call an estimate of 0, or below, no error or divide by it.
    close = (guess < CLOSE * truth) & (truth < CLOSE * guess)
    sums = torch.stack([error.square().sum(), (error.abs() / truth).sum(), close.double().sum()])
    pixels = torch.tensor([float(len(truth))], dtype=torch.float64)
    means = sums / pixels.clamp_min(1)
    means[0] = means[0].sqrt()
    return torch.cat([pixels, sums.cpu(), (pixels > 0).double(), means.cpu()])


def _pooled_rmse(counts: Tensor) -> Tensor:
    return (counts[..., 1] / counts[..., 0]).sqrt()


def _pooled_abs_rel(counts: Tensor) -> Tensor:
    return counts[..., 2] / counts[..., 0]


def _pooled_delta1(counts: Tensor) -> Tensor:
    return counts[..., 3] / counts[..., 0]


def _mean_rmse(counts: Tensor) -> Tensor:
    return counts[..., 5] / counts[..., 4]


def _mean_abs_rel(counts: Tensor) -> Tensor:
    return counts[..., 6] / counts[..., 4]


def _mean_delta1(counts: Tensor) -> Tensor:
    return counts[..., 7] / counts[..., 4]


def _pixels(counts: Tensor) -> Tensor:
    return counts[..., 0]


POOLED = (
    Metric("RMSE", _pooled_rmse, _pixels, unit="m", rises=False),
    Metric("AbsRel", _pooled_abs_rel, _pixels, unit="", rises=False),
    Metric("delta1", _pooled_delta1, _pixels),
)
"""Scores over all pixels of a data set, of summed counts; RMSE in metres."""

PER_IMAGE = (
    Metric("RMSE per image", _mean_rmse, _pixels, unit="m", rises=False),
    Metric("AbsRel per image", _mean_abs_rel, _pixels, unit="", rises=False),
    Metric("delta1 per image", _mean_delta1, _pixels),
)
"""Means over the images of each image's own score, of summed counts."""


def depth_estimate(
    predictions: Iterable[Tensor],
    query: DenseFeatures,
    profile: Profile,
    region: Tensor | None = None,
    stated: Mapping[str, Any] | None = None,
) -> Outcome:
    """Sum the errors of estimated depth as it comes, and keep what is shown of it.

    Args:
        predictions: Estimated depth of consecutive images in metres, (b, H, W) float each.
        query: Their true depth.
        profile: Reads `depth_mean`.
        region: Which pixels are scored, (H, W) bool; None for all.
        stated: See `Outcome.stated`.
    """
    counts, pictures = counted(
        predictions, query.shown, lambda part, rows: depth_counts(part, query.depth[rows], region)
    )
    metrics = POOLED if profile.depth_mean == "pixels" else PER_IMAGE
    return Outcome(counts, metrics, pictures, stated or {})
