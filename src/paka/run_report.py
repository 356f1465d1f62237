"""The report of a run: what it came to, how it was measured, what it looks like and how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paka.document import (
    Block,
    Cell,
    Code,
    Document,
    Facts,
    Figure,
    Mark,
    Section,
    Table,
    Text,
    Verdict,
    Verdicts,
    counted,
)
from paka.html_report import html
from paka.markdown_report import markdown
from paka.per_class import ClassScore, class_table, write_class_scores
from paka.pictures import Gallery
from paka.protocols.harm import HarmReport
from paka.scores import INTERVAL, Score, format_rows, layout, left_aligned, spoken
from paka.terminal import CHOICE, WORDS, harm_table

SETTINGS = (
    "protocol",
    "metric",
    "benchmark",
    "split",
    "profile",
    "size",
    "classes",
    "memory",
    "k",
    "temperature",
    "upsampling",
    "seed",
    "note",
)
"""Columns that say how a score was measured."""


@dataclass(frozen=True)
class RunReport:
    """What there is to report of a run.

    Attributes:
        title: Heading.
        facts: Values by name, such as those of the banner.
        scores: Rows of results.
        command: Command line that made the run.
        provenance: Versions of code and packages, see `paka.provenance`.
        galleries: Pictures of each comparison, or of the one encoder.
        training: Figures of the training.
        skipped: Protocols that were asked for and not run, with the reason.
        harm: What else changed in the tokens, by candidate.
        choice: What estimates without labels say of several encoders, see `paka.choice.tables`.
        loading: Python that loads the encoders, if there are files of them.
    """

    title: str
    facts: Mapping[str, str]
    scores: Sequence[Score]
    command: str
    provenance: Mapping[str, Any]
    galleries: Sequence[Gallery] = ()
    training: Sequence[Figure] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    harm: Mapping[str, HarmReport] = field(default_factory=dict)
    choice: Sequence[Sequence[tuple[str, ...]]] = ()
    loading: str = ""


def write_report(folder: Path, report: RunReport) -> dict[str, Path]:
    """Write `report.html`, `report.md` and the scores of single classes; return the files by name.

    Args:
        folder: Folder of the run.
        report: What there is to report; its figures are there.

    Raises:
        FileNotFoundError: A figure is missing.
    """
    written = document(report)
    texts = {"report.html": html(written), "report.md": markdown(written, folder)}
    paths = {name: folder / name for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text, encoding="utf-8")
    classes = [score for gallery in report.galleries for score in gallery.classes]
    if classes:
        paths["per_class.csv"] = folder / "per_class.csv"
        write_class_scores(paths["per_class.csv"], classes)
    if any((folder / "figures").glob("**/*.png")):
        paths["figures"] = folder / "figures"
    return paths


def document(report: RunReport) -> Document:
    """Return a run's report as a document."""
    overview = report.galleries[0].overview if len(report.galleries) == 1 else []
    return Document(
        report.title,
        summary(report.scores),
        [*_verdicts(report.scores), Facts(report.facts)],
        [
            Section("Results", [*_results(report.scores), *overview]),
            Section("Training", report.training),
            *_galleries(report.galleries),
            Section("Beyond the scores", *_harm(report.harm)),
            Section("Choosing without labels", _choice(report.choice)),
            Section("Not run", [Facts(report.skipped)] if report.skipped else []),
            Section("How the scores were measured", [*_settings(report.scores)]),
            Section("Load the encoder", [Code(report.loading, "python")] if report.loading else []),
            Section("Made by", [Code(report.command, "bash"), Facts(versions(report.provenance))]),
        ],
    )


def summary(scores: Sequence[Score]) -> str:
    """Return what a run comes to, in a sentence: how many scores are better for certain, and how many worse."""
    first = _first_metrics(scores)
    compared = [score for score in first if score.delta is not None]
    if not first:
        return ""
    if not compared:
        return f"{counted(len(first), 'score')} of frozen tokens as they are, each with its 95 % interval."
    better, worse = (sum(score.verdict == mark for score in compared) for mark in ("gain", "loss"))
    unclear = len(compared) - better - worse
    return (
        f"Of {counted(len(compared), 'score')}, {better or 'none'} {_is(better)} better, {worse or 'none'} {_is(worse)} worse and "
        f"{unclear or 'none'} {_is(unclear)} undecided: a difference counts where its 95 % interval leaves out zero."
    )


def _is(count: int) -> str:
    return "are" if count > 1 else "is"


def _first_metrics(scores: Sequence[Score]) -> list[Score]:
    """Return the first row of each protocol and method."""
    return list({(score.protocol, score.method): score for score in reversed(scores)}.values())[::-1]


def _verdicts(scores: Sequence[Score]) -> list[Block]:
    """Return what is to be remembered of each protocol's first metric."""
    first = _first_metrics(scores)
    several = len({score.method for score in first}) > 1
    verdicts = [_verdict(score, several=several) for score in first]
    return [Verdicts(verdicts)] if verdicts else []


def _verdict(score: Score, *, several: bool) -> Verdict:
    table = layout([score])
    texts = dict(zip(table.header, table.rows[0], strict=True))
    name = f"{spoken(score.protocol)}, {score.method}" if several else spoken(score.protocol)
    interval = texts.get(INTERVAL, "")
    measured = f"{score.metric} {score.unit}".strip()
    if score.delta is None:
        return Verdict(name, f"{texts['before']} {interval}".strip(), measured, None)
    detail = f"{measured}: {texts['before']} → {texts['after']}"
    return Verdict(name, f"{texts['delta']} {interval}".strip(), detail, mark_of(score))


def mark_of(score: Score | ClassScore) -> Mark:
    """Return the mark of a score by what is certain of its difference."""
    marks: dict[str, Mark] = {"gain": "gain", "loss": "loss"}
    return marks.get(score.verdict, "")


def _results(scores: Sequence[Score]) -> list[Block]:
    """Return the table of results, with what is certain marked."""
    if not scores:
        return []
    caption, header, rows = layout(scores)
    cells = [_marked(header, row, score) for row, score in zip(rows, scores, strict=True)]
    table = Table(header, cells, left_aligned(header), f"{caption}.", "Scores")
    if all(score.delta is None for score in scores):
        return [table]
    return [
        table,
        Text(
            "✓ better, ✗ worse: the 95 % interval of the difference, a paired bootstrap over images, leaves out zero."
        ),
    ]


def _marked(header: Sequence[str], row: Sequence[str], score: Score | ClassScore) -> list[str | Cell]:
    """Return a row whose difference is marked."""
    return [
        Cell(text, mark_of(score)) if name == "delta" else text
        for name, text in zip(header, row, strict=True)
    ]


def _galleries(galleries: Sequence[Gallery]) -> Iterator[Section]:
    """Yield the pictures: of predictions and of tokens, or a section for each of several comparisons."""
    for gallery in galleries:
        predictions = [
            Section(spoken(protocol), [*figures, *_classes(gallery, protocol)])
            for protocol, figures in gallery.protocols.items()
        ]
        sections = [Section("Predictions", sections=predictions), Section("Tokens", gallery.tokens)]
        if len(galleries) == 1:
            yield from sections
        else:
            yield Section(f"Before and after: {gallery.name}", gallery.overview, sections)


def _classes(gallery: Gallery, protocol: str) -> list[Block]:
    scores = [score for score in gallery.classes if score.protocol == protocol]
    if not scores:
        return []
    header, rows = class_table(scores)
    cells = [_marked(header, row, score) for row, score in zip(rows, scores, strict=True)]
    left = [name == "class" for name in header]
    return [
        Table(
            header,
            cells,
            left,
            "IoU in percent.",
            f"{spoken(protocol)}: numbers of each class",
            "per_class.csv",
        )
    ]


def _harm(harm: Mapping[str, HarmReport]) -> tuple[list[Block], list[Section]]:
    """Return what changed in the tokens beside the scores, of one candidate or of several."""
    tables = {name: _harm_table(found) for name, found in harm.items()}
    if len(tables) < 2:
        return [*tables.values()], []
    return [], [Section(f"Beyond the scores: {name}", [table]) for name, table in tables.items()]


def _choice(tables: Sequence[Sequence[tuple[str, ...]]]) -> list[Block]:
    """Return what estimates without labels say of several encoders, and how well they ranked them."""
    captions = (
        "The higher the better. DSE: dense representation structure estimate (Dai et al. 2025, arXiv 2510.17299), comparable "
        "within this table only. Stability: adjusted Rand index of clusterings of two halves of the images. Then the scores.",
        "Rank correlations of the estimate with the score, and what choosing by the estimate loses against the best.",
    )
    return [
        Table(table[0], table[1:], [name in WORDS for name in table[0]], caption, title)
        for title, table, caption in zip(CHOICE, tables, captions, strict=False)
        if table
    ]


def _harm_table(found: HarmReport) -> Table:
    (*header, _), *rows = harm_table(found)
    cells = [
        [*texts, _moved(row.change, worse=row.worse), f"Worse if it {row.worrying}s. {row.meaning}"]
        for (*texts, _), row in zip(rows, found.rows, strict=True)
    ]
    left = [True, False, False, True, True, True]
    caption = (
        "Measured on the tokens of the scored images, without labels. How far a change matters is for the reader to judge. "
        "Drift is from the encoder before, so 0 by definition there."
    )
    return Table([*header, "moved", "what it says"], cells, left, caption, "Measures of the tokens")


def _moved(change: float, *, worse: bool) -> str:
    moved = "up" if change > 0 else "down" if change < 0 else "not"
    return f"{moved}, worse" if worse else moved


def _settings(scores: Sequence[Score]) -> list[Block]:
    """Return how each score was measured: a table of its settings, and the rules of the profile."""
    if not scores:
        return []
    names, rows = format_rows(scores)
    texts = list(dict.fromkeys(tuple(row[names.index(name)] for name in SETTINGS) for row in rows))
    kept = [place for place in range(len(SETTINGS)) if any(row[place] for row in texts)]
    header = [SETTINGS[place] for place in kept]
    table = Table(
        header,
        [[row[place] for place in kept] for row in texts],
        left_aligned(header),
        "",
        "Settings of the scores",
    )
    told: dict[str, list[str]] = {}
    for score in scores:
        told.setdefault(score.rules, []).append(spoken(score.protocol))
    profiles = dict.fromkeys(score.profile for score in scores)
    rules = {
        f"rules of {', '.join(profiles)}"
        + (f", {', '.join(dict.fromkeys(names))}" if len(told) > 1 else ""): rule
        for rule, names in told.items()
        if rule
    }
    return [table, Facts(rules)] if rules else [table]


def versions(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return versions of code and packages as facts."""
    packages = ", ".join(f"{name} {version}" for name, version in provenance["packages"].items() if version)
    return {
        "commit": provenance["git"] or "not known: not run from a checkout",
        "python": provenance["python"],
        "packages": packages,
    }
