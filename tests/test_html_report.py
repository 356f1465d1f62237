"""Reports as files: one HTML that needs nothing else and says what the table says, and the same as Markdown."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paka import html_report
from paka.document import Cell, Code, Document, Facts, Figure, Section, Table, Text, Verdict, Verdicts
from paka.html_report import SHARP, html
from paka.markdown_report import markdown

VOID_ELEMENTS = {"meta", "link", "img", "br", "hr"}
TABLE = Table(["name", "delta"], [["a", Cell("+1.00", "gain")], ["b <i>", Cell("-2.00", "loss")], ["c | d", "0.00"]], [True, False], "In percent.", "Scores")  # fmt: skip


class Page(HTMLParser):
    """What a browser would see, with every element closed where it must be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.cells: list[str] = []
        self.unseen = 0
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        # Marks stand in elements of their own, behind the number.
        if self.open[-1:] in (["td"], ["th"]):
            self.cells[-1] += data.strip()

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "figures" / "a.png"
    path.parent.mkdir()
    Image.fromarray(np.zeros((30, 60, 3), dtype=np.uint8)).save(path)
    return path


def document(picture: Path) -> Document:
    return Document(
        "A <title> & more",
        "It came to this.",
        [
            Verdicts([Verdict("in-context", "+1.00 [+0.50, +1.50]", "mIoU %", "gain"), Verdict("linear", "3.00", "mIoU %", None)]),
            Facts({"backbone": "tiny", "compared": "<b>x</b>"}),
        ],
        [
            Section("Results", [TABLE, Text("A paragraph.")]),
            Section("Empty"),
            Section("Pictures", sections=[Section("Results", [Figure(picture, "What it \"shows\"", "An alt <text>")]), Section("Empty")]),
            Section("Classes", [replace(TABLE, title="Numbers", file="per_class.csv")]),
            Section("Made by", [Code("python -m paka.evaluate 'a<b'\n", "bash")]),
        ],
    )  # fmt: skip


def test_html_is_well_formed_and_everything_is_escaped(picture: Path) -> None:
    text = html(document(picture))
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.named("html") == [{"lang": "en"}]
    assert "A <title> & more" in page.text
    assert not page.named("b")
    assert not page.named("i")
    assert "python -m paka.evaluate 'a<b'" in page.text


def test_html_asks_for_nothing(picture: Path) -> None:
    text = html(document(picture))
    page = Page(text)
    assert not page.named("script")
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name, "#")
            assert value.startswith(("data:", "#")), value
        assert not any(name.startswith("on") for name in attributes)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style


def test_pictures_are_embedded_with_alternative_text_and_size(picture: Path) -> None:
    (image,) = Page(html(document(picture))).named("img")
    assert image["alt"] == "An alt <text>"
    kind, _, data = image["src"].partition(";base64,")
    assert kind == "data:image/png"
    assert base64.b64decode(data) == picture.read_bytes()
    assert (image["width"], image["height"]) == ("40", "20")


def test_headings_descend_and_anchors_are_unique(picture: Path) -> None:
    page = Page(html(document(picture)))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels == [1, 2, 2, 3, 2, 2], "without what is empty"
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert identities == ["results", "pictures", "results--2", "classes", "made-by"]
    links = [link["href"] for link in page.named("a")]
    assert links == ["#results", "#pictures", "#classes", "#made-by"]
    assert [section["aria-labelledby"] for section in page.named("section")] == identities


def test_marks_are_words_and_signs_beside_colour(picture: Path) -> None:
    page = Page(html(document(picture)))
    assert page.cells[:8] == ["name", "delta", "a", "+1.00", "b <i>", "-2.00", "c | d", "0.00"]
    marked = [cell["class"] for cell in page.named("td")][:3]
    assert marked == ["number gain", "number loss", "number"]
    assert "+1.00 ✓ better" in page.text
    assert "-2.00 ✗ worse" in page.text
    assert "in-context +1.00 [+0.50, +1.50] ✓ better mIoU %" in page.text
    assert "linear 3.00 mIoU %" in page.text


def test_tables_scroll_by_themselves_and_long_ones_fold(picture: Path) -> None:
    page = Page(html(document(picture)))
    regions = [one for one in page.named("div") if one.get("class") == "scroll"]
    assert [(one["role"], one["tabindex"], one["aria-label"]) for one in regions] == [
        ("region", "0", "Scores"),
        ("region", "0", "Numbers"),
    ]
    assert len(page.named("details")) == 1
    assert "Also in per_class.csv." in page.text


def test_large_pictures_become_smaller_until_the_report_is_small_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(noise).save(path)
    assert path.stat().st_size > SHARP
    sizes = {}
    for budget in (10**9, 40_000, 0):
        monkeypatch.setattr(html_report, "BUDGET", budget)
        (image,) = html_report.embedded([path])
        kind, _, data = image.uri.partition(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
            sizes[budget] = shown.size
        assert kind == "data:image/webp"
        assert (image.width, image.height, image.least) == (200, 267, 125), "drawn as large"
    assert sizes[10**9] == (300, 400)
    assert sizes[0] == (105, 140)
    assert sizes[0][0] < sizes[40_000][0] < 300


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    lost = Document("t", sections=[Section("s", [Figure(tmp_path / "missing.png", "", "")])])
    with pytest.raises(FileNotFoundError, match=r"missing\.png is missing; save figures"):
        html(lost)


def test_rows_must_fit_their_titles() -> None:
    with pytest.raises(ValueError, match=r"as many cells in each row as titles, 2, got \[1, 2\]"):
        Table(["a", "b"], [["1"]], [True, False])


def test_markdown_holds_the_same(picture: Path, tmp_path: Path) -> None:
    lines = markdown(document(picture), tmp_path).splitlines()
    for line in (
        "# A <title> & more",
        "It came to this.",
        "* **in-context +1.00 [+0.50, +1.50]**, better (mIoU %)",
        "* **linear 3.00** (mIoU %)",
        "* **backbone**: tiny",
        "## Results",
        "| name | delta |",
        "| :-- | --: |",
        "| a | +1.00 ✓ |",
        r"| c \| d | 0.00 |",
        "In percent.",
        "### Results",
        "![An alt <text>](figures/a.png)",
        '*What it "shows"*',
        "Numbers: [per_class.csv](per_class.csv)",
        "```bash",
    ):
        assert line in lines, line
    assert "## Empty" not in lines


# WCAG 2.2, contrast ratio of relative luminances.
def contrast(first: str, second: str) -> float:
    lights = []
    for colour in (first, second):
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_words_can_be_read_in_light_and_dark(scheme: int) -> None:
    style = (Path(html_report.__file__).parent / "templates" / "report.css").read_text()
    blocks = re.findall(r":root \{([^}]*)\}", style)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[scheme]))
    for ink in ("ink", "muted", "link", "gain", "loss"):
        for ground in ("paper", "plate"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for mark in ("gain", "loss"):
        for ink in (mark, "ink", "muted"):
            assert contrast(colours[ink], colours[f"{mark}-plate"]) >= 4.5, (ink, mark)
