"""Region similarity and boundary accuracy against loops over pixels in float64, closed forms and the toolkit's corner cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from paka.protocols.region_boundary import (
    OBJECTS,
    boundary,
    boundary_accuracy,
    disk,
    object_scores,
    region_similarity,
    video_counts,
)
from paka.sources import VOID
from paka.statistics import bootstrap, paired_bootstrap

Mask = NDArray[np.bool_]


def blobs(seed: int, size: tuple[int, int] = (40, 56)) -> Mask:
    """A random region of a few rectangles."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    for _ in range(3):
        top, left = rng.integers(0, size[0] - 8), rng.integers(0, size[1] - 8)
        mask[top : top + rng.integers(3, 20), left : left + rng.integers(3, 20)] ^= True
    return mask


def square(top: int, left: int, *, side: int = 12, size: tuple[int, int] = (60, 80)) -> Mask:
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def boundary_pixels(mask: Mask) -> set[tuple[int, int]]:
    """Pixels that differ from one of their neighbours to the right, below, or both, as far as these exist."""
    rows, columns = mask.shape
    found = set()
    for y in range(rows):
        for x in range(columns):
            others = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if any(mask[y, x] != mask[b, a] for b, a in others if b < rows and a < columns):
                found.add((y, x))
    return found


def share_matched(pixels: set[tuple[int, int]], others: set[tuple[int, int]], reach: int) -> float:
    near = sum(any((y - b) ** 2 + (x - a) ** 2 <= reach**2 for b, a in others) for y, x in pixels)
    return near / len(pixels)


def reference_f(prediction: Mask, truth: Mask) -> float:
    found, wanted = boundary_pixels(prediction), boundary_pixels(truth)
    if not found or not wanted:
        return float(not found and not wanted)
    reach = math.ceil(0.008 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    precision, recall = share_matched(found, wanted, reach), share_matched(wanted, found, reach)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [(40, 56), (30, 130)])
def test_scores_are_those_of_loops_over_pixels(seed: int, size: tuple[int, int]) -> None:
    prediction, truth = blobs(seed, size), blobs(seed + 100, size)
    prediction[5:20] = truth[5:20]  # so that parts of the boundaries agree
    pairs = list(zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True))
    expected = sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs)
    assert region_similarity(prediction, truth) == pytest.approx(expected, abs=1e-12)
    assert boundary_accuracy(prediction, truth) == pytest.approx(reference_f(prediction, truth), abs=1e-12)
    assert 0 < boundary_accuracy(prediction, truth) < 1


@pytest.mark.parametrize("edge", ["top", "left", "bottom", "right", "whole"])
def test_boundaries_are_those_of_loops_over_pixels_at_the_edges_too(edge: str) -> None:
    mask = np.zeros((9, 11), bool)
    part = {
        "top": np.s_[:3, 2:6],
        "left": np.s_[3:7, :4],
        "bottom": np.s_[6:, 3:8],
        "right": np.s_[2:5, 8:],
        "whole": np.s_[:, :],
    }
    mask[part[edge]] = True
    assert {(int(y), int(x)) for y, x in np.argwhere(boundary(mask))} == boundary_pixels(mask)
    assert boundary(mask).any() == (edge != "whole")


def test_a_mask_is_like_itself_and_unlike_another() -> None:
    one, other = square(5, 5), square(40, 60)
    assert region_similarity(one, one) == boundary_accuracy(one, one) == 1.0
    assert region_similarity(one, other) == boundary_accuracy(one, other) == 0.0


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_shift_of_a_square_costs_region_but_no_boundary_within_the_tolerance(shift: int) -> None:
    # The diagonal of 60 x 80 is 100, of which 0.8 % are rounded up to 1 pixel.
    one, other = square(20, 30), square(20, 30 + shift)
    assert region_similarity(one, other) == pytest.approx((12 - shift) / (12 + shift))
    assert (boundary_accuracy(one, other) == 1.0) == (shift <= 1)


def test_the_tolerance_grows_with_the_image() -> None:
    found = {}
    for scale in (1, 8):
        size = 60 * scale, 80 * scale
        one, other = (square(20, left, size=size) for left in (30, 35))
        found[scale] = boundary_accuracy(one, other)
    assert found[8] == 1.0, "0.8 % of 800 are 6.4, rounded up to 7 pixels"
    assert found[1] < 0.5


def test_both_scores_are_symmetric() -> None:
    one, other = blobs(1), blobs(2)
    for score in (region_similarity, boundary_accuracy):
        assert score(one, other) == score(other, one)


def test_empty_regions() -> None:
    nothing, something = np.zeros((60, 80), bool), square(5, 5)
    for score in (region_similarity, boundary_accuracy):
        assert score(nothing, nothing) == 1.0
        assert score(nothing, something) == score(something, nothing) == 0.0


def test_a_disk_holds_what_is_within_its_radius() -> None:
    assert disk(0).tolist() == [[1]]
    assert disk(1).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    assert disk(8).sum() == sum(x * x + y * y <= 64 for x in range(-8, 9) for y in range(-8, 9))


def test_void_belongs_to_no_object() -> None:
    truth = np.where(square(20, 30), 1, 0).astype(np.uint8)
    prediction = truth.copy()
    prediction[40:, :] = 1
    assert object_scores(prediction, truth, [1])[0, 0] < 0.1
    truth[40:, :] = VOID
    assert object_scores(prediction, truth, [1]).tolist() == [[1.0, 1.0]]
    half = truth.copy()
    half[:, :36] = VOID  # half of the object is not known
    assert object_scores(prediction, half, [1]).tolist() == [[1.0, 1.0]]


def test_objects_are_scored_one_by_one() -> None:
    truth = np.where(square(5, 5), 1, np.where(square(40, 60), 2, 0)).astype(np.uint8)
    swapped = np.array([0, 2, 1], np.uint8)[truth]
    assert object_scores(truth, truth, [1, 2, 7]).tolist() == [[1.0, 1.0]] * 3, "7 is nowhere in both"
    assert object_scores(swapped, truth, [1, 2]).tolist() == [[0.0, 0.0]] * 2
    with pytest.raises(ValueError, match=r"masks? of one shape, got \(60, 80\) and \(59, 80\)"):
        object_scores(truth, truth[1:], [1])


def test_scores_are_averaged_over_frames_then_over_objects_of_all_videos() -> None:
    rng = np.random.default_rng(0)
    videos = [rng.uniform(size=(frames, objects, 2)) for frames, objects in ((5, 1), (3, 4), (7, 2))]
    counts = torch.stack([video_counts(list(video), video.shape[1]) for video in videos])
    per_object = np.concatenate([video.mean(axis=0) for video in videos])
    means = [per_object.mean(), per_object[:, 0].mean(), per_object[:, 1].mean()]
    assert [metric.name for metric in OBJECTS] == ["J&F", "J", "F"]
    assert [metric.once(counts) for metric in OBJECTS] == pytest.approx(means)
    assert not np.isclose(means[0], np.mean([video.mean() for video in videos])), "not the mean over videos"


def test_a_video_without_scored_frames_counts_for_nothing() -> None:
    scored = video_counts([np.full((2, 2), 0.5)], 2)
    counts = torch.stack([scored, video_counts([], 3)])
    assert counts[1].tolist() == [0, 0, 0]
    assert OBJECTS[0].once(counts) == 0.5


def test_videos_are_what_the_bootstrap_draws() -> None:
    same = torch.tensor([[0.5, 0.7, 1.0], [1.0, 1.4, 2.0]], dtype=torch.float64)
    for metric, value in zip(OBJECTS, (0.6, 0.5, 0.7), strict=True):
        assert bootstrap(same, resamples=50, seed=0, metric=metric) == pytest.approx((value, value))
    better = same + torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64)
    found = paired_bootstrap(same, better, resamples=50, seed=0, metric=OBJECTS[1])
    assert found.low >= 0.05 - 1e-12
    assert found.high <= 0.1 + 1e-12
