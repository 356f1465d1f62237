"""A report as a document: sections of facts, tables, figures and code that a caller fills, in no format yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

Mark = Literal["", "gain", "loss"]
"""What is certain of a number: that it is better, that it is worse, or nothing."""

WORDS: Mapping[Mark, str] = {"gain": "better", "loss": "worse", "": "no clear difference"}
"""Marks in words."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says.
        mark: What is certain of it.
    """

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: Titles of the columns.
        rows: Cells, as many as there are titles; plain text is a cell without a mark.
        left: Which columns hold words, and are aligned to the left.
        caption: A line below it.
        title: What it shows, where it is folded away.
        file: File that holds the same, relative to the report; a long table is folded away where that is said.

    Raises:
        ValueError: A row has more or fewer cells than there are titles.
    """

    kind: ClassVar[str] = "table"

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    left: Sequence[bool]
    caption: str = ""
    title: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        """Refuse rows that do not fit under their titles."""
        widths = {len(self.header), len(self.left), *map(len, self.rows)}
        if len(widths) > 1:
            raise ValueError(
                f"expected as many cells in each row as titles, {len(self.header)}, got {sorted(widths)}"
            )

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows as cells."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Figure:
    """A picture in a file.

    Attributes:
        path: PNG file, or an animated GIF.
        caption: What it shows, in a sentence or two.
        alt: What somebody who cannot see it has to know.
    """

    kind: ClassVar[str] = "figure"

    path: Path
    caption: str
    alt: str


@dataclass(frozen=True)
class Facts:
    """Values by name."""

    kind: ClassVar[str] = "facts"

    values: Mapping[str, str]


@dataclass(frozen=True)
class Code:
    """Lines to copy.

    Attributes:
        text: The lines.
        language: `bash` or `python`.
    """

    kind: ClassVar[str] = "code"

    text: str
    language: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"

    text: str


@dataclass(frozen=True)
class Verdict:
    """What is to be remembered of one score.

    Attributes:
        name: What was measured.
        value: The number, with its interval.
        detail: What it is made of.
        mark: What is certain of it; None where nothing is compared.
    """

    name: str
    value: str
    detail: str
    mark: Mark | None


@dataclass(frozen=True)
class Verdicts:
    """What is to be remembered.

    Attributes:
        verdicts: One for each score.
    """

    kind: ClassVar[str] = "verdicts"

    verdicts: Sequence[Verdict]


Block: TypeAlias = Table | Figure | Facts | Code | Text | Verdicts


@dataclass(frozen=True)
class Section:
    """A part of a report under a heading.

    Attributes:
        title: The heading.
        blocks: What it holds.
        sections: Its own parts.
    """

    title: str
    blocks: Sequence[Block] = ()
    sections: Sequence[Section] = ()

    @property
    def empty(self) -> bool:
        """Whether it holds nothing."""
        return not self.blocks and all(section.empty for section in self.sections)


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: Its heading.
        summary: What it comes to, in a sentence.
        blocks: What comes first.
        sections: Its parts; those that hold nothing are left out.
    """

    title: str
    summary: str = ""
    blocks: Sequence[Block] = ()
    sections: Sequence[Section] = field(default_factory=tuple)

    @property
    def filled(self) -> list[Section]:
        """The sections that hold something."""
        return [section for section in self.sections if not section.empty]


def counted(count: int, noun: str) -> str:
    """Return a number of things in words, such as `1 run` or `2 runs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
