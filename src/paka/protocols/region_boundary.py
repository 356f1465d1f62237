"""How well objects are segmented through a video: region similarity J and boundary accuracy F.

The measures of DAVIS (Perazzi et al., CVPR 2016; Pont-Tuset et al., 2017, arXiv 1704.00675), as its toolkit computes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paka.sources import VOID
from paka.statistics import Metric

TOLERANCE = 0.008
"""Share of the image's diagonal by which boundaries may be off."""

Mask = NDArray[np.bool_]


def object_scores(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8], objects: Iterable[int]
) -> NDArray[np.float64]:
    """Return J and F of each object in one frame, (objects, 2) float64 in [0, 1].

    Void pixels count as no part of any object, in truth and prediction.

    Args:
        prediction: Predicted numbers of objects, (H, W) uint8.
        truth: The true ones, (H, W) uint8 with 255 for void.
        objects: Numbers of the objects.

    Raises:
        ValueError: The shapes differ.
    """
    if prediction.shape != truth.shape:
        message = (
            f"expected a predicted and a true mask of one shape, got {prediction.shape} and {truth.shape}"
        )
        raise ValueError(message)
    known = truth != VOID
    pairs = [((prediction == number) & known, truth == number) for number in objects]
    return np.array([[region_similarity(*pair), boundary_accuracy(*pair)] for pair in pairs]).reshape(-1, 2)


def region_similarity(prediction: Mask, truth: Mask) -> float:
    """Return J, the intersection over union of two regions (H, W), in [0, 1]; 1 if both are empty."""
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


def boundary_accuracy(prediction: Mask, truth: Mask) -> float:
    """Return F, the harmonic mean of precision and recall of a region's boundary, in [0, 1].

    A boundary pixel is right if the other boundary has one within the tolerance of `TOLERANCE`, in whole pixels rounded up.
    This dilation stands in for a bipartite matching of boundary pixels, which it bounds from above. An empty boundary beside
    another that is not scores 0, two empty ones 1.

    Args:
        prediction: Predicted region, (H, W).
        truth: True region, (H, W).
    """
    found, wanted = boundary(prediction), boundary(truth)
    counts = np.count_nonzero(found), np.count_nonzero(wanted)
    if not all(counts):
        return float(counts[0] == counts[1])
    reach = disk(math.ceil(TOLERANCE * math.hypot(*truth.shape)))
    precision = np.count_nonzero(found & _dilated(wanted, reach)) / counts[0]
    recall = np.count_nonzero(wanted & _dilated(found, reach)) / counts[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(region: Mask) -> Mask:
    """Return the boundary of a region, (H, W), one pixel wide: pixels unlike that right of, below or diagonally below them.

    What lies outside the image is like the pixel next to it, so the edge of the image is no boundary.
    """
    padded = np.pad(region, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.asarray((region != right) | (region != below) | (region != diagonal))


def disk(radius: int) -> NDArray[np.uint8]:
    """Return which pixels lie within a radius of the middle one, (2 radius + 1, 2 radius + 1) uint8."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(y * y + x * x <= radius * radius, dtype=np.uint8)


def _dilated(pixels: Mask, reach: NDArray[np.uint8]) -> Mask:
    return np.asarray(cv2.dilate(pixels.astype(np.uint8), reach) > 0)


def video_counts(frames: Iterable[NDArray[np.float64]], objects: int) -> Tensor:
    """Return the counts of one video: the sums over its objects of J and of F, and the number of objects, (3,) float64.

    J and F of an object are means over the frames. A video of which no frame is scored has no object that counts.

    Args:
        frames: Scores of the objects in each frame that is scored, (objects, 2) each; see `object_scores`.
        objects: Number of objects.
    """
    scores = [*frames]
    if not scores:
        return torch.zeros(3, dtype=torch.float64)
    sums = np.mean(scores, axis=0).sum(axis=0)
    return torch.tensor([*sums.tolist(), objects], dtype=torch.float64)


def _both(counts: Tensor) -> Tensor:
    return (counts[..., 0] + counts[..., 1]) / (2 * counts[..., 2])


def _region(counts: Tensor) -> Tensor:
    return counts[..., 0] / counts[..., 2]


def _boundary(counts: Tensor) -> Tensor:
    return counts[..., 1] / counts[..., 2]


def _objects(counts: Tensor) -> Tensor:
    return counts[..., 2]


OBJECTS = (Metric("J&F", _both, _objects), Metric("J", _region, _objects), Metric("F", _boundary, _objects))
"""Means over the objects of all videos, of summed counts: of J and F together, and of each.

Counts are per video, not per object: objects of one video fail together, so the bootstrap draws videos.
"""
