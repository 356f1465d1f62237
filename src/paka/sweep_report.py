"""The report of several runs: scores by configuration, what differs for certain, the best one, and how training went."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from paka.cohort import Cohort, cohorts
from paka.comparisons import comparisons
from paka.configurations import Column, Values, columns
from paka.disk import whole
from paka.html_report import html
from paka.markdown_report import markdown
from paka.runs import Run, find, read, refuse_run
from paka.scores import decimal
from paka.selection import select
from paka.sweep_document import Board, Overview, document
from paka.sweep_figures import gain_figures, learning, score_figures
from paka.sweep_tables import (
    Tested,
    comparisons_csv,
    configurations_csv,
    runs_csv,
    write_csv,
)

DRAWN = (".png", ".svg")
"""What each figure is drawn as."""


def report_over(
    folders: Sequence[Path], output_dir: Path, *, reference: str | None = None, name: str | None = None
) -> dict[str, Path]:
    """Write the report of runs: `report.html`, `report.md`, tables as CSV and figures; return the files by name.

    The same runs give the same report, wherever they lie and however long they took: times and full paths are in `runs.csv`
    only, but for the command that makes the report again. What an earlier report left there goes.

    Args:
        folders: Folders of runs, or folders that hold some at any depth.
        output_dir: Where the files go; it is made.
        reference: The configuration that the others are compared with, as tables name it; None compares every pair.
        name: Title of the report.

    Raises:
        FileNotFoundError: A folder does not exist, or holds no run.
        LookupError: There is no such reference.
        ValueError: The report would take the place of a run's own.
    """
    return write_overview(overview(folders, output_dir, reference), output_dir, name=name)


def overview(folders: Sequence[Path], output_dir: Path, reference: str | None = None) -> Overview:
    """Return what there is to report of the runs in folders, with its figures drawn; see `report_over`."""
    paths = find(folders)
    refuse_run(output_dir)
    runs = read(paths, folders)
    found = cohorts(runs)
    chosen = [_reference(cohort, reference) for cohort in found]
    if reference is not None and not any(values is not None for values in chosen):
        known = "; ".join(f"'{label}'" for cohort in found for label in cohort.labels.values())
        raise LookupError(
            f"expected a configuration to compare with, got '{reference}': it is none of {known or 'none, since no run has scores'}"
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    several = len(found) > 1
    boards = [
        _board(output_dir / "figures", cohort, values, f"{number}_" if several else "", reference)
        for number, (cohort, values) in enumerate(zip(found, chosen, strict=True), start=1)
    ]
    return Overview(runs, boards, _varied(runs), _command(folders, output_dir, reference))


def _varied(runs: Sequence[Run]) -> list[Column]:
    """Return what runs of the same program differ in."""
    counting = [run for run in runs if run.counts]
    shown = counting or [run for run in runs if run.settings]
    programs = dict.fromkeys(run.program for run in shown)
    found = [column for one in programs for column in columns([run for run in shown if run.program == one])]
    return [*{column.key: column for column in found}.values()]


def _command(folders: Sequence[Path], output_dir: Path, reference: str | None) -> str:
    """Return the command that makes the report."""
    own = [] if [*folders] == [output_dir] else ["--output", str(output_dir)]
    compared = [] if reference is None else ["--reference", reference]
    return shlex.join(["python", "-m", "paka.report", *map(str, folders), *own, *compared])


def _reference(cohort: Cohort, text: str | None) -> Values | None:
    """Return the one configuration that a text names, or is some whole `name=value` of."""
    if text is None:
        return None
    labels = cohort.labels
    exact = [
        values for values, label in labels.items() if text in (label, " ".join(values), ",".join(values))
    ]
    parts = exact or [values for values, label in labels.items() if f", {text}, " in f", {label}, "]
    return parts[0] if len(parts) == 1 else None


def _board(folder: Path, cohort: Cohort, values: Values | None, prefix: str, asked: str | None) -> Board:
    tested = Tested(cohort, comparisons(cohort, values))
    gains = [*gain_figures(folder, cohort, prefix)]
    drawn = learning(folder, cohort, prefix) if cohort.program == "train" else None
    lacks = asked if values is None else None
    return Board(tested, select(cohort), score_figures(folder, tested, prefix), gains, drawn, lacks)


def write_overview(found: Overview, output_dir: Path, *, name: str | None = None) -> dict[str, Path]:
    """Write a report with its tables, and remove what an earlier one has left of it; return the files by name."""
    earlier = _earlier(output_dir)
    tables = {"runs.csv": runs_csv(found.runs, found.varied)}
    if tested := [board.tested for board in found.boards]:
        tables["configurations.csv"] = configurations_csv(tested)
        tables["comparisons.csv"] = comparisons_csv(tested)
    if any(board.gains for board in found.boards):
        tables["class_gains.csv"] = class_gains_csv(found.boards)
    written = document(found, name=name)
    pages = {"report.html": html(written), "report.md": markdown(written, output_dir)}
    paths = {}
    for file, text in pages.items():
        paths[file] = output_dir / file
        with whole(paths[file]) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    for file, table in tables.items():
        paths[file] = write_csv(output_dir / file, *table)
    drawn = {figure.path.with_suffix(kind) for figure in found.figures for kind in DRAWN}
    for path in earlier - drawn - {*paths.values()}:
        path.unlink(missing_ok=True)
    return paths | ({"figures": output_dir / "figures"} if drawn else {})


def _earlier(output_dir: Path) -> set[Path]:
    """Return the tables and figures that a report has left in a folder."""
    try:
        text = (output_dir / "report.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return set()
    if "python -m paka.report " not in text:
        return set()
    figures = re.findall(r"\]\((figures/\w+)\.png\)", text)
    drawn = {output_dir / f"{figure}{kind}" for figure in figures for kind in DRAWN}
    return drawn | {
        output_dir / file for file in ("configurations.csv", "comparisons.csv", "class_gains.csv")
    }


def class_gains_csv(boards: Sequence[Board]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of `class_gains.csv`."""
    rows = [
        [
            board.cohort.facts.get("benchmark", ""),
            gains.measure.protocol,
            gains.measure.settings,
            name,
            board.cohort.labels[values],
            decimal(gain),
        ]
        for board in boards
        for gains, _ in board.gains
        for name, row in zip(gains.classes, gains.gains, strict=True)
        for values, gain in zip(gains.configurations, row, strict=True)
        if gain == gain
    ]
    return ["benchmark", "protocol", "settings", "class", "configuration", "gain"], rows
