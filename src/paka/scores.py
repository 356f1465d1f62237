"""Scores before and after: one row each, their text, `results.csv` and means over seeds."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from paka.figures.scores import Change


@dataclass(frozen=True)
class Score:
    """One score before and after post-training; the fields are the columns of `results.csv`, in order.

    Attributes:
        benchmark: Name of the labelled data set.
        protocol: How the tokens were probed, such as `in_context`.
        profile: Name of the protocols' settings.
        metric: What was measured, such as `mIoU`.
        split: Split that was scored.
        seed: Seed of the run; None for a mean over seeds.
        before: Score of the encoder that went in, in `unit`.
        after: Score of the encoder that came out.
        delta: `after - before`.
        ci_low: Lower end of the 95 % interval of `delta`, or of `before` alone.
        ci_high: Upper end of it.
        memory: Patches in the memory of a nearest-neighbour protocol.
        k: Neighbours, or clusters.
        note: Anything a reader has to know.
        method: What was done between before and after.
        size: What images are resized to.
        temperature: Of a nearest-neighbour protocol.
        classes: Number of classes.
        rules: The switches of the profile.
        unit: What the score is in: `%`, `m` for metres, or nothing.
        better: Whether `higher` or `lower` is better.
        upsampling: How predictions of patches become those of pixels.
    """

    benchmark: str
    protocol: str
    profile: str
    metric: str
    split: str
    seed: int | None
    before: float | None
    after: float | None
    delta: float | None
    ci_low: float | None
    ci_high: float | None
    memory: int | None
    k: int | None
    note: str = ""
    method: str = ""
    size: str = ""
    temperature: float | None = None
    classes: int | None = None
    rules: str = ""
    unit: str = "%"
    better: str = "higher"
    upsampling: str = ""

    @property
    def verdict(self) -> str:
        """Return `gain` or `loss` where the interval of the difference leaves no doubt, else nothing."""
        return verdict(self.delta, self.ci_low, self.ci_high, rises=self.better == "higher")


def verdict(delta: float | None, low: float | None, high: float | None, *, rises: bool = True) -> str:
    """Return `gain` or `loss` where the 95 % interval of a difference leaves no doubt, else nothing.

    Args:
        delta: The difference; None where there is none, and the interval is that of the score itself.
        low: Lower end of the interval.
        high: Its upper end.
        rises: Whether more is better.
    """
    if delta is None or low is None or high is None:
        return ""
    rose, fell = low > 0, high < 0
    return ("gain" if rose == rises else "loss") if rose or fell else ""


COLUMNS = tuple(field.name for field in fields(Score))
INTEGERS = ("seed", "memory", "k", "classes")
VALUES = ("before", "after", "delta", "ci_low", "ci_high")
INTERVAL = "95 % interval"
"""Name of the column that shows `ci_low` and `ci_high`."""
_NUMBERS = (*VALUES, "temperature")
_DIFFERENCES = ("delta", "ci_low", "ci_high")
_KEY = ("benchmark", "protocol", "profile", "metric", "split", "seed", "method")
_SETTINGS = ("size", "temperature", "classes", "rules", "unit", "better", "upsampling")
_COMPARED = ("after", "delta")
_ALWAYS = ("protocol", "before", *_COMPARED)
_FIRST_RELEASE = COLUMNS.index("note") + 1


class Layout(NamedTuple):
    """A table to read: what all rows share, then the columns that tell them apart and the scores."""

    caption: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def format_rows(
    scores: Iterable[Score], *, signed: bool = False
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return scores as text; files, terminal, Markdown and figures all take their numbers from here.

    Args:
        scores: Rows; percentages get two decimals, other values three, None becomes the empty text.
        signed: Put a sign before differences that are not zero, as a reader wants it, but not in files.

    Returns:
        The names of the columns, and one tuple of as many texts for each score.
    """
    return COLUMNS, [
        tuple(
            _format(name, value, signed=signed and score.delta is not None, digits=_digits(score))
            for name, value in asdict(score).items()
        )
        for score in scores
    ]


def _digits(score: Score) -> int:
    return 2 if score.unit == "%" else 3


def _format(name: str, value: float | str | None, *, signed: bool, digits: int = 2) -> str:
    if value is None or name in VALUES:
        return decimal(value, signed=signed and name in _DIFFERENCES, digits=digits)  # type: ignore[arg-type]
    return " ".join(str(value).split())


def decimal(value: float | None, *, signed: bool = False, digits: int = 2) -> str:
    """Return a value as text: with two decimals, and if it is a difference that is not zero with a sign; None is empty."""
    if value is None:
        return ""
    # Adding 0.0 turns -0.0 into 0.0.
    rounded = round(float(value), digits) + 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{digits}f}"


def spoken(protocol: str) -> str:
    """Return the name of a protocol as figures and sentences have it."""
    return protocol.replace("_", "-")


def layout(scores: Sequence[Score]) -> Layout:
    """Return the table that terminal and Markdown show: constants in the caption, no empty column.

    Args:
        scores: Rows, in order.

    Returns:
        Caption, header and rows of text; the interval is one column, `[low, high]`.
    """
    names, rows = format_rows(scores, signed=True)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    lows, highs = columns.pop("ci_low"), columns.pop("ci_high")
    intervals = [f"[{low}, {high}]" if low else "" for low, high in zip(lows, highs, strict=True)]
    shared = {
        name: texts[0]
        for name, texts in columns.items()
        if name in (*_KEY, *_SETTINGS) and len(set(texts)) == 1
    }
    shared.setdefault("rules", _common(columns["rules"]))
    ends = {name: columns.pop(name) for name in ("memory", "k", "temperature", "note")}
    columns = {"method": columns.pop("method"), **columns, INTERVAL: intervals, **ends}
    hidden = (*_ALWAYS, "unit", "better")
    facts = [f"{name} {text}" for name, text in shared.items() if text and name not in hidden]
    caption = ", ".join((*facts, _reading(scores)))
    shown = {
        name: texts
        for name, texts in columns.items()
        if name in _ALWAYS or (name not in shared and any(texts) and name not in ("rules", "upsampling"))
        if name not in _COMPARED or any(columns["after"])
    }
    return Layout(caption, tuple(shown), list(zip(*shown.values(), strict=True)))


def _common(rules: Sequence[str]) -> str:
    """Return the facts of rules that all rows keep to."""
    first, *others = [rule.split("; ") for rule in rules] or [[]]
    return "; ".join(fact for fact in first if all(fact in other for other in others))


def _reading(scores: Sequence[Score]) -> str:
    """Return how the values are to be read, where that is the same for all."""
    units, better = ({getattr(score, name) for score in scores} for name in ("unit", "better"))
    percent = "scores in percent" if units == {"%"} else "percentages where the unit says so"
    return percent if better == {"higher"} else f"{percent}, lower is better where it says so"


def left_aligned(header: Sequence[str]) -> list[bool]:
    """Return which columns of a layout hold words rather than numbers."""
    return [name not in (*INTEGERS, *_NUMBERS, INTERVAL) for name in header]


def changes(scores: Iterable[Score]) -> list[Change]:
    """Return the rows of `scores_figure` for the percentages that have a value before and after.

    Args:
        scores: Rows, in order.

    Returns:
        Changes, whose text is the difference and its interval.
    """
    shown = [score for score in scores if None not in (score.before, score.after) and score.unit == "%"]
    several = len({score.metric for score in shown}) > 1
    return [_change(score, f", {score.metric}" if several else "") for score in shown]


def _change(score: Score, metric: str) -> Change:
    table = layout([score])
    row = dict(zip(table.header, table.rows[0], strict=True))
    text = f"{row['delta']} {row.get(INTERVAL, '')}".rstrip()
    before, after, low, high = (
        math.nan if value is None else value
        for value in (score.before, score.after, score.ci_low, score.ci_high)
    )
    return Change(f"{spoken(score.protocol)}{metric}", before, after, low, high, text)


def summarise(scores: Iterable[Score]) -> list[Score]:
    """Return means over seeds: one row for each group of scores that differ in their seed only.

    The mean of intervals is no interval, so there is none: the note gives the seeds, the range of the
    difference and how many of the intervals lie above 0.

    Args:
        scores: Rows of any number of seeds.

    Returns:
        Rows with `seed` None, in order of first appearance; a group of one seed stays as it is.
    """
    groups: dict[tuple[object, ...], list[Score]] = {}
    for score in scores:
        groups.setdefault(_key(replace(score, seed=None)), []).append(score)
    return [group[0] if len(group) == 1 else _mean(group) for group in groups.values()]


def _mean(group: Sequence[Score]) -> Score:
    deltas = [score.delta for score in group if score.delta is not None]
    lows = [score.ci_low for score in group if score.ci_low is not None and score.delta is not None]
    facts = ["mean of seeds " + ", ".join(str(score.seed) for score in group)]
    if deltas:
        low, high = (
            _format("delta", end, signed=True, digits=_digits(group[0])) for end in (min(deltas), max(deltas))
        )
        facts.append(f"delta {low} to {high}")
    if lows:
        facts.append(f"{sum(low > 0 for low in lows)} of {len(lows)} intervals above 0")
    before, after, delta = (
        _average([getattr(score, name) for score in group]) for name in ("before", "after", "delta")
    )
    mean = replace(group[0], seed=None, before=before, after=after, delta=delta)
    return replace(mean, ci_low=None, ci_high=None, note="; ".join(facts))


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def write_results(path: str | Path, scores: Iterable[Score]) -> None:
    """Write scores as CSV in place of what was there; a reader never sees half a file.

    Args:
        path: File to write; its folder is made.
        scores: Rows, in order.
    """
    header, rows = format_rows(scores)
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(buffer.getvalue(), encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_results(path: str | Path) -> list[Score]:
    """Return the scores in a CSV file, with the two decimals that it holds.

    Args:
        path: File that `write_results` wrote; columns that came after `note` may be missing.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The columns are others, or a value is not a number.
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if tuple(header) != COLUMNS[: len(header)] or len(header) < _FIRST_RELEASE:
        raise ValueError(f"{path} must begin with the columns {','.join(COLUMNS)}, not {','.join(header)!r}")
    named = (dict(zip(header, row, strict=False)) for row in rows)
    return [_parse(path, line, row) for line, row in enumerate(named, start=2)]


def _parse(path: str | Path, line: int, row: Mapping[str, str]) -> Score:
    values: dict[str, Any] = dict(row)
    try:
        values |= {name: _given(row, name, int) for name in INTEGERS}
        values |= {name: _given(row, name, float) for name in _NUMBERS}
        return Score(**values)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"line {line} of {path} is no row of scores: {error}; mend or remove it") from error


def _given(row: Mapping[str, str], name: str, number: Callable[[str], float]) -> float | None:
    """Return a number of a row, or None where it is empty, or came after the columns that all files have."""
    late = COLUMNS.index(name) >= _FIRST_RELEASE and name not in row
    return None if late or not row[name] else number(row[name])


def merge_results(path: str | Path, scores: Iterable[Score]) -> list[Score]:
    """Add scores to a CSV file, in place of rows with the same key; one process at a time may do so.

    The key is benchmark, protocol, profile, metric, split, seed and method.

    Args:
        path: File to extend; it need not exist.
        scores: New rows.

    Returns:
        All rows of the file, the old ones in their place.

    Raises:
        ValueError: See `read_results`.
    """
    old = read_results(path) if Path(path).exists() else []
    merged = list({_key(score): score for score in (*old, *scores)}.values())
    write_results(path, merged)
    return merged


def _key(score: Score) -> tuple[object, ...]:
    return tuple(getattr(score, name) for name in _KEY)
