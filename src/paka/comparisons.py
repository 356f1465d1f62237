"""Which configurations of a cohort differ: every pair, or all against one, corrected for their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from paka.cohort import Cohort, Measure, Point, Sample
from paka.configurations import Values
from paka.document import Mark
from paka.resamples import Resampled
from paka.significance import LEVEL, Estimate, Resamples, holm, paired, unpaired

IMAGES, SEEDS, BOTH = "images, one seed", "seeds", "seeds and images"
"""What is resampled, or varies, in a test of differences seed by seed, or image by image of one seed."""
OTHER_SEEDS, OTHER_SEEDS_AND_IMAGES = "different seeds", "different seeds and images"
"""What does in a test of two means over seeds that are not the same."""


@dataclass(frozen=True)
class Comparison:
    """A difference of two configurations in one score.

    Attributes:
        measure: The score.
        first: A configuration in words.
        second: Another, or the start of training.
        values: The first one's values.
        against: The second one's; None for the start of training.
        seeds: How many seeds each of the two has, as `3`, or `3 and 2` where they are different ones.
        value: The difference, `first - second`.
        estimate: The same with its interval; None where it cannot be told from chance.
        basis: What makes the interval: `seeds and images`, `seeds`, `images, one seed`, `different seeds` or
            `different seeds and images`.
        corrected: P value corrected for the number of comparisons; None without a test.
    """

    measure: Measure
    first: str
    second: str
    values: Values
    against: Values | None
    seeds: str
    value: float
    estimate: Estimate | None
    basis: str
    corrected: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the difference is significant after correction."""
        return self.corrected is not None and self.corrected < LEVEL

    @property
    def mark(self) -> Mark:
        """Whether the first is better or worse for certain."""
        if not self.significant:
            return ""
        return "gain" if (self.value > 0) == self.measure.rises else "loss"


def comparisons(cohort: Cohort, reference: Values | None = None) -> list[Comparison]:
    """Return all comparisons in the first metric of each protocol: of configurations, and of each with its start.

    Those in the same score count for the correction (Holm 1979).

    Args:
        cohort: The runs.
        reference: A configuration that the others are compared with; None compares every pair, the better one first.
    """
    return [one for measure in cohort.main for one in _of_measure(cohort, measure, reference)]


def _of_measure(cohort: Cohort, measure: Measure, reference: Values | None) -> list[Comparison]:
    found = [*_with_start(cohort, measure), *_of_pairs(cohort, measure, reference)]
    corrected = iter(holm([one.estimate.p for one in found if one.estimate is not None]))
    return [one if one.estimate is None else replace(one, corrected=next(corrected)) for one in found]


def _with_start(cohort: Cohort, measure: Measure) -> Iterator[Comparison]:
    for values, samples in cohort.samples.items():
        sample = samples.get(measure)
        if sample and all(point.trained for point in sample.values()):
            differences = [point.value - point.start for _, point in sorted(sample.items())]
            pairs = [(point.after, point.before) for _, point in sorted(sample.items())]
            estimate, basis = _paired(differences, pairs)
            told = (
                cohort.labels[values],
                cohort.beginning,
                values,
                None,
                str(len(sample)),
                float(np.mean(differences)),
            )
            yield Comparison(measure, *told, estimate, basis)


def _of_pairs(cohort: Cohort, measure: Measure, reference: Values | None) -> Iterator[Comparison]:
    scored = [values for values, samples in cohort.samples.items() if samples.get(measure)]
    if reference is None:
        for first, second in combinations(scored, 2):
            found = _of_pair(cohort, measure, first, second)
            worse = found.value and (found.value < 0) == measure.rises
            yield _of_pair(cohort, measure, second, first) if worse else found
    elif reference in scored:
        for values in scored:
            if values != reference:
                yield _of_pair(cohort, measure, values, reference)


def _of_pair(cohort: Cohort, measure: Measure, first: Values, second: Values) -> Comparison:
    samples = cohort.samples[first][measure], cohort.samples[second][measure]
    estimate, basis, seeds, value = _difference(*samples)
    told = cohort.labels[first], cohort.labels[second], first, second, seeds, value
    return Comparison(measure, *told, estimate, basis)


def _difference(first: Sample, second: Sample) -> tuple[Estimate | None, str, str, float]:
    """Return the difference of two samples: over the seeds that both have, or of their means where that are too few."""
    common = sorted({*first} & {*second})
    if len(common) > 1 or (common and min(len(first), len(second)) == 1):
        differences = [first[seed].value - second[seed].value for seed in common]
        pairs = [(first[seed].resampled, second[seed].resampled) for seed in common]
        return (*_paired(differences, pairs), str(len(common)), float(np.mean(differences)))
    own, other = ([point.value for _, point in sorted(sample.items())] for sample in (first, second))
    resamples = _pooled([*first.values()], [*second.values()])
    estimate = unpaired(own, other, resamples)
    basis = OTHER_SEEDS if resamples is None else OTHER_SEEDS_AND_IMAGES
    seeds = f"{len(own)} and {len(other)}"
    return estimate, basis if estimate else "", seeds, float(np.mean(own) - np.mean(other))


def _paired(
    differences: Sequence[float], pairs: Sequence[tuple[Resampled | None, Resampled | None]]
) -> tuple[Estimate | None, str]:
    """Return the mean of differences of runs with equal seeds, and what its interval is made of."""
    resamples = _resamples(pairs)
    estimate = paired(differences, resamples)
    basis = SEEDS if resamples is None else BOTH if len(differences) > 1 else IMAGES
    return estimate, basis if estimate else ""


def _resamples(pairs: Sequence[tuple[Resampled | None, Resampled | None]]) -> Resamples | None:
    """Return the mean difference on resampled images; None if a run kept none, or saw other images."""
    differences = []
    for first, second in pairs:
        if first is None or second is None or not first.pairs_with(second):
            return None
        differences.append((first.values - second.values, first.images))
    if len({(values.shape, images) for values, images in differences}) != 1:
        return None
    return Resamples(np.mean([values for values, _ in differences], axis=0), differences[0][1])


def _pooled(first: Sequence[Point], second: Sequence[Point]) -> Resamples | None:
    """Return the difference of the means of all on resampled images; None if one kept none, or saw other images."""
    sides = [[point.resampled for point in side] for side in (first, second)]
    kept = [one for side in sides for one in side if one is not None]
    if len(kept) < len(first) + len(second) or not all(one.pairs_with(kept[0]) for one in kept):
        return None
    own, other = (np.mean([one.values for one in side if one is not None], axis=0) for side in sides)
    return Resamples(own - other, kept[0].images)


def by_start(found: Sequence[Comparison]) -> Mapping[tuple[Values, Measure], Comparison]:
    """Return the comparisons with the start of training, by configuration and score."""
    return {(one.values, one.measure): one for one in found if one.against is None}
