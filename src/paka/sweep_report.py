"""The report of several runs: scores by configuration, what differs for certain, the best one, and how training went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paka.comparisons import comparisons
from paka.configurations import Values, columns
from paka.html_report import html
from paka.markdown_report import markdown
from paka.runs import find, read, refuse_run
from paka.scores import decimal
from paka.selection import select
from paka.sweep import Sweep, sweeps
from paka.sweep_document import Board, Overview, document
from paka.sweep_figures import gain_figures, learning, score_figures
from paka.sweep_tables import (
    Tested,
    comparisons_csv,
    configurations_csv,
    runs_csv,
    write_csv,
)


def report_over(
    folders: Sequence[Path], output_dir: Path, *, reference: str | None = None, name: str | None = None
) -> dict[str, Path]:
    """Write the report of runs: `report.html`, `report.md`, tables as CSV and figures; return the files by name.

    The same runs give the same report, wherever they lie and however long they took: times and full paths are in `runs.csv`
    only.

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
    return write_overview(overview(folders, output_dir, reference), output_dir, folders, name=name)


def overview(folders: Sequence[Path], output_dir: Path, reference: str | None = None) -> Overview:
    """Return what there is to report of the runs in folders, with its figures drawn; see `report_over`."""
    paths = find(folders)
    refuse_run(output_dir)
    runs = read(paths, folders)
    found = sweeps(runs)
    chosen = [_reference(sweep, reference) for sweep in found]
    if reference is not None and not any(values is not None for values in chosen):
        known = "; ".join(label for sweep in found for label in sweep.labels.values())
        raise LookupError(
            f"expected a configuration to compare with, got {reference}: one of {known or 'none, since no run has scores'}"
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    several = len(found) > 1
    boards = [
        _board(output_dir / "figures", sweep, values, f"{number}_" if several else "")
        for number, (sweep, values) in enumerate(zip(found, chosen, strict=True), start=1)
    ]
    counting = [run for run in runs if run.counts]
    return Overview(runs, boards, columns(counting or [run for run in runs if run.settings]))


def _reference(sweep: Sweep, text: str | None) -> Values | None:
    """Return the one configuration that a text names, or is a part of the name of."""
    if text is None:
        return None
    labels = sweep.labels
    exact = [
        values for values, label in labels.items() if text in (label, " ".join(values), ",".join(values))
    ]
    parts = exact or [values for values, label in labels.items() if text in label]
    return parts[0] if len(parts) == 1 else None


def _board(folder: Path, sweep: Sweep, reference: Values | None, prefix: str) -> Board:
    tested = Tested(sweep, comparisons(sweep, reference))
    gains = [*gain_figures(folder, sweep, prefix)]
    drawn = learning(folder, sweep, prefix) if sweep.program == "train" else None
    return Board(tested, select(sweep), score_figures(folder, tested, prefix), gains, drawn)


def write_overview(
    found: Overview, output_dir: Path, folders: Sequence[Path], *, name: str | None = None
) -> dict[str, Path]:
    """Write a report with its tables; return the files by name."""
    written = document(found, folders, name=name)
    paths = {file: output_dir / file for file in ("report.html", "report.md")}
    paths["report.html"].write_text(html(written), encoding="utf-8")
    paths["report.md"].write_text(markdown(written, output_dir), encoding="utf-8")
    tested = [board.tested for board in found.boards]
    tables = {"runs.csv": runs_csv(found.runs, found.varied)}
    if tested:
        tables["configurations.csv"] = configurations_csv(tested)
        tables["comparisons.csv"] = comparisons_csv(tested)
    if any(board.gains for board in found.boards):
        tables["class_gains.csv"] = class_gains_csv(found.boards)
    for file, table in tables.items():
        paths[file] = write_csv(output_dir / file, *table)
    if any((output_dir / "figures").glob("*.png")):
        paths["figures"] = output_dir / "figures"
    return paths


def class_gains_csv(boards: Sequence[Board]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of `class_gains.csv`."""
    rows = [
        [
            board.sweep.facts.get("benchmark", ""),
            gains.measure.protocol,
            gains.measure.settings,
            name,
            board.sweep.labels[values],
            decimal(gain),
        ]
        for board in boards
        for gains, _ in board.gains
        for name, row in zip(gains.classes, gains.gains, strict=True)
        for values, gain in zip(gains.configurations, row, strict=True)
        if gain == gain
    ]
    return ["benchmark", "protocol", "settings", "class", "configuration", "gain"], rows
