"""Which run and which configuration of a sweep are best: by validation scores where there are any, and saying by what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paka.configurations import Values
from paka.runs import Run
from paka.scores import spoken
from paka.sweep import Sweep

BIASED = (
    "picking by the images that are reported on makes the picked one look better than it is on others: score with split=val "
    "to choose, or train with eval.every"
)
"""What is wrong with choosing by test scores."""


@dataclass(frozen=True)
class Selection:
    """The best of a sweep.

    Attributes:
        by: What it was chosen by, in words.
        biased: Whether that are the scores which are reported.
        configuration: The configuration with the best mean over seeds.
        mean: That mean.
        run: Name of the best run.
        value: Its score.
        digits: Decimals of the scores.
        means: Means of all configurations.
    """

    by: str
    biased: bool
    configuration: Values
    mean: float
    run: str
    value: float
    digits: int
    means: Mapping[Values, float]


def select(sweep: Sweep) -> Selection | None:
    """Return the best run and configuration; None where a single run is all there is, or there is no score for all.

    They are chosen by the score that runs returned, the last one on validation images, if all did that; else by the first
    protocol's results.
    """
    if len(sweep.runs) < 2 or not sweep.measures:
        return None
    monitored = _monitored(sweep)
    return _by_results(sweep) if monitored is None else monitored


def _monitored(sweep: Sweep) -> Selection | None:
    found = {run.path: _validation(run) for run in sweep.runs}
    protocols = {one[0] for one in found.values() if one is not None}
    if any(one is None for one in found.values()) or len(protocols) != 1:
        return None
    protocol = protocols.pop()
    measure = next((one for one in sweep.main if one.protocol == protocol), None)
    values: dict[Values, dict[Run, float]] = {}
    for configuration, samples in sweep.samples.items():
        runs = {point.run.path: point.run for sample in samples.values() for point in sample.values()}
        scores = [(run, found[run.path]) for run in runs.values()]
        values[configuration] = {run: one[1] for run, one in scores if one is not None}
    by = f"the last {spoken(protocol)} score on validation images"
    rises, digits = (True, 2) if measure is None else (measure.rises, measure.digits)
    return _best(values, by, biased=False, rises=rises, digits=digits)


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


def _by_results(sweep: Sweep) -> Selection | None:
    measure = sweep.main[0]
    split = sweep.facts["split"]
    values = {
        configuration: {point.run: point.value for point in samples[measure].values()}
        for configuration, samples in sweep.samples.items()
        if measure in samples
    }
    by = f"the {measure.name} score of the results, on the {split} split"
    return _best(values, by, biased=True, rises=measure.rises, digits=measure.digits)


def _best(
    values: Mapping[Values, Mapping[Run, float]], by: str, *, biased: bool, rises: bool, digits: int
) -> Selection | None:
    sign = 1 if rises else -1
    means = {
        configuration: float(np.mean([*scores.values()]))
        for configuration, scores in values.items()
        if scores
    }
    if not means:
        return None
    best = max(means, key=lambda configuration: sign * means[configuration])
    runs = {run.name: value for scores in values.values() for run, value in scores.items()}
    first = max(runs, key=lambda name: sign * runs[name])
    return Selection(by, biased, best, means[best], first, runs[first], digits, means)
