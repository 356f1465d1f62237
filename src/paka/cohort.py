"""A cohort: runs that are measured alike, by configuration and seed, and what their scores come to over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from paka.configurations import (
    NO_VALUE,
    Column,
    Values,
    as_text,
    columns,
    is_ignored,
    label,
    order,
    short_labels,
    shortest,
    within,
)
from paka.resamples import Key, Resampled, read_resamples
from paka.runs import Run
from paka.scores import Score, spoken
from paka.significance import Estimate, over_seeds

MEASURED = ("benchmark", "profile")
"""Keys that say how scores are measured; scores that differ in them are in different tables."""
NOT_MEASURED = ("benchmark.limit", "benchmark.fraction", "benchmark.split", "benchmark.subset_seed")
"""Keys among them of what is post-trained on, and the seed of draws: of that, means are taken, or it tells configurations apart."""


@dataclass(frozen=True)
class Measure:
    """A score that runs have.

    Attributes:
        protocol: How the tokens were probed.
        metric: What was measured.
        unit: What it is in.
        better: Whether `higher` or `lower` is better.
        rules: The switches of the profile.
        first: Whether it is the protocol's first metric, which stands for it.
        settings: What tells the protocol's settings from those of other runs, as `fraction=0.125`; empty where all have the same.
    """

    protocol: str
    metric: str
    unit: str
    better: str
    rules: str
    first: bool
    settings: str = ""

    @property
    def name(self) -> str:
        """What tables call it."""
        name = " ".join([spoken(self.protocol), *([] if self.first else [self.metric])])
        return f"{name}, {self.settings}" if self.settings else name

    @property
    def digits(self) -> int:
        """Decimals that are printed."""
        return 2 if self.unit == "%" else 3

    @property
    def rises(self) -> bool:
        """Whether more is better."""
        return self.better == "higher"


@dataclass(frozen=True)
class Point:
    """A score of one run.

    Attributes:
        run: The run.
        score: The row of its results.
        before: The score of the encoder before in full precision and on resampled images; None where the run kept none.
        after: That of the encoder after.
    """

    run: Run
    score: Score
    before: Resampled | None
    after: Resampled | None

    @property
    def trained(self) -> bool:
        """Whether there is a score after."""
        return self.score.after is not None

    @property
    def value(self) -> float:
        """The score to compare: after, or before where nothing was done; NaN where it has none."""
        kept = self.after if self.trained else self.before
        return _number(kept, self.score.after if self.trained else self.score.before)

    @property
    def start(self) -> float:
        """The score before, where there is one after."""
        return _number(self.before, self.score.before)

    @property
    def resampled(self) -> Resampled | None:
        """The score to compare on resampled images."""
        return self.after if self.trained else self.before


def _number(kept: Resampled | None, printed: float | None) -> float:
    """Return a score in full precision if it was kept, else as it was printed; NaN of none."""
    if printed is None:
        return float("nan")
    return kept.value if kept is not None else printed


Sample = Mapping[int, Point]
"""Scores of a configuration by seed."""


@dataclass(frozen=True)
class Cohort:
    """Runs that are measured alike.

    Attributes:
        program: `train` or `evaluate`.
        facts: How all scores were measured, by name.
        names: Names of what its configurations differ in.
        samples: Scores by configuration and measure.
        runs: The runs.
        repeated: Runs that have scores which a later run with their configuration and seed has, too, with that run.
        numberless: Names of scores of runs that are no numbers, by run.
    """

    program: str
    facts: Mapping[str, str]
    names: Sequence[str]
    samples: Mapping[Values, Mapping[Measure, Sample]]
    runs: Sequence[Run]
    repeated: Mapping[str, str]
    numberless: Mapping[str, Sequence[str]]

    @property
    def counted(self) -> list[str]:
        """Names of the runs that have a score here."""
        points = (
            point for one in self.samples.values() for sample in one.values() for point in sample.values()
        )
        return [*dict.fromkeys(point.run.name for point in points)]

    @cached_property
    def measures(self) -> list[Measure]:
        """The scores that there are, in order."""
        found = dict.fromkeys(measure for sample in self.samples.values() for measure in sample)
        places = {name: place for place, name in enumerate(dict.fromkeys(one.protocol for one in found))}
        return sorted(found, key=lambda one: (places[one.protocol], one.settings, not one.first))

    @property
    def beginning(self) -> str:
        """What the encoder that went in is called."""
        return "start of training" if self.program == "train" else "before"

    @property
    def main(self) -> list[Measure]:
        """The first metric of each protocol."""
        return [measure for measure in self.measures if measure.first]

    @cached_property
    def labels(self) -> dict[Values, str]:
        """The configurations in words."""
        return {values: label(self.names, values) for values in self.samples}

    @cached_property
    def short(self) -> dict[Values, str]:
        """The configurations in few words."""
        return short_labels(self.names, self.samples)

    @property
    def seeds(self) -> list[int]:
        """All seeds."""
        return sorted({seed for one in self.samples.values() for sample in one.values() for seed in sample})

    def mean(self, values: Values, measure: Measure) -> Mean | None:
        """Return what a score of a configuration comes to over seeds; None where it has none."""
        sample = self.samples[values].get(measure)
        return mean(sample) if sample else None

    def start(self, measure: Measure) -> float | None:
        """Return the mean score of the encoders that went in; None where nothing came after, or they were different ones."""
        samples = [one[measure] for one in self.samples.values() if measure in one]
        if not all(point.trained for sample in samples for point in sample.values()):
            return None
        by_seed: dict[int, list[float]] = {}
        for sample in samples:
            for seed, point in sample.items():
                by_seed.setdefault(seed, []).append(point.start)
        rounding = 2 * 10**-measure.digits  # of scores that may have been printed
        alike = all(max(starts) - min(starts) < rounding for starts in by_seed.values())
        return float(np.mean([starts[0] for starts in by_seed.values()])) if alike and by_seed else None


@dataclass(frozen=True)
class Mean:
    """A score over seeds.

    Attributes:
        seeds: The seeds, in order.
        value: Mean over them.
        interval: With its 95 % t interval; None with one seed.
        before: Mean of the scores before; None where nothing was done.
        delta: Mean difference to before.
    """

    seeds: tuple[int, ...]
    value: float
    interval: Estimate | None
    before: float | None
    delta: float | None


def mean(sample: Sample) -> Mean:
    """Return what a score comes to over seeds."""
    points = [sample[seed] for seed in sorted(sample)]
    values = [point.value for point in points]
    trained = all(point.trained for point in points)
    before = float(np.mean([point.start for point in points])) if trained else None
    value = float(np.mean(values))
    delta = None if before is None else value - before
    return Mean(tuple(sorted(sample)), value, over_seeds(values), before, delta)


def cohorts(runs: Iterable[Run]) -> list[Cohort]:
    """Return runs by how they are measured; those that do not count are left out.

    Some of these may have no score that is a number.
    """
    counting = [run for run in runs if run.counts]
    found = []
    for program in dict.fromkeys(run.program for run in counting):
        own = [run for run in counting if run.program == program]
        varied = columns(own)
        groups: dict[str, list[tuple[Run, Score]]] = {}
        for run in own:
            for score in run.scores:
                groups.setdefault(_measured(run, score), []).append((run, score))
        found += [_cohort(program, rows, varied) for rows in groups.values()]
    return found


def _measured(run: Run, score: Score) -> str:
    """Return all that scores have to share to be in one table."""
    rest = {
        key: value
        for key, value in run.settings.items()
        if within(key, MEASURED) and not within(key, NOT_MEASURED) and not is_ignored(key, run.settings)
    }
    return json.dumps([*facts_of(score).values(), rest], sort_keys=True)


def facts_of(score: Score) -> dict[str, str]:
    """Return how a score was measured, but for what depends on the protocol."""
    names = ("benchmark", "split", "profile", "size", "classes")
    return {name: "" if getattr(score, name) is None else str(getattr(score, name)) for name in names}


def _cohort(program: str, rows: Sequence[tuple[Run, Score]], varied: Sequence[Column]) -> Cohort:
    runs = [*{run.path: run for run, _ in rows}.values()]
    several = any(len({score.method for score in run.scores}) > 1 for run in runs)
    kept = [column for column in varied if len({column.text(run) for run in runs}) > 1]
    names = [*(column.name for column in kept), *(["method"] if several else [])]
    resamples = {run.path: read_resamples(run.path) for run in runs}
    settings = _settings(rows)
    newest: dict[tuple[Values, Measure, int], Point] = {}
    repeated: dict[str, str] = {}
    for run, score in rows:
        values = (*(column.text(run) for column in kept), *([score.method] if several else []))
        measure = _measure(score, run.scores, settings[score.protocol, run.path])
        place = values, measure, _seed(run, score)
        point = _point(run, score, resamples[run.path])
        older = newest.get(place)
        if older is not None and older.run is not run:
            last, first = sorted((older, point), key=_age, reverse=True)
            repeated[first.run.name] = last.run.name
            point = last
        newest[place] = point
    samples: dict[Values, dict[Measure, dict[int, Point]]] = {}
    numberless: dict[str, list[str]] = {}
    for (values, measure, seed), point in sorted(newest.items(), key=lambda item: order(item[0][0])):
        if math.isfinite(point.value) and (not point.trained or math.isfinite(point.start)):
            samples.setdefault(values, {}).setdefault(measure, {})[seed] = point
        else:
            numberless.setdefault(point.run.name, []).append(measure.name)
    facts = {name: fact for name, fact in facts_of(rows[0][1]).items() if fact}
    return Cohort(program, facts, names, samples, runs, repeated, numberless)


def _seed(run: Run, score: Score) -> int:
    return next((seed for seed in (score.seed, run.seed) if seed is not None), 0)


def _age(point: Point) -> tuple[str, str]:
    """Return what puts runs in the order in which they ended."""
    status = point.run.status
    return (status.ended or "" if status else "", point.run.name)


def _measure(score: Score, scores: Sequence[Score], settings: str) -> Measure:
    """Return what a score measures, by the other scores of its run."""
    first = next(one for one in scores if one.protocol == score.protocol).metric == score.metric
    return Measure(score.protocol, score.metric, score.unit, score.better, score.rules, first, settings)


def _settings(rows: Iterable[tuple[Run, Score]]) -> dict[tuple[str, Path], str]:
    """Return what tells the settings of each protocol in each run from those in others."""
    by_protocol: dict[str, dict[Path, dict[str, str]]] = {}
    for run, score in rows:
        node = f"eval.protocols.{score.protocol}"
        own = {key: as_text(value) for key, value in run.settings.items() if within(key, [node])}
        by_protocol.setdefault(score.protocol, {})[run.path] = own
    told = {}
    for protocol, runs in by_protocol.items():
        known = sorted({key for own in runs.values() for key in own})
        keys = [key for key in known if len({own.get(key) for own in runs.values()}) > 1]
        names = [*shortest(keys).values()]
        for path, own in runs.items():
            told[protocol, path] = label(names, tuple(own.get(key, NO_VALUE) for key in keys)) if keys else ""
    return told


def _point(run: Run, score: Score, kept: Mapping[Key, Resampled]) -> Point:
    before = kept.get(Key("before", "", score.protocol, score.metric))
    after = kept.get(Key("after", score.method, score.protocol, score.metric))
    return Point(run, score, before, after)
