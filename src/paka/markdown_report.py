"""A document as Markdown."""

from __future__ import annotations

import os
from pathlib import Path

from paka.document import (
    WORDS,
    Block,
    Cell,
    Code,
    Document,
    Facts,
    Figure,
    Section,
    Table,
    Text,
    Verdict,
    Verdicts,
)

SYMBOLS = {"gain": " ✓", "loss": " ✗", "": ""}
"""What stands behind a number, by its mark; no arrows, since errors are better when they fall."""


def markdown(document: Document, folder: Path) -> str:
    """Return a document as Markdown for a file in a folder; figures are referred to relative to it."""
    parts = [f"# {document.title}", document.summary, *(written(block, folder) for block in document.blocks)]
    for section in document.filled:
        parts += _section(section, folder, level=2)
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section, folder: Path, *, level: int) -> list[str]:
    parts = [f"{'#' * level} {section.title}", *(written(block, folder) for block in section.blocks)]
    for inner in section.sections:
        if not inner.empty:
            parts += _section(inner, folder, level=level + 1)
    return parts


def written(block: Block, folder: Path) -> str:
    """Return a block of a document as Markdown for a file in a folder."""
    match block:
        case Table():
            return _table(block)
        case Figure():
            return f"![{block.alt}]({os.path.relpath(block.path, folder)})\n\n*{block.caption}*"
        case Facts():
            return "\n".join(f"* **{name}**: {value}" for name, value in block.values.items())
        case Code():
            return f"```{block.language}\n{block.text.strip()}\n```"
        case Verdicts():
            return "\n".join(map(_verdict, block.verdicts))
        case Text():
            return block.text


def _table(table: Table) -> str:
    """Return a table, or where a file holds it if it is folded away."""
    if table.file:
        return f"{table.title}: [{table.file}]({table.file})"
    rule = [":--" if left else "--:" for left in table.left]
    rows = [[_cell(cell) for cell in row] for row in table.cells]
    lines = [" | ".join(row) for row in ([_escaped(title) for title in table.header], rule, *rows)]
    text = "\n".join(f"| {line} |" for line in lines)
    return f"{text}\n\n{table.caption}" if table.caption else text


def _verdict(verdict: Verdict) -> str:
    said = "" if verdict.mark is None else f", {WORDS[verdict.mark]}"
    return f"* **{verdict.name} {verdict.value}**{said} ({verdict.detail})"


def _cell(cell: Cell) -> str:
    return _escaped(cell.text) + SYMBOLS[cell.mark]


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")
