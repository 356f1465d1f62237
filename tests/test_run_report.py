"""The report of a run: what it comes to, and that its numbers are those of the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.test_html_report import Page

from paka.document import Cell, Figure, Table
from paka.per_class import ClassScore
from paka.pictures import Gallery
from paka.protocols.harm import ImageTokens, harm_report
from paka.run_report import RunReport, document, summary, write_report
from paka.scores import Score, layout

SCORES = [
    Score(
        "scenes", protocol, "compact", "mIoU", "test", 0, 40.214, 40.214 + gain, gain, gain - 1, gain + 1, 25600, 30,
        method="paka", size="16x16 tokens", temperature=0.02, classes=12, rules="aspect keep; 1 x seeded",
    )
    for protocol, gain in (("in_context", 4.95), ("linear", 0.2), ("overclustering", -3.0))
]  # fmt: skip
ALONE = [replace(score, after=None, delta=None, ci_low=39.0, ci_high=41.5) for score in SCORES]
PROVENANCE = {
    "git": None,
    "python": "3.11.7",
    "packages": {"paka-ssl": "0.1.0", "torch": "2.6.0", "timm": None},
}
CLASS = ClassScore("in_context", "paka", "sky", 12.3, 40.0, 45.0, 5.0, 4.0, 6.0)


def run_report(folder: Path, **changes: object) -> RunReport:
    picture = folder / "figures" / "in_context.png"
    picture.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((30, 60, 3), dtype=np.uint8)).save(picture)
    figure = Figure(picture, "True and predicted classes.", "Rows of images")
    tokens = [ImageTokens(torch.randn(4, 3, 3, 8), torch.randn(4, 8)) for _ in range(2)]
    options = {
        "title": "evaluate_tiny_scenes",
        "facts": {"backbone": "tiny"},
        "scores": SCORES,
        "command": "python -m paka.evaluate backbone=tiny",
        "provenance": PROVENANCE,
        "galleries": [
            Gallery("paka", [], {"in_context": [figure]}, [figure], [CLASS, replace(CLASS, name="road")])
        ],
        "skipped": {"linear_depth": "scenes has no depth"},
        "harm": {"paka": harm_report(*tokens)},
        "loading": "import timm",
        **changes,
    }
    return RunReport(**options)  # type: ignore[arg-type]


def test_all_files_are_written_and_named(tmp_path: Path) -> None:
    paths = write_report(tmp_path, run_report(tmp_path))
    assert {name: path.relative_to(tmp_path).as_posix() for name, path in paths.items()} == {
        name: name for name in ("report.html", "report.md", "per_class.csv", "figures")
    }
    assert (
        (tmp_path / "per_class.csv").read_text().splitlines()[1].startswith("in_context,paka,sky,12.30,40.00")
    )


def test_without_classes_there_is_no_file_of_them(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    paths = write_report(tmp_path, replace(run_report(tmp_path), galleries=[]))
    assert "per_class.csv" not in paths


@pytest.mark.parametrize("scores", [SCORES, ALONE, [*SCORES, *(replace(s, method="other") for s in SCORES)]])
def test_numbers_are_those_of_the_table(tmp_path: Path, scores: list[Score]) -> None:
    paths = write_report(tmp_path, run_report(tmp_path, scores=scores))
    caption, header, rows = layout(scores)
    cells = Page(paths["report.html"].read_text()).cells
    width = len(header)
    assert cells[:width] == list(header)
    assert [tuple(cells[i : i + width]) for i in range(width, width * (len(rows) + 1), width)] == rows
    text = paths["report.md"].read_text()
    plain = text.replace(" ✓", "").replace(" ✗", "")
    assert all(f"| {' | '.join(row)} |" in plain for row in rows)
    assert f"{caption}." in text
    for score in scores:
        row = dict(zip(*layout([score])[1:2], *layout([score])[2], strict=True))
        assert row["before"] in text
        assert row["95 % interval"] in text


def test_everything_is_in_both(tmp_path: Path) -> None:
    paths = write_report(tmp_path, run_report(tmp_path))
    for text in (Page(paths["report.html"].read_text()).text, paths["report.md"].read_text()):
        for part in (
            "evaluate_tiny_scenes", "in-context", "+4.95 [+3.95, +5.95]", "40.21 → 45.16", "scenes has no depth", "25600", "16x16 tokens",
            "aspect keep; 1 x seeded", "patch RankMe", "global CKA drift", "Worse if it falls.", "import timm",
            "python -m paka.evaluate backbone=tiny", "paka-ssl 0.1.0, torch 2.6.0", "3.11.7", "not run from a checkout",
            "True and predicted classes.", "per_class.csv",
        ):  # fmt: skip
            assert part in text, part
    assert "timm None" not in text


def test_only_certain_differences_are_marked(tmp_path: Path) -> None:
    (table,) = [b for b in document(run_report(tmp_path)).sections[0].blocks if isinstance(b, Table)]
    marks = [cell.mark for row in table.rows for cell in row if isinstance(cell, Cell)]
    assert marks == ["gain", "", "loss"]


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ([], ""),
        (ALONE, "3 scores of frozen tokens as they are, each with its 95 % interval."),
        (SCORES, "Of 3 scores, 1 is better, 1 is worse and 1 is undecided: "),
        (SCORES[:1], "Of 1 score, 1 is better, none is worse and none is undecided: "),
        ([*SCORES, replace(SCORES[0], metric="other")], "Of 3 scores, "),
        ([*SCORES, replace(SCORES[0], method="other")], "Of 4 scores, 2 are better, "),
    ],
)
def test_what_it_comes_to(scores: list[Score], sentence: str) -> None:
    assert summary(scores).startswith(sentence)


def test_several_comparisons_have_a_section_each(tmp_path: Path) -> None:
    one = run_report(tmp_path)
    (gallery,) = one.galleries
    several = replace(
        one, galleries=[gallery, replace(gallery, name="b")], harm=dict.fromkeys("ab", one.harm["paka"])
    )
    titles = [section.title for section in document(several).filled]
    assert titles[1:4] == ["Before and after: paka", "Before and after: b", "Beyond the scores"]
    page = Page(write_report(tmp_path, several)["report.html"].read_text())
    assert "Beyond the scores: b" in page.text


def test_a_training_without_scores_has_its_curves(tmp_path: Path) -> None:
    report = run_report(tmp_path)
    figure = report.galleries[0].tokens[0]
    plain = replace(report, scores=[], galleries=[], harm={}, skipped={}, training=[figure])
    assert [section.title for section in document(plain).filled] == [
        "Training",
        "Load the encoder",
        "Made by",
    ]
    assert len(Page(write_report(tmp_path, plain)["report.html"].read_text()).named("img")) == 1
