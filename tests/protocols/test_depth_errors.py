"""Depth errors against numpy in float64, pooled and per image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paka.protocols.depth_errors import PER_IMAGE, POOLED, depth_counts, eigen_crop
from paka.statistics import bootstrap, paired_bootstrap


def maps(images: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimates within a factor of two of depth that is known in 70 % of the pixels, and nowhere in the last image."""
    generator = torch.Generator().manual_seed(1)
    depth = 0.2 + 9.0 * torch.rand(images, 12, 9, generator=generator)
    prediction = depth * 2.0 ** (2.0 * torch.rand(depth.shape, generator=generator) - 1.0)
    known = torch.rand(depth.shape, generator=generator) < 0.7
    known[-1] = False
    return prediction, torch.where(known, depth, 0.0)


def reference(prediction: np.ndarray, depth: np.ndarray) -> list[float]:
    guess, truth = (side[depth > 0].astype(np.float64) for side in (prediction, depth))
    ratio = np.maximum(guess / truth, truth / guess)
    rmse = np.sqrt(np.mean((guess - truth) ** 2))
    return [rmse, np.mean(np.abs(guess - truth) / truth), np.mean(ratio < 1.25)]


def test_pooled_scores_equal_numpy() -> None:
    prediction, depth = maps()
    pooled = depth_counts(prediction, depth).sum(dim=0)
    found = [float(metric.of(pooled)) for metric in POOLED]
    np.testing.assert_allclose(found, reference(prediction.numpy(), depth.numpy()), rtol=1e-12)


def test_means_per_image_equal_numpy_and_leave_out_images_of_unknown_depth() -> None:
    prediction, depth = maps()
    summed = depth_counts(prediction, depth).sum(dim=0)
    single = [reference(*(side[image].numpy() for side in (prediction, depth))) for image in range(4)]
    found = [float(metric.of(summed)) for metric in PER_IMAGE]
    np.testing.assert_allclose(found, np.mean(single, axis=0), rtol=1e-12)


def test_only_the_region_counts() -> None:
    prediction, depth = maps()
    region = torch.zeros(12, 9, dtype=torch.bool)
    region[2:7, 1:5] = True
    expected = depth_counts(prediction[:, 2:7, 1:5], depth[:, 2:7, 1:5])
    torch.testing.assert_close(depth_counts(prediction, depth, region), expected)
    assert not torch.equal(depth_counts(prediction, depth), expected)


def test_perfect_estimates_have_no_error() -> None:
    _, depth = maps()
    pooled = depth_counts(depth, depth).sum(dim=0)
    assert [float(metric.of(pooled)) for metric in (*POOLED, *PER_IMAGE)] == [0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("factor", [1.3, 0.7, 0.0])
def test_a_constant_factor_has_the_errors_of_its_closed_form(factor: float) -> None:
    depth = torch.full((2, 4, 4), 3.0)
    pooled = depth_counts(factor * depth, depth).sum(dim=0)
    expected = [3 * abs(factor - 1), abs(factor - 1), 0]
    np.testing.assert_allclose([float(metric.of(pooled)) for metric in POOLED], expected, rtol=1e-6)


def test_estimates_beside_unknown_depth_do_not_matter() -> None:
    prediction, depth = maps()
    spoilt = torch.where(depth > 0, prediction, torch.nan)
    assert torch.equal(depth_counts(spoilt, depth), depth_counts(prediction, depth))


def test_the_bootstrap_of_a_better_estimate_lies_below_zero() -> None:
    prediction, depth = maps(40)
    better = depth + 0.1 * (prediction - depth)
    before, after = (depth_counts(side, depth) for side in (prediction, better))
    for metric in (*POOLED, *PER_IMAGE):
        interval = paired_bootstrap(before, after, resamples=200, seed=0, metric=metric)
        assert (interval.low > 0) if metric.rises else (interval.high < 0), metric.name
    interval = bootstrap(before, resamples=200, seed=0, metric=POOLED[0])
    assert interval.low < float(POOLED[0].of(before.sum(dim=0))) < interval.high


def test_the_eigen_crop_is_that_of_nyu_and_scales() -> None:
    inside = eigen_crop((480, 640))
    assert inside[45:471, 41:601].all()
    assert inside.sum() == 426 * 560
    assert eigen_crop((240, 320)).float().mean() == pytest.approx(float(inside.float().mean()), rel=0.01)


def test_what_cannot_be_scored_is_refused() -> None:
    prediction, depth = maps()
    with pytest.raises(ValueError, match="one shape"):
        depth_counts(prediction[:, :3], depth)
    prediction[0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        depth_counts(prediction, depth)
