"""A document as one HTML file that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from PIL import Image

from paka.document import WORDS, Block, Document, Figure, Section
from paka.markdown_report import SYMBOLS

BUDGET = 2_900_000
"""Bytes that all pictures of a report may take before they are embedded smaller; as text they take a third more."""

SHARP = 200_000
"""Bytes up to which a PNG file is embedded as it is, as charts are; photographs are larger, and become WebP."""

QUALITY = 80
"""Of photographs."""

SCALES = (1.0, 0.75, 0.5, 0.35)
"""How large photographs are embedded: the first that keeps within the budget, or else the last."""

DENSITY = 1.5
"""Pixels of a figure for each of a screen: figures have 150 to an inch, where browsers count 96."""

LEGIBLE = 2.4
"""Pixels for each of a screen at which the words in a figure can just be read; smaller screens scroll it."""


@dataclass(frozen=True)
class Embedded:
    """A picture as HTML holds it.

    Attributes:
        uri: The picture itself, as a data URI.
        width: Width in pixels of the screen, at most.
        height: Height at that width.
        least: Width below which words in it are too small.
    """

    uri: str
    width: int
    height: int
    least: int


@dataclass(frozen=True)
class Part:
    """A section as HTML holds it.

    Attributes:
        anchor: Its `id`, unique in the document.
        section: What it holds.
        parts: Its own parts, but for empty ones.
    """

    anchor: str
    section: Section
    parts: tuple[Part, ...]


def html(document: Document) -> str:
    """Return a document as HTML, with its pictures embedded.

    Raises:
        FileNotFoundError: A picture is missing.
    """
    parts = tuple(numbered(document.filled, {}))
    paths = [block.path for block in _blocks(document.blocks, parts) if isinstance(block, Figure)]
    return (
        _environment()
        .get_template("report.html")
        .render(
            document=document,
            parts=parts,
            pictures=dict(zip(paths, embedded(paths), strict=True)),
            words=WORDS,
            symbols=SYMBOLS,
        )
    )


def numbered(sections: Iterable[Section], taken: dict[str, int]) -> Iterator[Part]:
    """Yield the sections that hold something, with unique anchors: their titles in small letters.

    Args:
        sections: The sections.
        taken: How often each anchor was given; it is added to.
    """
    for section in sections:
        if section.empty:
            continue
        name = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
        taken[name] = taken.get(name, 0) + 1
        # Two hyphens, which no title leaves.
        anchor = name if taken[name] == 1 else f"{name}--{taken[name]}"
        yield Part(anchor, section, tuple(numbered(section.sections, taken)))


def embedded(paths: Sequence[Path]) -> list[Embedded]:
    """Return pictures as HTML holds them, as large as the budget allows."""
    for scale in SCALES:
        files = [_encoded(path, scale) for path in paths]
        if sum(len(data) for data, _ in files) <= BUDGET:
            break
    return [_placed(path, data, kind) for path, (data, kind) in zip(paths, files, strict=True)]


def _encoded(path: Path, scale: float) -> tuple[bytes, str]:
    """Return a picture as bytes and their kind: a chart or an animation as it is, a photograph as WebP of that scale."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; save figures before the report")
    if path.stat().st_size <= SHARP or path.suffix == ".gif":
        return path.read_bytes(), path.suffix.removeprefix(".")
    with Image.open(path) as image:
        size = max(round(scale * image.width), 1), max(round(scale * image.height), 1)
        picture = (
            image.convert("RGB")
            if scale == 1
            else image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        )
    buffer = io.BytesIO()
    picture.save(buffer, "webp", quality=QUALITY)
    return buffer.getvalue(), "webp"


def _placed(path: Path, data: bytes, kind: str) -> Embedded:
    with Image.open(path) as image:
        width, height = image.size
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Embedded(uri, round(width / DENSITY), round(height / DENSITY), round(width / LEGIBLE))


def _blocks(first: Iterable[Block], parts: Iterable[Part]) -> Iterator[Block]:
    """Yield the blocks of a document in order."""
    yield from first
    for part in parts:
        yield from _blocks(part.section.blocks, part.parts)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("paka", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
