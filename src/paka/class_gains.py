"""Gains of single classes by configuration: means over seeds of what runs wrote into `per_class.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from paka.cohort import Cohort, Measure
from paka.colours import Floats
from paka.configurations import Values
from paka.runs import UNREADABLE

MOST = 30
"""Classes that figures and tables show; of more, those that gain and lose most."""

Gains = Mapping[str, float]


@dataclass(frozen=True)
class ClassGains:
    """Gains of classes in one protocol.

    Attributes:
        measure: The protocol's first metric.
        classes: Names of the C classes.
        configurations: The K configurations.
        gains: Mean gains over seeds in points of IoU, (C, K); NaN where a class has none.
    """

    measure: Measure
    classes: list[str]
    configurations: list[Values]
    gains: Floats

    @property
    def shown(self) -> ClassGains:
        """Those with the largest mean gain first, and at most `MOST`: from both ends."""
        known = np.where(np.isfinite(self.gains), self.gains, 0.0).mean(axis=1)
        places = [int(place) for place in np.argsort(-known, kind="stable")]
        if len(places) > MOST:
            places = [*places[: MOST // 2], *places[-(MOST // 2) :]]
        names = [self.classes[place] for place in places]
        return ClassGains(self.measure, names, self.configurations, self.gains[places])


def class_gains(cohort: Cohort) -> list[ClassGains]:
    """Return the gains of classes in each protocol that has some."""
    gains = cache(read_gains)  # one file holds those of all protocols
    found = []
    for measure in cohort.main:
        means: dict[Values, Gains] = {}
        for values, samples in cohort.samples.items():
            seeds = []
            for _, point in sorted(samples.get(measure, {}).items()):
                seeds.append(gains(point.run.path).get((measure.protocol, point.score.method), {}))
            means[values] = _means(seeds)
        classes = [*dict.fromkeys(name for one in means.values() for name in one)]
        if classes:
            columns = [values for values, one in means.items() if one]
            table = [[means[values].get(name, np.nan) for values in columns] for name in classes]
            found.append(ClassGains(measure, classes, columns, np.array(table)))
    return found


def _means(seeds: list[dict[str, float]]) -> Gains:
    names = dict.fromkeys(name for seed in seeds for name in seed)
    return {name: float(np.mean([seed[name] for seed in seeds if name in seed])) for name in names}


def read_gains(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Return gains by class, by protocol and method; what is missing or damaged is left out."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    try:
        with (folder / "per_class.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row.get("delta"):
                    place = row["protocol"], row["method"]
                    found.setdefault(place, {})[row["class"]] = float(row["delta"])
    except (*UNREADABLE, csv.Error):
        return {}
    return found
