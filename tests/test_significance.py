"""Intervals and tests against scipy, closed forms, and simulations in which nothing differs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from paka.significance import Resamples, Source, holm, over_seeds, paired, student, unpaired

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_mean_over_seeds_has_the_t_interval(n: int) -> None:
    values = RNG.normal(20, 1, n)
    found = over_seeds([*values])
    assert found is not None
    expected = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert found[:3] == pytest.approx((values.mean(), *expected))


def test_one_seed_has_no_interval_and_equal_seeds_one_without_width() -> None:
    assert over_seeds([20.0]) is None
    assert over_seeds([20.0, 20.0])[:3] == (20.0, 20.0, 20.0)


def test_without_images_it_is_the_paired_t_test() -> None:
    first, second = RNG.normal(20, 1, 5), RNG.normal(20.5, 1, 5)
    found = paired([*(first - second)])
    expected = stats.ttest_rel(first, second)
    assert found is not None
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_with_one_seed_it_is_what_the_images_say() -> None:
    values = RNG.normal(0.5, 0.2, 1000)
    found = paired([0.5], Resamples(values, 250))
    error = values.std(ddof=1)
    assert found is not None
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 249) * error)
    assert found.p == pytest.approx(2 * stats.t.sf(0.5 / error, 249), rel=1e-6)
    assert paired([0.5]) is None
    with_holes = np.concatenate([values, [math.nan]])
    assert paired([0.5], Resamples(with_holes, 250)) == found


def test_margins_add_up_as_squares_and_p_belongs_to_the_interval() -> None:
    sources = [Source(0.04, 2), Source(0.09, 99), Source(0.01, 1)]
    found = student(3.0, sources)
    assert found is not None
    squares = [stats.t.ppf(0.975, freedom) ** 2 * variance for variance, freedom in sources]
    assert found.high - 3.0 == pytest.approx(math.sqrt(sum(squares)))
    at_the_edge = student(found.high - 3.0, sources)
    assert at_the_edge is not None
    assert at_the_edge.p == pytest.approx(0.05, rel=1e-6)
    assert at_the_edge.low == pytest.approx(0, abs=1e-9)


def test_what_is_not_uncertain_is_not_tested() -> None:
    assert paired([0.0, 0.0]) == (0.0, 0.0, 0.0, 1.0)
    assert paired([0.5, 0.5]) is None  # rounded scores, perhaps: no reason to be sure
    assert paired([0.5, 0.5 + 1e-15]) is None
    assert paired([0.5, 0.5], Resamples(RNG.normal(0.5, 0.1, 100), 50)) is not None


def test_different_seeds_are_compared_by_their_means() -> None:
    first, second = [20.0, 21.0, 22.0], [18.0, 18.5]
    found = unpaired(first, second)
    assert found is not None
    assert found.value == pytest.approx(2.75)
    assert found.low < 2.75 - stats.t.ppf(0.975, 3) * math.sqrt(1 / 3 + 0.125 / 2)  # wider than Student's
    assert unpaired(first, [18.0]) is None


def test_holm_as_in_the_paper() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("seeds", [1, 2, 4])
@pytest.mark.parametrize(
    ("of_seeds", "of_images", "of_both"), [(0.3, 0.0, 0.5), (0.02, 1.0, 0.2), (0.1, 1.0, 1.0)]
)
def test_false_alarms_are_rare(seeds: int, of_seeds: float, of_images: float, of_both: float) -> None:
    """Two configurations that differ by chance only: in seeds, in which images suit them, and in both together."""
    rng = np.random.default_rng(seeds)
    images, resamples, trials = 60, 120, 300
    alarms = 0
    for _ in range(trials):
        suits = rng.normal(0, of_images, images)
        seed = rng.normal(0, of_seeds if seeds > 1 else 0, (seeds, 1))
        differences = suits + seed + rng.normal(0, of_both, (seeds, images))
        drawn = rng.integers(0, images, (resamples, images))
        values = differences.mean(axis=0)[drawn].mean(axis=1)
        found = paired([*differences.mean(axis=1)], Resamples(values, images))
        assert found is not None
        alarms += found.p < 0.05
        assert (found.low > 0 or found.high < 0) == (found.p < 0.05)
    # A bootstrap of 120 resamples knows its variance by so much.
    assert alarms / trials < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_differences_are_found() -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(200):
        values = rng.normal(1.0, 0.15, 200)
        estimate = paired([*rng.normal(1.0, 0.1, 3)], Resamples(values, 250))
        found += estimate is not None and estimate.p < 0.05
    assert found > 180
