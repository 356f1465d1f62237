from __future__ import annotations

import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.protocols.synthetic import PROFILE

from paka.per_class import COLUMNS, ClassScore, class_scores, class_table, write_class_scores
from paka.protocols import Outcome
from paka.result import Result
from paka.statistics import draws

RNG = np.random.default_rng(0)
CLASSES = ("sky", "road", "tree", "unseen")
IMAGES = 9


def counts(seed: int) -> torch.Tensor:
    """Pixels by true and predicted class of some images; the last class never occurs."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 50, (IMAGES, 4, 4)) + 60 * np.eye(4, dtype=int)
    pixels[:, 3], pixels[:, :, 3] = 0, 0
    return torch.from_numpy(pixels)


def result(*seeds: int) -> Result:
    return Result(tuple(Outcome(counts(seed), (PROFILE.iou,)) for seed in seeds))


def benchmark(**changes: object) -> SimpleNamespace:
    return SimpleNamespace(
        profile=replace(PROFILE, **changes), seed=3, query=SimpleNamespace(classes=CLASSES)
    )


def iou(pooled: np.ndarray) -> np.ndarray:
    """IoU of each class in float64, by the definition."""
    values = [
        pooled[c, c] / (pooled[c].sum() + pooled[:, c].sum() - pooled[c, c]) if pooled[c].any() else np.nan
        for c in range(len(pooled))
    ]
    return np.array(values, dtype=np.float64)


def test_scores_are_means_over_seeds_of_pooled_counts():
    scores = class_scores(benchmark(), "linear", result(1, 2), result(3, 4), method="paka")
    assert [score.name for score in scores] == list(CLASSES[:3]), "what does not occur has no score"
    before, after = (
        np.mean([iou(counts(seed).sum(dim=0).numpy()) for seed in seeds], axis=0)
        for seeds in ((1, 2), (3, 4))
    )
    pixels = counts(1).sum(dim=(0, 2)).numpy()
    for c, score in enumerate(scores):
        assert (score.protocol, score.method) == ("linear", "paka")
        assert score.before == pytest.approx(100 * before[c])
        assert score.after == pytest.approx(100 * after[c])
        assert score.delta == pytest.approx(100 * (after[c] - before[c]))
        assert score.share == pytest.approx(100 * pixels[c] / pixels.sum())


def test_intervals_are_those_of_resampled_images():
    scores = class_scores(benchmark(), "linear", result(1), result(2))
    times = draws(IMAGES, PROFILE.bootstrap, 3).numpy()
    differences = np.array(
        [
            iou(np.tensordot(t, counts(2).numpy(), 1)) - iou(np.tensordot(t, counts(1).numpy(), 1))
            for t in times
        ]
    )
    for c, score in enumerate(scores):
        low, high = np.percentile(100 * differences[:, c], (2.5, 97.5))
        assert (score.ci_low, score.ci_high) == pytest.approx((low, high))


def test_equal_sides_differ_in_nothing_and_one_side_has_its_own_interval():
    for score in class_scores(benchmark(), "linear", result(1), result(1)):
        assert (score.delta, score.ci_low, score.ci_high, score.verdict) == (0, 0, 0, "")
    for score in class_scores(benchmark(), "linear", result(1), None):
        assert score.after is score.delta is None
        assert score.ci_low < score.before < score.ci_high


def test_matched_predictions_are_matched_over_all_images():
    order = torch.tensor([2, 0, 1, 3])
    shuffled = Result((Outcome(counts(1)[:, :, order], (PROFILE.iou,)),))
    plain = class_scores(benchmark(), "linear", result(1), None)
    matched = class_scores(benchmark(matching=True), "linear", shuffled, None)
    assert matched == plain
    assert class_scores(benchmark(), "linear", shuffled, None) != plain


def test_a_class_that_is_rare_keeps_the_resamples_it_occurs_in():
    rare = counts(1)
    rare[1:, 2], rare[1:, :, 2] = 0, 0
    scores = class_scores(benchmark(), "linear", Result((Outcome(rare, (PROFILE.iou,)),)), None)
    assert scores[2].name == "tree"
    assert scores[2].ci_low is not None


SCORE = ClassScore("linear", "paka", "sky", 12.345, 40.214, 45.126, 4.912, 3.9, 5.9)


def test_text_is_signed_for_readers_and_plain_in_files(tmp_path):
    header, rows = class_table([SCORE, replace(SCORE, after=None, delta=None, ci_low=None)])
    assert header == ("class", "% of pixels", "before", "after", "delta", "95 % interval")
    assert rows[0] == ("sky", "12.35", "40.21", "45.13", "+4.91", "[+3.90, +5.90]")
    assert rows[1] == ("sky", "12.35", "40.21", "", "", "")
    write_class_scores(tmp_path / "c.csv", [SCORE])
    found = list(csv.reader((tmp_path / "c.csv").read_text().splitlines()))
    assert (
        tuple(found[0])
        == COLUMNS
        == ("protocol", "method", "class", "share", "before", "after", "delta", "ci_low", "ci_high")
    )
    assert found[1] == ["linear", "paka", "sky", "12.35", "40.21", "45.13", "4.91", "3.90", "5.90"]


def test_text_of_one_side():
    header, (row,) = class_table([replace(SCORE, after=None, delta=None, ci_low=38.0, ci_high=42.0)])
    assert header == ("class", "% of pixels", "IoU", "95 % interval")
    assert row == ("sky", "12.35", "40.21", "[38.00, 42.00]")
