"""Whether scores differ: intervals of means over seeds, tests over seeds and images, correction for many tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from paka.colours import Floats

LEVEL = 0.05
"""Of tests, after correction; intervals hold 95 %."""
SMALLEST = 1e-15
"""P value that any smaller one is given as."""
ROUNDING = 1e-9
"""Share of a value, or of 1, up to which its standard error is rounding."""


class Estimate(NamedTuple):
    """A mean or a difference of means.

    Attributes:
        value: The estimate.
        low: Lower end of its 95 % interval.
        high: Upper end of it.
        p: Probability of a value as far from zero, if there is truly none.
    """

    value: float
    low: float
    high: float
    p: float


class Source(NamedTuple):
    """A source of uncertainty of an estimate.

    Attributes:
        variance: Variance of the estimate that comes from it.
        freedom: Degrees of freedom that the variance is known by.
    """

    variance: float
    freedom: float


class Resamples(NamedTuple):
    """How much an estimate moves with the images.

    Attributes:
        values: The estimate of each of R resamples of the images, (R,); NaN where one has none.
        images: Number of images.
    """

    values: Floats
    images: int


def over_seeds(values: Sequence[float]) -> Estimate | None:
    """Return the mean over seeds with its t interval; None of a single seed.

    Of equal values, as of encoders that no seed changes, the interval has no width.
    """
    mean = float(np.mean(values))
    if len(values) > 1 and np.ptp(values) == 0:
        return Estimate(mean, mean, mean, 0.0 if mean else 1.0)
    return student(mean, [*_seeds(values)])


def paired(differences: Sequence[float], resamples: Resamples | None = None) -> Estimate | None:
    """Return the mean of differences between two configurations, one for each seed that both have.

    What seeds and what images add to its uncertainty are estimated apart: the variance of the differences over seeds on
    the images as they are, and the paired bootstrap variance of their mean over resampled images (Efron and Tibshirani
    1993). What both do together enters twice, so that this is rather too careful than not careful enough.

    Args:
        differences: One for each seed, (n,).
        resamples: Their mean on resampled images; without, this is the paired t test over seeds.

    Returns:
        The estimate; None where nothing says how uncertain it is, as with one seed and no resamples.
    """
    return student(float(np.mean(differences)), [*_seeds(differences), *_images(resamples)])


def unpaired(
    first: Sequence[float], second: Sequence[float], resamples: Resamples | None = None
) -> Estimate | None:
    """Return the difference of the means over seeds of two configurations that share none, `first - second`.

    As `paired`, with the variances over seeds of each of the two.

    Args:
        first: Scores of the seeds of one, (n,).
        second: Scores of those of the other, (m,).
        resamples: The difference of the means on resampled images.

    Returns:
        The estimate; None where one has a single seed, since other seeds are then not to be told from the difference.
    """
    if min(len(first), len(second)) < 2:
        return None
    sources = [*_seeds(first), *_seeds(second), *_images(resamples)]
    return student(float(np.mean(first) - np.mean(second)), sources)


def student(value: float, sources: Iterable[Source]) -> Estimate | None:
    """Return an estimate with a t interval, and the p value that belongs to it.

    The margins that each source has by itself are summed as squares, after Banerjee (1960): the interval then holds 95 % or
    more, however few the degrees of freedom. (Welch's and Satterthwaite's would be wrong in 12 % of cases with two seeds.)
    With a single source this is the t interval and the t test.

    Args:
        value: The estimate.
        sources: Independent sources of its uncertainty; those without any are left out.

    Returns:
        The estimate; None where nothing is uncertain and it is not zero, or where no source is known.
    """
    known = [*sources]
    rounding = (ROUNDING * max(abs(value), 1.0)) ** 2
    uncertain = [source for source in known if source.variance > rounding]
    if not uncertain:
        return Estimate(0.0, 0.0, 0.0, 1.0) if known and value**2 <= rounding else None
    reach = _margin(LEVEL, uncertain)
    return Estimate(value, value - reach, value + reach, _p_value(value, uncertain))


def _margin(level: float, sources: Iterable[Source]) -> float:
    """Return how far an interval reaches that leaves out at most a share `level` of cases."""
    squares = (source.variance * float(stdtrit(source.freedom, level / 2)) ** 2 for source in sources)
    return math.sqrt(sum(squares))


def _p_value(value: float, sources: Sequence[Source]) -> float:
    """Return the largest level at which the interval of an estimate leaves out zero."""
    if len(sources) == 1:
        error = math.sqrt(sources[0].variance)
        return 2 * float(stdtr(sources[0].freedom, -abs(value) / error))
    low, high = SMALLEST, 1.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _margin(middle, sources) > abs(value) else (low, middle)
    return high


def _seeds(values: Sequence[float]) -> list[Source]:
    """Return what seeds add to the variance of a mean: nothing that is known of a single one."""
    n = len(values)
    return [Source(float(np.var(values, ddof=1)) / n, n - 1)] if n > 1 else []


def _images(resamples: Resamples | None) -> list[Source]:
    """Return what images add to the variance of an estimate."""
    if resamples is None:
        return []
    values = resamples.values[np.isfinite(resamples.values)]
    freedom = min(len(values), resamples.images) - 1
    return [Source(float(np.var(values, ddof=1)), freedom)] if freedom > 0 else []


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number, so that one under 0.05 is a false alarm in 5 % of reports at most.

    Holm (1979), A simple sequentially rejective multiple test procedure. The tests may depend on each other.

    Args:
        values: P values in any order.

    Returns:
        Corrected ones in the same order, at most 1.
    """
    corrected = [0.0] * len(values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, (len(values) - rank) * values[place])
        corrected[place] = min(largest, 1.0)
    return corrected
