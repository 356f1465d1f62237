"""What a run says on the terminal: banner, forecast and table of results, with the numbers of `scores`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from paka.progress import duration
from paka.scores import Score, layout, left_aligned

if TYPE_CHECKING:
    from paka.protocols.harm import HarmReport  # brings torch, which reports of runs do without

CHOICE = ("Estimated without labels", "How well the estimates ranked them")
"""Titles of the tables of `paka.choice.tables`."""
WORDS = ("checkpoint", "protocol", "estimate", "chosen")
"""Their columns that hold words."""
BANNER_LINES = 12
"""Most lines that a banner may take."""
WIDTH = 100
"""Least width of what is printed to a file or a pipe, in characters."""


STYLES = {"gain": "bold green", "loss": "bold red", "": ""}
"""How differences are printed, by what they are."""


def standard_output() -> Console:
    """Return a console on standard output: plain text at least 100 wide where that is not a terminal."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=WIDTH)


def print_table(scores: Sequence[Score], console: Console | None = None) -> None:
    """Print the scores as one table whose rows never wrap; gains are green and losses red, if they are certain.

    Args:
        scores: Rows, in order.
        console: Where to print; standard output by default.
    """
    console = console or standard_output()
    caption, header, rows = layout(scores)
    styled: list[list[str | Text]] = [[*row] for row in rows]
    if "delta" in header:
        place = header.index("delta")
        for score, row in zip(scores, styled, strict=True):
            row[place] = Text(str(row[place]), style=STYLES[score.verdict])
    print_columns(header, styled, left_aligned(header), console)
    _print(console, Text(caption, style="dim"))


def print_columns(
    header: Sequence[str], rows: Sequence[Sequence[str | Text]], left: Sequence[bool], console: Console
) -> None:
    """Print a table whose rows never wrap.

    Args:
        header: Titles of the columns.
        rows: Cells, as many as there are titles; styled ones keep their style.
        left: Which columns are aligned to the left.
        console: Where to print.
    """
    texts = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    titles = [Text(title, style="bold") for title in header]
    widths = [max(cell.cell_len for cell in column) for column in zip(titles, *texts, strict=True)]
    _print_cells(console, titles, widths, left)
    dash = "─" if console.encoding.startswith("utf") else "-"
    _print(console, Text(dash * (sum(widths) + 2 * len(widths) - 2), style="dim"))
    for row in texts:
        _print_cells(console, row, widths, left)


def banner(title: str, facts: Mapping[str, str], *, console: Console | None = None) -> None:
    """Print what is about to happen: a title and aligned `name  value` lines.

    Args:
        title: First line.
        facts: Values by name, one line each.
        console: Where to print; standard output by default.

    Raises:
        ValueError: It would take more than 12 lines.
    """
    lines = 1 + sum(1 + value.count("\n") for value in facts.values())
    if lines > BANNER_LINES:
        raise ValueError(f"a banner has at most {BANNER_LINES} lines, not {lines}; leave facts to the report")
    console = console or standard_output()
    _print(console, Text(title, style="bold"))
    print_facts(console, facts)


def closing(
    scores: Sequence[Score],
    paths: Mapping[str, str | Path],
    next_command: str | None,
    *,
    skipped: Mapping[str, str] | None = None,
    harm: Mapping[str, HarmReport] | None = None,
    choice: Sequence[Sequence[tuple[str, ...]]] = (),
    console: Console | None = None,
) -> None:
    """Print how it went: the table of results, where everything is, and the command to try next.

    Args:
        scores: Rows of the table; without any there is no table.
        paths: Paths by what they hold.
        next_command: Command line, if one is suggested.
        skipped: What was asked for and not run, with the reason.
        harm: What else changed in the tokens, by candidate.
        choice: What estimates without labels say of several encoders, see `paka.choice.tables`.
        console: Where to print; standard output by default.
    """
    console = console or standard_output()
    if scores:
        _print(console, Text("\nResults", style="bold"))
        print_table(scores, console)
    for name, found in (harm or {}).items():
        _print(console, Text(f"\nBeyond the scores: {name}", style="bold"))
        header, *rows = harm_table(found)
        print_columns(header, rows, [True, False, False, True, True], console)
    for title, table in zip(CHOICE, choice, strict=False):
        if table:
            _print(console, Text(f"\n{title}", style="bold"))
            header, *rows = table
            print_columns(header, rows, [name in WORDS for name in header], console)
    if skipped:
        _print(console, Text("\nNot run", style="bold"))
        print_facts(console, skipped)
    _print(console, Text("\nFiles", style="bold"))
    print_paths(console, paths)
    if next_command is not None:
        _print(console, Text("\nNext", style="bold"))
        _print(console, Text(f"  {next_command}", style="cyan"))


def harm_table(harm: HarmReport) -> list[tuple[str, ...]]:
    """Return header and rows of text of what changed in the tokens beside the scores."""
    rows = [
        (row.name, f"{row.before:.4g}", f"{row.after:.4g}", row.unit, f"worse if it {row.worrying}s")
        for row in harm.rows
    ]
    return [("measure", "before", "after", "unit", "reading"), *rows]


def forecast(seconds: float) -> str:
    """Return a duration as one says it, such as `about 2 min 10 s`.

    Args:
        seconds: Duration, at least 0.

    Raises:
        ValueError: The duration is negative or not finite.
    """
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"a duration must be finite and at least 0 seconds, not {seconds}")
    return f"about {duration(seconds)}"


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True)


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Print aligned `name  value` lines."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        indented = value.replace("\n", "\n" + " " * (width + 4))
        _print(console, Text.assemble(("  " + name.ljust(width), "dim"), "  ", indented))


def print_paths(console: Console, paths: Mapping[str, str | Path]) -> None:
    """Print aligned `name  path` lines, as one would type the paths here."""
    print_facts(console, {name: from_here(path) for name, path in paths.items()})


def from_here(path: str | Path) -> str:
    """Return a path as one would type it here: below the current folder from there on, any other as it is."""
    absolute, here = Path(path).absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)


def _print_cells(
    console: Console, cells: Sequence[Text], widths: Sequence[int], left: Sequence[bool]
) -> None:
    aligned = [cell.copy() for cell in cells]
    for cell, width, to_left in zip(aligned, widths, left, strict=True):
        cell.align("left" if to_left else "right", width)
    line = Text("  ").join(aligned)
    line.rstrip()
    _print(console, line)
