"""The figures of a sweep's report: what is drawn of it, with captions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paka.class_gains import ClassGains, class_gains
from paka.cohort import Cohort, Measure
from paka.comparisons import Comparison, by_start
from paka.configurations import NO_VALUE, Values, numbers, order, short_labels
from paka.document import Figure
from paka.figures.gains import gains_figure
from paka.figures.learning import Learning, learning_figure
from paka.figures.sweeps import ACROSS, Line, Panel, Sampled, curve_figure, dots_figure
from paka.scores import decimal
from paka.significance import Estimate
from paka.sweep_tables import Tested

FEWEST = 3
"""Values of a number from which on scores are drawn against it."""
MOST_LINES = 12
"""Lines that a curve is drawn with at most."""
MOST_ROWS = 40
"""Configurations that dots are drawn of at most."""
LOGGED = {"loss": "Loss", "cka": "CKA", "rankme": "RankMe"}
"""What is drawn of `metrics.csv` beside validation scores, with titles."""


def score_figures(folder: Path, tested: Tested, prefix: str) -> list[Figure]:
    """Draw the scores of a cohort: against each number that was swept, or by configuration where there is none.

    Args:
        folder: Where the files go.
        tested: The runs and their comparisons.
        prefix: What the files' names begin with.
    """
    cohort = tested.cohort
    if len(cohort.samples) < 2:
        return []
    found = {place: swept_groups(cohort, place) for place in range(len(cohort.names))}
    drawn = [curve(folder, tested, place, groups, prefix) for place, groups in found.items() if groups]
    covered = {values for groups in found.values() for members in groups.values() for values in members}
    if covered >= {*cohort.samples} or len(cohort.samples) > MOST_ROWS:
        return drawn
    return [*drawn, dots(folder, tested, prefix)]


def swept_groups(cohort: Cohort, place: int) -> dict[Values, list[Values]]:
    """Return the configurations that differ in a number only, by what else they are.

    Args:
        cohort: The runs.
        place: Column of the number.

    Returns:
        Groups of at least two, by the values of the other columns, numbers rising; none where the column holds words, no
        group has three, or there are too many for one picture.
    """
    groups: dict[Values, list[Values]] = {}
    for values in sorted(cohort.samples, key=order):
        if values[place] != NO_VALUE:
            groups.setdefault((*values[:place], *values[place + 1 :]), []).append(values)
    groups = {rest: members for rest, members in groups.items() if len(members) > 1}
    words = numbers(values[place] for members in groups.values() for values in members) is None
    fewest = max(map(len, groups.values()), default=0) < FEWEST
    return {} if words or fewest or len(groups) > MOST_LINES else groups


def curve(
    folder: Path, tested: Tested, place: int, groups: Mapping[Values, Sequence[Values]], prefix: str
) -> Figure:
    """Draw scores against a number, with a line for each group, see `swept_groups`."""
    cohort = tested.cohort
    names = [*cohort.names[:place], *cohort.names[place + 1 :]]
    told = short_labels(names, groups)
    lines = {told[rest] if len(groups) > 1 else "": members for rest, members in groups.items()}
    panels = [
        Panel(
            view.title,
            view.start,
            [_line(view, place, members, name) for name, members in lines.items()],
            named=view.scored,
        )
        for view in views(tested)
    ]
    ticks = sorted({float(values[place]) for members in groups.values() for values in members})
    name = cohort.names[place]
    path = folder / f"{prefix}{_file(name)}.png"
    across = min(len(cohort.main), ACROSS) if len(cohort.main) > 1 else ACROSS
    curve_figure(path, panels, name, ticks, start=cohort.beginning, across=across)
    return Figure(
        path, f"Scores against {name}. {reading(tested)}", f"Scores against {name}: {_extremes(cohort)}"
    )


def _line(view: View, place: int, members: Sequence[Values], name: str) -> Line:
    found = [(float(values[place]), view.samples.get(values)) for values in members]
    kept = sorted(((x, score) for x, score in found if score is not None), key=lambda pair: pair[0])
    return Line(name, [x for x, _ in kept], [score for _, score in kept])


def dots(folder: Path, tested: Tested, prefix: str) -> Figure:
    """Draw the scores of configurations as dots."""
    cohort = tested.cohort
    panels = [
        Panel(view.title, view.start, rows=[view.samples.get(values) for values in cohort.samples])
        for view in views(tested)
    ]
    path = folder / f"{prefix}configurations.png"
    across = min(len(cohort.main), ACROSS) if len(cohort.main) > 1 else ACROSS
    dots_figure(path, [*cohort.short.values()], panels, start=cohort.beginning, across=across)
    return Figure(
        path, f"Scores by configuration. {reading(tested)}", f"Scores by configuration: {_extremes(cohort)}"
    )


@dataclass(frozen=True)
class View:
    """A score, or what it gained, of all configurations.

    Attributes:
        title: What is shown.
        start: Where the encoder was that went in; None where there is none, or there are several.
        samples: Mean, interval and single seeds by configuration.
        scored: Whether it is the score, rather than the gain.
    """

    title: str
    start: float | None
    samples: Mapping[Values, Sampled]
    scored: bool = True


def views(tested: Tested) -> list[View]:
    """Return what figures show: the first metric of each protocol, then what it gained where something was done."""
    cohort, tests = tested.cohort, by_start(tested.comparisons)
    scores = [
        View(_title(measure), cohort.start(measure), _sampled(cohort, measure)) for measure in cohort.main
    ]
    gains = []
    for measure in cohort.main:
        found = {
            values: _gain(cohort, values, tests[values, measure])
            for values in cohort.samples
            if (values, measure) in tests
        }
        if found:
            gains.append(View(f"{measure.name}, gain", 0.0, found, scored=False))
    return [*scores, *gains]


def _sampled(cohort: Cohort, measure: Measure) -> dict[Values, Sampled]:
    found = {}
    for values, samples in cohort.samples.items():
        mean = cohort.mean(values, measure)
        if mean is not None:
            points = [point.value for _, point in sorted(samples[measure].items())]
            found[values] = Sampled(mean.value, *_ends(mean.interval), points)
    return found


def _gain(cohort: Cohort, values: Values, test: Comparison) -> Sampled:
    points = [point.value - point.start for _, point in sorted(cohort.samples[values][test.measure].items())]
    return Sampled(test.value, *_ends(test.estimate), points)


def _ends(estimate: Estimate | None) -> tuple[float, float]:
    return (math.nan, math.nan) if estimate is None else (estimate.low, estimate.high)


def reading(tested: Tested) -> str:
    """Return how figures of scores are to be read."""
    cohort = tested.cohort
    told = ["Whiskers are 95 % intervals: of scores over seeds, on these images"]
    if by_start(tested.comparisons):
        told[0] += (
            f"; of gains as in Differences. The gain is the difference to the {cohort.beginning}, seed by seed"
        )
    told.append(f"Small dots are single seeds, the dashed line is the {cohort.beginning}")
    return ". ".join(told) + "."


def _title(measure: Measure) -> str:
    unit = f" ({measure.unit})" if measure.unit else ""
    return f"{measure.name}, {measure.metric}{unit}"


def _extremes(cohort: Cohort) -> str:
    """Return the lowest and the highest mean of each score in words."""
    return "; ".join(_extreme(cohort, measure) for measure in cohort.main)


def _extreme(cohort: Cohort, measure: Measure) -> str:
    means = {
        cohort.labels[values]: found.value
        for values in cohort.samples
        if (found := cohort.mean(values, measure)) is not None
    }
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    ends = [f"{decimal(means[name], digits=measure.digits)} with {name}" for name in (low, high)]
    return f"{measure.name} from {ends[0]} to {ends[1]}"


def gain_figures(folder: Path, cohort: Cohort, prefix: str) -> Iterator[tuple[ClassGains, Figure]]:
    """Draw the gains of classes: a heat map for each protocol that has some; yield each with its numbers."""
    for found in class_gains(cohort):
        shown = found.shown
        path = folder / f"{prefix}classes_{_file(found.measure.protocol + found.measure.settings)}.png"
        columns = short_names(cohort, found.configurations)
        key = ", ".join(cohort.names) if all("=" not in name for name in columns) else ""
        gains_figure(path, shown.classes, columns, shown.gains, key=key)
        part = (
            ""
            if len(shown.classes) == len(found.classes)
            else f" The {len(shown.classes)} of {len(found.classes)} that gain and lose most."
        )
        caption = f"Gain of each class in {found.measure.name}, points of IoU, mean over seeds.{part}"
        ends = f"most for {shown.classes[0]}, least for {shown.classes[-1]}"
        yield found, Figure(path, caption, f"Gains by class in {found.measure.name}: {ends}")


def short_names(cohort: Cohort, configurations: Sequence[Values]) -> list[str]:
    """Return names of configurations for narrow columns: of a single key, its values."""
    if len(cohort.names) == 1:
        return [values[0] for values in configurations]
    return [cohort.short[values] for values in configurations]


def learning(folder: Path, cohort: Cohort, prefix: str) -> Figure | None:
    """Draw how training went: loss, CKA and validation scores, a colour for each configuration."""
    runs = {
        values: [
            *{point.run.path: point.run for sample in samples.values() for point in sample.values()}.values()
        ]
        for values, samples in cohort.samples.items()
    }
    curves = {values: [run.curves for run in members] for values, members in runs.items()}
    logged = {name for members in curves.values() for one in members for name in one}
    names = [name for name in LOGGED if name in logged]
    names += sorted(name for name in logged if name.startswith("val/"))
    if not names or len(curves) > MOST_ROWS:
        return None
    panels = [
        Learning(
            LOGGED.get(name, f"{name.removeprefix('val/').replace('_', '-')}, validation"),
            name.startswith("val/"),
            [[one[name] for one in members if name in one] for members in curves.values()],
        )
        for name in names
    ]
    path = folder / f"{prefix}learning.png"
    ordered = len(cohort.names) == 1 and bool(swept_groups(cohort, 0))
    learning_figure(path, [*cohort.short.values()], panels, ordered=ordered)
    caption = "Learning curves: thin lines are seeds, thick ones their mean. Values logged at each step are smoothed."
    return Figure(
        path, caption, f"Curves over the optimizer steps of {', '.join(panel.title for panel in panels)}"
    )


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
