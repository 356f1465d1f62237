"""Tables of a cohort: the one place where its numbers become text, for terminal, HTML, Markdown and CSV alike."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from paka.cohort import Cohort, Measure
from paka.comparisons import Comparison, by_start
from paka.configurations import NO_VALUE, Column, Values, numbers
from paka.disk import whole
from paka.document import Cell, Table
from paka.runs import Run
from paka.scores import Score, decimal, format_rows
from paka.significance import Estimate

SIDE_BY_SIDE = 4
"""Scores that one table shows; more of them take more tables."""
RUN_COLUMNS = (
    "run",
    "program",
    "state",
    "reason",
    "seed",
    "steps",
    "seconds",
    "started",
    "command",
    "folder",
)
"""What `runs.csv` says of a run beside its scores and what runs differ in."""


@dataclass(frozen=True)
class Tested:
    """A cohort with its comparisons.

    Attributes:
        cohort: The runs.
        comparisons: All comparisons, see `paka.comparisons`.
    """

    cohort: Cohort
    comparisons: Sequence[Comparison]


def interval(estimate: Estimate | None, digits: int, *, signed: bool = False) -> str:
    """Return an interval as text; nothing without one."""
    if estimate is None:
        return ""
    low, high = (decimal(end, signed=signed, digits=digits) for end in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def margin(value: float, estimate: Estimate | None, digits: int) -> str:
    """Return a mean with how far its interval reaches, as `21.53 ± 0.40`; the mean alone without one."""
    mean = decimal(value, digits=digits)
    return mean if estimate is None else f"{mean} ± {decimal(estimate.high - estimate.value, digits=digits)}"


def p_text(value: float | None) -> str:
    """Return a p value as text."""
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def score_tables(tested: Tested) -> list[Table]:
    """Return what the configurations scored: a row each, mean and interval over seeds, and the gain over the start."""
    measures = tested.cohort.measures
    chunks = [measures[i : i + SIDE_BY_SIDE] for i in range(0, len(measures), SIDE_BY_SIDE)]
    return [_score_table(tested, chunk) for chunk in chunks]


def _score_table(tested: Tested, measures: Sequence[Measure]) -> Table:
    cohort, tests = tested.cohort, by_start(tested.comparisons)
    starts = {measure: cohort.start(measure) for measure in measures}
    gains = {
        measure: any(
            point.trained for one in cohort.samples.values() for point in one.get(measure, {}).values()
        )
        for measure in measures
    }
    header = [*(cohort.names or ["configuration"]), "seeds"]
    for measure in measures:
        header += [measure.name, "gain"] if gains[measure] else [measure.name]
    rows: list[list[str | Cell]] = []
    if any(value is not None for value in starts.values()):
        rows.append(_start_row(cohort, measures, starts, gains))
    for values in cohort.samples:
        row: list[str | Cell] = [*(values or (cohort.labels[values],)), _seeds(cohort, values, measures)]
        for measure in measures:
            row += _cells(cohort, values, measure, tests, gain=gains[measure])
        rows.append(row)
    words = max(len(cohort.names), 1)
    left = [_is_word(cohort, place) for place in range(words)] + [False] * (len(header) - words)
    return Table(header, rows, left, _caption(cohort, measures), "Scores by configuration")


def _is_word(cohort: Cohort, place: int) -> bool:
    if not cohort.names or place == 0:
        return True
    return numbers({values[place] for values in cohort.samples} - {NO_VALUE}) is None


def _start_row(
    cohort: Cohort,
    measures: Sequence[Measure],
    starts: Mapping[Measure, float | None],
    gains: Mapping[Measure, bool],
) -> list[str | Cell]:
    row: list[str | Cell] = [cohort.beginning, *[""] * max(len(cohort.names) - 1, 0), ""]
    for measure in measures:
        text = decimal(starts[measure], digits=measure.digits)
        row += [text, ""] if gains[measure] else [text]
    return row


def _seeds(cohort: Cohort, values: Values, measures: Sequence[Measure]) -> str:
    """Return how many seeds a configuration has, or from how many to how many in different scores."""
    counts = sorted({len(cohort.samples[values].get(measure, {})) for measure in measures} - {0})
    return "-".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"


def _cells(
    cohort: Cohort,
    values: Values,
    measure: Measure,
    tests: Mapping[tuple[Values, Measure], Comparison],
    *,
    gain: bool,
) -> list[str | Cell]:
    mean = cohort.mean(values, measure)
    if mean is None:
        return ["", ""] if gain else [""]
    texts: list[str | Cell] = [margin(mean.value, mean.interval, measure.digits)]
    if gain:
        test = tests.get((values, measure))
        text = decimal(mean.delta, signed=True, digits=measure.digits)
        texts.append(Cell(text, test.mark if test is not None else ""))
    return texts


def _caption(cohort: Cohort, measures: Sequence[Measure]) -> str:
    facts = [f"{name} {fact}" for name, fact in cohort.facts.items()]
    metrics = {
        measure.protocol: f"{measure.metric} {measure.unit}".strip() for measure in measures if measure.first
    }
    alike = len({*metrics.values()}) == 1
    told = [f"{name.replace('_', '-')} {text}" for name, text in metrics.items()]
    lower = [measure.name for measure in measures if not measure.rises]
    reading = [f"lower is better: {', '.join(lower)}"] if lower else []
    of = f"metric {next(iter(metrics.values()))}" if alike and metrics else "; ".join(told)
    seeds = ", ".join(map(str, cohort.seeds))
    return "; ".join([", ".join([*facts, *([of] if of else []), f"seeds {seeds}"]), *reading])


def comparison_table(
    cohort: Cohort, found: Sequence[Comparison], *, title: str = "", file: str = ""
) -> Table:
    """Return comparisons as a table: the difference, its interval, its p value after correction, and what it rests on."""
    header = [
        "score",
        "configuration",
        "against",
        "difference",
        "95 % interval",
        "corrected p",
        "seeds",
        "interval over",
    ]
    rows = [_comparison_row(cohort, one) for one in found]
    left = [True, True, True, False, False, False, False, True]
    return Table(header, rows, left, title=title or "Comparisons", file=file)


def _comparison_row(cohort: Cohort, one: Comparison) -> list[str | Cell]:
    digits = one.measure.digits
    difference = Cell(decimal(one.value, signed=True, digits=digits), one.mark)
    ends = interval(one.estimate, digits, signed=True)
    basis = one.basis or "not known"
    first, second = (
        cohort.short[one.values],
        cohort.beginning if one.against is None else cohort.short[one.against],
    )
    return [one.measure.name, first, second, difference, ends, p_text(one.corrected), one.seeds, basis]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a table as CSV in place of what was there."""
    with whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def runs_csv(runs: Sequence[Run], varied: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of `runs.csv`: a row for each run and score, and one for each run without any."""
    columns = [name for name in (field.name for field in fields(Score)) if name not in ("seed", "note")]
    taken = {*columns, *RUN_COLUMNS}
    keys = [f"{one.key} (option)" if one.key in taken else one.key for one in varied]
    header = [*RUN_COLUMNS[:5], *keys, *columns, *RUN_COLUMNS[5:]]
    rows = []
    for run in runs:
        told = _told(run)
        own = [column.text(run) for column in varied] if run.settings else [""] * len(varied)
        scores: Sequence[Score | None] = run.scores or [None]
        for score in scores:
            seed = [told["seed"] if score is None or score.seed is None else str(score.seed)]
            values = [""] * len(columns) if score is None else _score_texts(score, columns)
            rows.append(
                [
                    *(told[name] for name in RUN_COLUMNS[:4]),
                    *seed,
                    *own,
                    *values,
                    *(told[name] for name in RUN_COLUMNS[5:]),
                ]
            )
    return header, rows


def _score_texts(score: Score, columns: Sequence[str]) -> list[str]:
    names, (texts,) = format_rows([score])
    return [dict(zip(names, texts, strict=True))[name] for name in columns]


def _told(run: Run) -> dict[str, str]:
    status = run.status
    facts = (
        run.name, run.program, run.state, run.reason, "" if run.seed is None else str(run.seed),
        "" if run.steps is None else str(run.steps), _seconds(run), status.started if status else "", run.command, str(run.path),
    )  # fmt: skip
    return dict(zip(RUN_COLUMNS, facts, strict=True))


def _seconds(run: Run) -> str:
    """Return how long a run took."""
    status = run.status
    if status is None or status.ended is None:
        return ""
    try:
        began, ended = (datetime.fromisoformat(text) for text in (status.started, status.ended))
    except ValueError:
        return ""
    return f"{(ended - began).total_seconds():.0f}"


def configurations_csv(tested: Sequence[Tested]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of `configurations.csv`: a row for each configuration and score."""
    header = [
        "program", "benchmark", "split", "profile", "size", "configuration", "protocol", "settings", "metric", "unit", "better", "seeds",
        "mean", "ci_low", "ci_high", "before", "gain", "gain_ci_low", "gain_ci_high", "gain_p", "gain_corrected_p", "gain_interval_over",
    ]  # fmt: skip
    rows = []
    for one in tested:
        tests = by_start(one.comparisons)
        for values, samples in one.cohort.samples.items():
            rows += [
                _configuration_row(one.cohort, values, measure, tests.get((values, measure)))
                for measure in samples
            ]
    return header, rows


def _configuration_row(
    cohort: Cohort, values: Values, measure: Measure, test: Comparison | None
) -> list[str]:
    mean = cohort.mean(values, measure)
    if mean is None:
        return []
    facts = [cohort.facts.get(name, "") for name in ("benchmark", "split", "profile", "size")]
    numbers = [
        mean.value,
        *_ends(mean.interval),
        mean.before,
        mean.delta,
        *_ends(test.estimate if test else None),
    ]
    texts = [decimal(number, digits=measure.digits) for number in numbers]
    return [
        cohort.program, *facts, cohort.labels[values], measure.protocol, measure.settings, measure.metric, measure.unit, measure.better,
        " ".join(map(str, mean.seeds)), *texts, *_p_texts(test),
    ]  # fmt: skip


def comparisons_csv(tested: Sequence[Tested]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of `comparisons.csv`."""
    header = [
        "program", "benchmark", "split", "profile", "protocol", "settings", "metric", "first", "second", "seeds", "difference", "ci_low", "ci_high",
        "p", "corrected_p", "interval_over", "significant",
    ]  # fmt: skip
    rows = []
    for one in tested:
        for found in one.comparisons:
            facts = [one.cohort.facts.get(name, "") for name in ("benchmark", "split", "profile")]
            digits = found.measure.digits
            ends = [decimal(end, digits=digits) for end in _ends(found.estimate)]
            rows.append([
                one.cohort.program, *facts, found.measure.protocol, found.measure.settings, found.measure.metric, found.first, found.second,
                found.seeds, decimal(found.value, digits=digits), *ends, *_p_texts(found), "yes" if found.significant else "no",
            ])  # fmt: skip
    return header, rows


def _ends(estimate: Estimate | None) -> tuple[float | None, float | None]:
    return (None, None) if estimate is None else (estimate.low, estimate.high)


def _p_texts(found: Comparison | None) -> list[str]:
    if found is None or found.estimate is None:
        return ["", "", ""]
    return [f"{found.estimate.p:.3g}", f"{found.corrected:.3g}", found.basis]
