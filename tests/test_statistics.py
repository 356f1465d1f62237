"""Counts, data-set mIoU and the paired bootstrap, against scikit-learn and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score

from paka.statistics import confusion_matrices, mean_iou, paired_bootstrap


def maps(seed: int = 0, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (6, 10, 12), generator=generator).to(torch.uint8)
    wrong = torch.rand(labels.shape, generator=generator) < 0.4
    prediction = torch.where(wrong, torch.randint(0, classes, labels.shape, generator=generator), labels)
    labels[:, :2] = 255
    return prediction.to(torch.uint8), labels


def test_confusion_equals_scikit_learns_per_image() -> None:
    prediction, labels = maps()
    counts = confusion_matrices(prediction, labels, 4)
    for image in range(6):
        known = labels[image] != 255
        expected = confusion_matrix(labels[image][known], prediction[image][known], labels=range(4))
        np.testing.assert_array_equal(counts[image].numpy(), expected)


def test_mean_iou_pools_counts_over_the_data_set() -> None:
    prediction, labels = maps()
    counts = confusion_matrices(prediction, labels, 4)
    known = labels != 255
    expected = jaccard_score(labels[known], prediction[known], average="macro")
    assert mean_iou(counts.sum(dim=0)).item() == pytest.approx(expected)
    assert mean_iou(counts).mean().item() != pytest.approx(expected, abs=1e-4)


def test_mean_iou_equals_scikit_learns_where_void_is_anywhere_and_classes_are_absent() -> None:
    prediction, labels = maps()
    generator = torch.Generator().manual_seed(1)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    named = torch.full((256,), 255, dtype=torch.uint8)
    named[:4] = torch.tensor([0, 2, 5, 6])
    prediction, labels = named[prediction.long()], named[labels.long()]
    known = labels != 255
    counts = confusion_matrices(prediction, labels, 9).sum(dim=0)
    expected = jaccard_score(labels[known], prediction[known], average="macro")
    assert mean_iou(counts).item() == pytest.approx(expected)
    assert mean_iou(counts, absent="zero").item() == pytest.approx(expected * 4 / 9)


def test_classes_that_never_occur_do_not_count() -> None:
    counts = torch.zeros(5, 5, dtype=torch.int64)
    counts[0, 0], counts[1, 1], counts[1, 2] = 10, 5, 5
    assert mean_iou(counts).item() == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert math.isnan(mean_iou(torch.zeros(3, 3)).item())


def test_void_alone_counts_nothing() -> None:
    void = torch.full((2, 3, 3), 255, dtype=torch.uint8)
    assert confusion_matrices(torch.zeros_like(void), void, 3).sum() == 0


def test_bad_maps_are_refused() -> None:
    prediction, labels = maps()
    with pytest.raises(ValueError, match="one shape"):
        confusion_matrices(prediction[:3], labels, 4)
    with pytest.raises(ValueError, match="class ids below 3, got 3"):
        confusion_matrices(prediction, labels, 3)


def test_bootstrap_equals_a_plain_loop() -> None:
    prediction, labels = maps()
    better = torch.where(torch.rand(labels.shape) < 0.5, labels, prediction)
    before, after = (confusion_matrices(p, labels, 4) for p in (prediction, better))
    interval = paired_bootstrap(before, after, resamples=200, seed=3)
    drawn = torch.randint(6, (200, 6), generator=torch.Generator().manual_seed(3))
    differences = [mean_iou(after[rows].sum(0)) - mean_iou(before[rows].sum(0)) for rows in drawn]
    expected = np.percentile([float(d) for d in differences], [2.5, 97.5])
    np.testing.assert_allclose(interval, expected, atol=1e-9)
    assert interval.low < float(mean_iou(after.sum(0)) - mean_iou(before.sum(0))) < interval.high


def test_bootstrap_of_no_change_is_zero_and_needs_the_same_images() -> None:
    prediction, labels = maps()
    counts = confusion_matrices(prediction, labels, 4)
    assert paired_bootstrap(counts, counts, resamples=50, seed=0) == (0.0, 0.0)
    with pytest.raises(ValueError, match="same images before and after"):
        paired_bootstrap(counts, counts.flip(0), resamples=50, seed=0)


def test_bootstrap_leaves_out_resamples_without_a_labelled_pixel() -> None:
    before = torch.zeros(4, 2, 2, dtype=torch.int64)
    after = before.clone()
    before[0], after[0] = torch.tensor([[6, 2], [0, 4]]), torch.tensor([[8, 0], [0, 4]])
    gain = float(mean_iou(after[0]) - mean_iou(before[0]))
    assert paired_bootstrap(before, after, resamples=200, seed=0) == pytest.approx((gain, gain))
    nothing = torch.zeros_like(before)
    assert all(math.isnan(end) for end in paired_bootstrap(nothing, nothing, resamples=5, seed=0))


def test_bootstrap_needs_images_and_resamples() -> None:
    counts = torch.ones(3, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="one image and one resample, got 3 and 0"):
        paired_bootstrap(counts, counts, resamples=0, seed=0)
    with pytest.raises(ValueError, match="one image and one resample, got 0 and 5"):
        paired_bootstrap(counts[:0], counts[:0], resamples=5, seed=0)
