"""What a report over runs says on the terminal: its tables, and where everything is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from paka.document import Block, Facts, Table
from paka.document import Text as Paragraph
from paka.markdown_report import SYMBOLS
from paka.sweep_differences import differences
from paka.sweep_document import Board, Overview, best, board_title, summary
from paka.sweep_tables import score_tables
from paka.terminal import STYLES, print_columns, print_facts, print_paths, standard_output

LISTED = 10
"""Runs that are left out, and comparisons, that are printed; the others are in files."""


def closing(found: Overview, paths: Mapping[str, Path], *, console: Console | None = None) -> None:
    """Print what a report comes to: scores by configuration, the best, significant differences, runs left out, paths.

    Args:
        found: What there is to report.
        paths: Paths by what they hold.
        console: Where to print; standard output by default.
    """
    console = console or standard_output()
    _print(console, Text(f"paka: {summary(found)}", style="bold"))
    for board in found.boards:
        title = board_title(board.cohort, found.boards) if len(found.boards) > 1 else "Scores"
        _print(console, Text(f"\n{title}", style="bold"))
        _board(console, board)
    left_out = found.left_out
    if left_out:
        _print(console, Text("\nLeft out", style="bold"))
        reasons = {name: f"{state}: {reason}" for name, (state, reason) in left_out.items()}
        print_facts(console, dict([*reasons.items()][:LISTED]))
        if len(reasons) > LISTED:
            _print(console, Text(f"  and {len(reasons) - LISTED} more, see the report", style="dim"))
    _print(console, Text("\nFiles", style="bold"))
    print_paths(console, paths)


def _board(console: Console, board: Board) -> None:
    for table in score_tables(board.tested):
        print_marked(console, table)
    for title, blocks in (("Best", best(board)), ("Differences", differences(board.tested, board.lacks))):
        if blocks:
            _print(console, Text(f"\n{title}", style="bold"))
        for block in blocks:
            _block(console, block)


def _block(console: Console, block: Block) -> None:
    """Print a block of a report, unless it is folded away there."""
    match block:
        case Facts():
            print_facts(console, block.values)
        case Paragraph():
            _print(console, Text(f"  {block.text}", style="dim"))
        case Table() if not block.file:
            print_marked(console, replace(block, rows=block.rows[:LISTED]))
            if len(block.rows) > LISTED:
                _print(
                    console, Text(f"and {len(block.rows) - LISTED} more, see comparisons.csv", style="dim")
                )


def print_marked(console: Console, table: Table) -> None:
    """Print a table of a report; gains are green and losses red, if they are certain, and marked for those who see no colour."""
    signs = SYMBOLS if console.encoding.startswith("utf") else dict.fromkeys(SYMBOLS, "")
    rows = [
        [Text(cell.text + signs[cell.mark], style=STYLES[cell.mark]) for cell in row] for row in table.cells
    ]
    print_columns(table.header, rows, table.left, console)
    if table.caption:
        _print(console, Text(table.caption, style="dim"))


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True)
