"""What loggers take of a run's evidence: scores as scalars and tables of numbers, and the pictures in order of interest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import NamedTuple

from paka.document import Figure
from paka.per_class import COLUMNS as CLASS_COLUMNS
from paka.per_class import ClassScore
from paka.pictures import Gallery
from paka.protocols.harm import HarmReport
from paka.run_report import RunReport
from paka.scores import INTEGERS, VALUES, Score, decimal, format_rows

Value = str | int | float | None

_REALS = (*VALUES, "temperature", "share")


class Cells(NamedTuple):
    """A table of values.

    Attributes:
        columns: Their names.
        rows: Texts and numbers; None where there is nothing.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]


def tables(report: RunReport) -> dict[str, Cells]:
    """Return the tables of a run by name, with the numbers of its CSV files; those without rows are left out."""
    classes = [score for gallery in report.galleries for score in gallery.classes]
    found = {
        "evaluation/results": results_table(report.scores),
        "evaluation/per_class": class_table(classes),
        "evaluation/beyond_the_scores": harm_table(report.harm),
    }
    return {name: cells for name, cells in found.items() if cells.rows}


def results_table(scores: Sequence[Score]) -> Cells:
    """Return `results.csv` with numbers as numbers, so that they can be sorted and drawn."""
    columns, rows = format_rows(scores)
    return Cells(columns, [_typed(columns, row) for row in rows])


def class_table(scores: Sequence[ClassScore]) -> Cells:
    """Return `per_class.csv` with numbers as numbers."""
    texts = [
        tuple(value if isinstance(value, str) else decimal(value) for value in asdict(score).values())
        for score in scores
    ]
    return Cells(CLASS_COLUMNS, [_typed(CLASS_COLUMNS, row) for row in texts])


def harm_table(harm: Mapping[str, HarmReport]) -> Cells:
    """Return what changed in the tokens beside the scores, of each candidate."""
    columns = ("method", "measure", "before", "after", "unit", "worrying")
    return Cells(
        columns,
        [
            (name, row.name, row.before, row.after, row.unit, row.worrying)
            for name, found in harm.items()
            for row in found.rows
        ],
    )


def _typed(columns: Sequence[str], texts: Sequence[str]) -> list[Value]:
    return [_number(name, text) for name, text in zip(columns, texts, strict=True)]


def _number(name: str, text: str) -> Value:
    if name in INTEGERS:
        return int(text) if text else None
    if name in _REALS:
        return float(text) if text else None
    return text


def scalars(scores: Sequence[Score]) -> dict[str, float]:
    """Return the scores by `evaluation/PROTOCOL/METRIC/before`, `/after` and `/delta`, as they are printed.

    With several methods, that of the method stands before that of the protocol.
    """
    several = len({score.method for score in scores}) > 1
    names, rows = format_rows(scores)
    found = {}
    for score, row in zip(scores, rows, strict=True):
        start = f"evaluation/{score.method}/" if several else "evaluation/"
        texts = dict(zip(names, row, strict=True))
        for part in ("before", "after", "delta"):
            if texts[part]:
                found[f"{start}{score.protocol}/{score.metric}/{part}"] = float(texts[part])
    return found


def pictures(report: RunReport) -> dict[str, Figure]:
    """Return the figures of a run by name: scores, the tokens' components, predictions, then all others.

    The name is that of the file, below that of the comparison where there are several.
    """
    several = len(report.galleries) > 1
    firsts = [_foremost(gallery) for gallery in report.galleries]
    rest = [_all(gallery) for gallery in report.galleries]
    found: dict[str, Figure] = {}
    for gallery, figure in chain(_in_turn(report.galleries, firsts), _in_turn(report.galleries, rest)):
        name = f"{gallery.name}/{figure.path.stem}" if several else figure.path.stem
        found.setdefault(name, figure)
    return found


def _in_turn(
    galleries: Sequence[Gallery], figures: Sequence[Sequence[Figure]]
) -> Iterator[tuple[Gallery, Figure]]:
    for gallery, own in zip(galleries, figures, strict=True):
        yield from ((gallery, figure) for figure in own)


def _foremost(gallery: Gallery) -> list[Figure]:
    """Return what to see first: the scores, the tokens, and of each protocol what it predicted."""
    predicted = [figures[0] for figures in gallery.protocols.values() if figures]
    return [*gallery.overview, *gallery.tokens[:1], *predicted]


def _all(gallery: Gallery) -> list[Figure]:
    return [*gallery.tokens, *chain.from_iterable(gallery.protocols.values())]
