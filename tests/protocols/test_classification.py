"""Scores of image-level predictions against scikit-learn, and their bootstrap against one image at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from paka.features import DenseFeatures
from paka.protocols.classification import (
    MAP,
    TOP1,
    average_precision,
    check_truth,
    held_out,
    image_names,
    image_truth,
    outcome,
)
from paka.statistics import bootstrap, paired_bootstrap


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tagged(images: int = 60, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Coarse scores, so that many tie, and tags that follow them."""
    scores = torch.randint(0, 6, (images, 4), generator=generator(seed)).float()
    return scores, torch.rand(images, 4, generator=generator(seed + 1)) < 0.1 + 0.1 * scores


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_equals_scikit_learns(seed: int) -> None:
    scores, tags = tagged(seed=seed)
    expected = [average_precision_score(tags[:, t].numpy(), scores[:, t].numpy()) for t in range(4)]
    np.testing.assert_allclose(average_precision(scores, tags).numpy(), expected, rtol=1e-12)
    assert outcome(scores, tags).score == pytest.approx(np.mean(expected))


def test_resampled_average_precision_is_that_of_repeated_images() -> None:
    scores, tags = tagged()
    times = torch.randint(0, 4, (5, 60), generator=generator(7)).double()
    times[1] = 0
    found = average_precision(scores, tags, times)
    assert found.shape == (5, 4)
    for row, counts in zip(found[2:], times[2:].long(), strict=True):
        expected = average_precision(scores.repeat_interleave(counts, 0), tags.repeat_interleave(counts, 0))
        torch.testing.assert_close(row, expected)
    assert found[1].isnan().all(), "nothing was drawn"


def test_a_tag_that_no_image_carries_has_no_score() -> None:
    scores, tags = tagged()
    tags[:, 2] = False
    assert average_precision(scores, tags).isnan().tolist() == [False, False, True, False]
    others = [0, 1, 3]
    assert outcome(scores, tags).score == pytest.approx(outcome(scores[:, others], tags[:, others]).score)


def test_the_bootstrap_of_the_same_scores_shows_no_difference_and_its_interval_holds_the_score() -> None:
    scores, tags = tagged(300)
    side = outcome(scores, tags)
    assert paired_bootstrap(side.counts, side.counts, resamples=50, seed=0, metric=MAP) == (0, 0)
    interval = bootstrap(side.counts, resamples=400, seed=0, metric=MAP)
    assert interval.low < side.score < interval.high
    better = outcome(tags.float(), tags)
    low, high = paired_bootstrap(side.counts, better.counts, resamples=400, seed=0, metric=MAP)
    assert 0 < low < better.score - side.score < high
    with pytest.raises(ValueError, match="same images"):
        paired_bootstrap(side.counts, outcome(scores, ~tags).counts, resamples=5, seed=0, metric=MAP)
    with pytest.raises(ValueError, match="at least one image and one resample"):
        bootstrap(side.counts[:0], resamples=5, seed=0, metric=MAP)


def test_hits_are_counted_image_by_image() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    found = outcome(scores, torch.tensor([1, 1, 1]))
    assert found.metrics == (TOP1,)
    assert found.counts.tolist() == [[1, 1], [0, 1], [1, 1]]
    assert found.score == pytest.approx(2 / 3) == float(TOP1.of(found.counts.sum(dim=0)))
    assert outcome(scores, torch.ones(3, 2, dtype=torch.bool)).metrics == (MAP,)
    same = paired_bootstrap(found.counts, found.counts, resamples=20, seed=0, metric=TOP1)
    assert same == (0, 0)


def test_the_truth_is_tags_or_what_masks_show_and_labels_where_each_image_has_one() -> None:
    masks = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    masks[0, 0], masks[1, 1], masks[1, 2] = 2, 0, 1
    shown = DenseFeatures(torch.zeros(2, 2, 2, 3), masks, 3)
    (truth, same), classes = image_truth(shown, shown)
    assert truth.tolist() == [[False, False, True], [True, True, False]]
    assert torch.equal(truth, same)
    assert classes == 3
    tagged = DenseFeatures(torch.zeros(2, 2, 2, 3), masks, 3, tags=torch.eye(2, 5, dtype=torch.bool))
    (labels,), tags = image_truth(tagged)
    assert (labels.tolist(), tags) == ([0, 1], 5)
    (first, second), _ = image_truth(tagged, replace(tagged, tags=torch.ones(2, 5, dtype=torch.bool)))
    assert first.shape == second.shape == (2, 5), "labels only where each image of all has one"


def test_the_background_is_nothing_that_an_image_shows() -> None:
    masks = torch.zeros(2, 4, 4, dtype=torch.uint8)
    masks[0, 0], masks[1, 1], masks[1, 2] = 2, 1, 2
    shown = DenseFeatures(torch.zeros(2, 2, 2, 3), masks, 3, names=("background", "cat", "dog"))
    (truth,), classes = image_truth(shown)
    assert truth.tolist() == [[False, True], [True, True]]
    assert (classes, image_names(shown)) == (2, ("cat", "dog"))
    tagged = replace(shown, tags=torch.ones(2, 3, dtype=torch.bool))
    assert image_names(tagged) == ("background", "cat", "dog"), "tags are taken as they are"


def test_a_tenth_is_held_out() -> None:
    fit, held = held_out(50, seed=3)
    assert len(held) == 5
    assert torch.equal(torch.cat([fit, held]).sort().values, torch.arange(50))
    assert not torch.equal(held, held_out(50, seed=4)[1])
    assert [len(part) for part in held_out(2, seed=0)] == [1, 1]
    with pytest.raises(ValueError, match="at least 2 training images"):
        held_out(1, seed=0)


@pytest.mark.parametrize(
    "truth",
    [
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(4, dtype=torch.uint8),
        torch.zeros(4, 2, dtype=torch.bool),
        torch.zeros(4, 3),
        torch.tensor([0, 1, 2, 3]),
        torch.tensor([0, 1, 2, -1]),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(truth: Tensor) -> None:
    check_truth(torch.tensor([0, 1, 2, 2]), 4, 3)
    check_truth(torch.zeros(4, 3, dtype=torch.bool), 4, 3)
    with pytest.raises(ValueError, match="expected labels"):
        check_truth(truth, 4, 3)


def test_scores_of_other_tags_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        average_precision(torch.zeros(4, 3), torch.zeros(4, 2, dtype=torch.bool))
