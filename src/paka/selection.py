"""Which run and which configuration of a cohort are best: by validation scores where there are any, and saying by what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paka.cohort import Cohort
from paka.configurations import Values
from paka.runs import Run
from paka.scores import spoken

_ON_TEST = (
    "Mind that picking by the images that are reported on makes the picked one look better than it is on others: score with "
    "split=val to choose, or train with eval.every."
)
_ON_VALIDATION = "Mind that the picked one looks better on these images than it is on others: score it with split=test to report it."

Found = Mapping[int, tuple[Run, float]]
"""Run and score of a configuration by seed."""


@dataclass(frozen=True)
class Selection:
    """The best of a cohort.

    Attributes:
        by: What it was chosen by, in words.
        warning: What is wrong with that, if the scores that are reported are chosen by; else empty.
        configuration: The configuration with the best mean over the seeds that all have.
        mean: That mean.
        run: Name of the best run.
        value: Its score.
        of: Its configuration.
        digits: Decimals of the scores.
    """

    by: str
    warning: str
    configuration: Values
    mean: float
    run: str
    value: float
    of: Values
    digits: int


def select(cohort: Cohort) -> Selection | None:
    """Return the best run and configuration; None where a single run is all there is, or there is no score for all.

    They are chosen by the score that runs returned, the last one on validation images, if all did that; else by the first
    protocol's results.
    """
    if len(cohort.runs) < 2 or not cohort.measures:
        return None
    monitored = _monitored(cohort)
    return _by_results(cohort) if monitored is None else monitored


def _monitored(cohort: Cohort) -> Selection | None:
    found = {run.path: _validation(run) for run in cohort.runs}
    protocols = {one[0] for one in found.values() if one is not None and math.isfinite(one[1])}
    if any(one is None for one in found.values()) or len(protocols) != 1:
        return None
    protocol = protocols.pop()
    measure = next((one for one in cohort.main if one.protocol == protocol), None)
    values: dict[Values, Found] = {}
    for configuration, samples in cohort.samples.items():
        runs = {seed: point.run for sample in samples.values() for seed, point in sample.items()}
        scores = [(seed, run, found[run.path]) for seed, run in runs.items()]
        values[configuration] = {seed: (run, one[1]) for seed, run, one in scores if one is not None}
    by = f"the last {spoken(protocol)} score on validation images"
    rises, digits = (True, 2) if measure is None else (measure.rises, measure.digits)
    return _best(values, by, "", rises=rises, digits=digits)


def _validation(run: Run) -> tuple[str, float] | None:
    """Return the protocol that a run was monitored by, and its last score on validation images."""
    score = None if run.status is None else run.status.score
    if run.program != "train" or score is None:
        return None
    curves = {name: values for name, (_, values) in run.curves.items() if name.startswith("val/")}
    if not curves:  # a job of a sweep that took none while training, and one of its first protocol at the end
        return (run.scores[0].protocol, score) if run.scores else None
    close = [name for name, values in curves.items() if abs(values[-1] - score) < 1e-6]
    return ((close or [*curves])[0].removeprefix("val/"), score)


def _by_results(cohort: Cohort) -> Selection | None:
    measure = cohort.main[0]
    split = cohort.facts["split"]
    values = {
        configuration: {seed: (point.run, point.value) for seed, point in samples[measure].items()}
        for configuration, samples in cohort.samples.items()
        if measure in samples
    }
    by = f"the {measure.name} score of the results, on the {split} split"
    warning = _ON_VALIDATION if split == "val" else _ON_TEST
    return _best(values, by, warning, rises=measure.rises, digits=measure.digits)


def _best(
    values: Mapping[Values, Found], by: str, warning: str, *, rises: bool, digits: int
) -> Selection | None:
    sign = 1 if rises else -1
    finite = {
        configuration: {seed: one for seed, one in found.items() if math.isfinite(one[1])}
        for configuration, found in values.items()
    }
    scored = {configuration: found for configuration, found in finite.items() if found}
    if not scored:
        return None
    seeds, told = _seeds(scored)
    means = {
        configuration: float(np.mean([value for seed, (_, value) in found.items() if seed in seeds]))
        for configuration, found in scored.items()
    }
    best = max(means, key=lambda configuration: sign * means[configuration])
    runs = [(value, run.name, of) for of, found in scored.items() for run, value in found.values()]
    first, name, of = max(runs, key=lambda one: sign * one[0])
    return Selection(by + told, warning, best, means[best], name, first, of, digits)


def _seeds(found: Mapping[Values, Found]) -> tuple[set[int], str]:
    """Return the seeds whose scores are compared, and what is to be said of them: those that all configurations have."""
    every = {seed for one in found.values() for seed in one}
    common = every.intersection(*found.values())
    if common == every:
        return every, ""
    if not common:
        return every, ", though no seed has a score in all configurations"
    listed = ", ".join(map(str, sorted(common)))
    return (
        common,
        f", over the seed{'s' if len(common) > 1 else ''} with a score in all configurations: {listed}",
    )
