"""What a report over runs says: its sections, tables and sentences, as a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from paka.class_gains import ClassGains
from paka.cohort import Cohort, Mean
from paka.comparisons import by_start
from paka.configurations import Column
from paka.document import (
    Block,
    Code,
    Document,
    Facts,
    Figure,
    Section,
    Table,
    Text,
    Verdict,
    Verdicts,
    counted,
)
from paka.runs import Run
from paka.scores import decimal
from paka.selection import Selection
from paka.sweep_differences import differences
from paka.sweep_figures import short_names
from paka.sweep_tables import Tested, interval, score_tables


@dataclass(frozen=True)
class Board:
    """A cohort and all that is said of it.

    Attributes:
        tested: The runs and their comparisons.
        selection: The best of them, if there is a choice.
        scores: Figures of scores.
        gains: Gains of classes, with a figure each.
        learning: Figure of training, if there was any.
        lacks: The configuration that all are to be compared with, as it was asked for, if it is not among these.
    """

    tested: Tested
    selection: Selection | None
    scores: Sequence[Figure]
    gains: Sequence[tuple[ClassGains, Figure]]
    learning: Figure | None
    lacks: str | None = None

    @property
    def cohort(self) -> Cohort:
        """The runs."""
        return self.tested.cohort


@dataclass(frozen=True)
class Overview:
    """What there is to report of runs.

    Attributes:
        runs: All runs that were found.
        boards: Those with scores, by how they are measured.
        varied: What they differ in.
        command: What makes the report.
    """

    runs: Sequence[Run]
    boards: Sequence[Board]
    varied: Sequence[Column]
    command: str

    @property
    def figures(self) -> list[Figure]:
        """All figures."""
        drawn = [
            (*board.scores, *(figure for _, figure in board.gains), board.learning) for board in self.boards
        ]
        return [figure for figures in drawn for figure in figures if figure is not None]

    @property
    def left_out(self) -> dict[str, tuple[str, str]]:
        """State and reason of runs of which a score, or all, are not in the report, by name."""
        out = {run.name: (run.state, run.reason) for run in self.runs if not run.counts}
        for board in self.boards:
            for name, newer in board.cohort.repeated.items():
                if name not in self.counted:
                    out[name] = ("finished", f"same configuration and seed as {newer}, which ended later")
            for name, scores in board.cohort.numberless.items():
                out[name] = ("finished", f"no number: {', '.join(scores)}")
        return out

    @cached_property
    def counted(self) -> set[str]:
        """Names of the runs that have scores in the report."""
        return {name for board in self.boards for name in board.cohort.counted}


def document(found: Overview, *, name: str | None = None) -> Document:
    """Return the report of runs as a document."""
    several = len(found.boards) > 1
    sections = []
    for board in found.boards:
        parts = _parts(board)
        title = board_title(board.cohort, found.boards)
        sections += [Section(title, sections=parts)] if several else parts
    blocks: list[Block] = []
    if several:
        blocks.append(
            Text("Scores that are not measured alike are in tables of their own, and in no mean together.")
        )
    elif found.boards:
        blocks += _verdicts(found.boards[0])
    return Document(
        name or _title(found),
        summary(found),
        blocks,
        [
            *sections,
            Section("Runs that are left out", _left_out(found)),
            Section("Runs", _runs(found)),
            Section("Made by", [Code(found.command, "bash")]),
        ],
    )


def _title(found: Overview) -> str:
    names = [
        column.name for board in found.boards for column in found.varied if column.name in board.cohort.names
    ]
    swept = ", ".join(dict.fromkeys(names))
    return f"Runs by {swept}" if swept else "Report of runs"


def board_title(cohort: Cohort, boards: Sequence[Board]) -> str:
    """Return what tells runs that are measured alike from others."""
    own = [*cohort.facts.values(), "training" if cohort.program == "train" else "evaluation"]
    title = f"{cohort.facts.get('benchmark', '')} {cohort.facts.get('split', '')}, {cohort.facts.get('profile', '')}, {own[-1]}"
    alike = [
        board.cohort
        for board in boards
        if [*board.cohort.facts.values()] == [*cohort.facts.values()]
        and board.cohort.program == cohort.program
    ]
    return f"{title} {alike.index(cohort) + 1}" if len(alike) > 1 else title


def summary(found: Overview) -> str:
    """Return what the report is about, in a sentence or two: how many runs, and what is certain."""
    runs = len(found.counted)
    configurations = len({label for board in found.boards for label in board.cohort.labels.values()})
    seeds = len({seed for board in found.boards for seed in board.cohort.seeds})
    out = len({*found.left_out} - found.counted)
    if not runs:
        return f"None of {counted(len(found.runs), 'run')} has scores to report; the reasons are below."
    sentence = (
        f"{counted(runs, 'run')} of {counted(configurations, 'configuration')} with {counted(seeds, 'seed')}"
    )
    tests = [one for board in found.boards for one in board.tested.comparisons if one.corrected is not None]
    certain = sum(one.significant for one in tests)
    tested = (
        f" Of {counted(len(tests), 'comparison')}, {certain or 'none'} {'is' if certain < 2 else 'are'} significant."
        if tests
        else ""
    )
    return f"{sentence}{f'; {out} more left out' if out else ''}.{tested}"


def _parts(board: Board) -> list[Section]:
    gains = [block for found, figure in board.gains for block in (figure, _gains_table(board.cohort, found))]
    return [
        Section("Scores", [*score_tables(board.tested), *_scores_note(board), *board.scores]),
        Section("Best", best(board)),
        Section("Differences", differences(board.tested, board.lacks)),
        Section("Classes", gains),
        Section("Training", [board.learning] if board.learning else []),
    ]


def _verdicts(board: Board) -> list[Block]:
    """Return what is to be remembered: of the best configuration, each protocol's score."""
    cohort = board.cohort
    values = board.selection.configuration if board.selection else next(iter(cohort.samples), ())
    tests = by_start(board.tested.comparisons)
    verdicts = []
    for measure in cohort.main:
        mean = cohort.mean(values, measure)
        if mean is None:
            continue
        test = tests.get((values, measure))
        number = decimal(mean.value, digits=measure.digits)
        metric = f"{measure.metric} {measure.unit}".strip()
        if mean.before is None or mean.delta is None:
            ends = interval(mean.interval, measure.digits)
            verdicts.append(Verdict(measure.name, f"{number} {ends}".strip(), f"{metric}", None))
            continue
        gain = decimal(mean.delta, signed=True, digits=measure.digits)
        ends = interval(test.estimate if test else None, measure.digits, signed=True)
        detail = f"{metric}: {decimal(mean.before, digits=measure.digits)} → {number}"
        verdicts.append(Verdict(measure.name, f"{gain} {ends}".strip(), detail, test.mark if test else None))
    of = cohort.labels[values] if cohort.names else "all runs"
    told = (
        f"Of the best configuration, {of}. What is better or worse is said after correction for all comparisons."
        if board.selection
        else ""
    )
    return [Verdicts(verdicts), *([Text(told)] if told else [])] if verdicts else []


def _scores_note(board: Board) -> list[Block]:
    cohort = board.cohort
    notes = []
    if any(mean.interval for mean in _means(cohort)):
        notes.append("± is how far the 95 % t interval of the mean over seeds reaches, on these images.")
    if any(len(mean.seeds) == 1 for mean in _means(cohort)):
        notes.append("A single seed has no interval.")
    if any(mean.delta is not None for mean in _means(cohort)):
        notes.append(
            f"gain is the mean difference to the {cohort.beginning} of the same seeds; ✓ better, ✗ worse: significant, see Differences."
        )
    return [Text(" ".join(notes))] if notes else []


def _means(cohort: Cohort) -> list[Mean]:
    return [
        mean
        for values, samples in cohort.samples.items()
        for measure in samples
        if (mean := cohort.mean(values, measure)) is not None
    ]


def best(board: Board) -> list[Block]:
    """Return which configuration and which run are best, and by what they were chosen."""
    chosen = board.selection
    if chosen is None:
        return []
    labels = board.cohort.labels
    other = f", of {labels[chosen.of]}" if chosen.of != chosen.configuration else ""
    facts = {
        "configuration": f"{labels[chosen.configuration]}: mean {decimal(chosen.mean, digits=chosen.digits)}",
        "run": f"{chosen.run}: {decimal(chosen.value, digits=chosen.digits)}{other}",
        "chosen by": chosen.by,
    }
    return [Facts(facts), *([Text(chosen.warning)] if chosen.warning else [])]


def _gains_table(cohort: Cohort, found: ClassGains) -> Table:
    header = ["class", *short_names(cohort, found.configurations)]
    rows = [
        [name, *("" if gain != gain else decimal(gain, signed=True) for gain in row)]
        for name, row in zip(found.classes, found.gains, strict=True)
    ]
    return Table(
        header,
        rows,
        [True, *[False] * (len(header) - 1)],
        "Points of IoU, mean over seeds.",
        f"{found.measure.name}: gains of each class",
        "class_gains.csv",
    )


def _left_out(found: Overview) -> list[Block]:
    rows = [[name, state, reason] for name, (state, reason) in found.left_out.items()]
    return (
        [
            Table(
                ["run", "state", "reason"],
                rows,
                [True, True, True],
                "Their numbers, or those that the reason names, are in no table and no figure.",
                "Runs",
            )
        ]
        if rows
        else []
    )


def _runs(found: Overview) -> list[Block]:
    """Return the runs that count, with their configuration and seed, folded away."""
    header = ["run", "seed", *(column.name for column in found.varied), "state"]
    rows = [
        [
            run.name,
            "" if run.seed is None else str(run.seed),
            *(column.text(run) for column in found.varied),
            run.state,
        ]
        for run in found.runs
        if run.settings
    ]
    if not rows:
        return []
    keys = {column.name: column.key for column in found.varied if column.name != column.key}
    table = Table(
        header,
        rows,
        [True, False, *[True] * (len(header) - 2)],
        "",
        f"All {counted(len(rows), 'run')}",
        "runs.csv",
    )
    return [table, Facts({name: f"is {key}" for name, key in keys.items()})] if keys else [table]
