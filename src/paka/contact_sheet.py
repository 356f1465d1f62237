"""A sheet of small pictures of a data set: images beside their masks and depths, as a person would check them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from paka.colours import VOID_COLOUR, Pixels, overlay
from paka.figures.canvas import font
from paka.figures.depth import coloured_depth, limits_of
from paka.findings import SplitFindings
from paka.inspection import drawn, sentence
from paka.sources import Source

TILE = (306, 230)
"""Most pixels of a picture, width and height."""
ACROSS = 6
"""Pictures in a row: six images, or three with a mask or a depth each."""
MOST_NAMES = 32
"""Most classes with a legend."""

_MARGIN, _GAP, _BETWEEN, _CAPTION, _LINE = 32, 6, 20, 44, 34
_WIDTH = 2 * _MARGIN + ACROSS * (TILE[0] + _BETWEEN) - _BETWEEN
_PAPER, _INK, _MUTED, _BAD = (255, 255, 255), (26, 26, 26), (107, 107, 107), (176, 32, 32)
_UNREADABLE = (ValueError, LookupError, OSError)


class Cell(NamedTuple):
    """One image of the sheet.

    Attributes:
        caption: What it is called.
        image: (H, W, 3) uint8; None if it cannot be read.
        mask: Class colours over the image, (H, W, 3) uint8; None without.
        depth: Metres, (H, W) float32; None without.
        problem: Why something is missing.
    """

    caption: str
    image: Pixels | None = None
    mask: Pixels | None = None
    depth: NDArray[np.float32] | None = None
    problem: str | None = None


def draw(path: Path, splits: Sequence[SplitFindings], count: int) -> Path | None:
    """Draw up to `count` images, evenly over the splits and over the images in each.

    Args:
        path: PNG to write.
        splits: What was found; splits that could not be opened have no images.
        count: Images on the sheet.

    Returns:
        The path, or None if there is nothing to draw.
    """
    opened = [split for split in splits if split.source is not None and len(split.source)]
    shares = evenly(count, [len(split.source or ()) for split in opened])
    cells = [
        _cell(split, split.source, index)
        for split, share in zip(opened, shares, strict=True)
        if split.source is not None
        for index in drawn(len(split.source), share)
    ]
    if not cells:
        return None
    labels = [kind for kind in ("mask", "depth") if any(getattr(cell, kind) is not None for cell in cells)]
    _stack([_grid(cells, ["image", *labels]), *_legends(opened), *_scale(cells)]).save(path)
    return path


def evenly(count: int, sizes: Sequence[int]) -> list[int]:
    """Return how many of `count` each part gives: the same number, or all it has if that is less.

    Args:
        count: How many are wanted in all.
        sizes: How many each part has.
    """
    shares = [0 for _ in sizes]
    for place in sorted(range(len(sizes)), key=lambda place: sizes[place]):
        waiting = sum(not share for share in shares)
        shares[place] = min(sizes[place], -(-(count - sum(shares)) // waiting))
    return shares


def _cell(split: SplitFindings, source: Source, index: int) -> Cell:
    name = PurePath(split.item(index))
    short = name.name if name.parent.name == split.split else f"{name.parent.name}/{name.name}"
    cell = Cell(f"{split.split}   {short}" if name.suffix else split.item(index))
    try:
        image = source.image(index)
        cell = cell._replace(image=image)
        if split.classes or source.videos:
            cell = cell._replace(mask=overlay(image, source.mask(index), source.palette))
        if source.has_depth:
            cell = cell._replace(depth=source.depth(index))
    except _UNREADABLE as error:
        cell = cell._replace(problem=sentence(error))
    return cell


def _grid(cells: Sequence[Cell], kinds: Sequence[str]) -> Image.Image:
    """Return the cells in rows, each as high as its highest picture."""
    columns, step = ACROSS // len(kinds), len(kinds) * (TILE[0] + _GAP) - _GAP + _BETWEEN
    depths = _depth_range(cells)
    lines = []
    for first in range(0, len(cells), columns):
        pictures = [_picture(cell, kinds, depths) for cell in cells[first : first + columns]]
        line = Image.new("RGB", (_WIDTH, max(one.height for one in pictures)), _PAPER)
        for place, picture in enumerate(pictures):
            line.paste(picture, (_MARGIN + place * step, line.height - picture.height))
        lines.append(line)
    return _stack(lines, edge=0)


def _picture(cell: Cell, kinds: Sequence[str], depths: tuple[float, float]) -> Image.Image:
    """Return a cell: the kinds of picture side by side, and the caption below."""
    tiles = {kind: _tile(cell, kind, depths) for kind in kinds}
    high = max(tile.height for tile in tiles.values())
    width = len(kinds) * (TILE[0] + _GAP) - _GAP
    picture = Image.new("RGB", (width, high + _CAPTION), _PAPER)
    x = 0
    for tile in tiles.values():
        picture.paste(tile, (x, high - tile.height))
        x += tile.width + _GAP
    colour = _MUTED if cell.problem is None else _BAD
    ImageDraw.Draw(picture).text((0, high + 5), _fitted(cell.caption, width), fill=colour, font=font(17))
    return picture


def _tile(cell: Cell, kind: str, depths: tuple[float, float]) -> Image.Image:
    value = getattr(cell, kind)
    if value is None:
        return _blank("cannot be read" if cell.problem is not None else "")
    if kind == "depth":
        value = coloured_depth(value, depths)
    tile = Image.fromarray(np.ascontiguousarray(value))
    scale = min(TILE[0] / tile.width, TILE[1] / tile.height)
    size = max(round(tile.width * scale), 1), max(round(tile.height * scale), 1)
    return tile.resize(size, Image.Resampling.LANCZOS if kind == "image" else Image.Resampling.NEAREST)


def _blank(text: str) -> Image.Image:
    tile = Image.new("RGB", TILE, (247, 238, 238))
    ImageDraw.Draw(tile).text((TILE[0] // 2, TILE[1] // 2), text, fill=_BAD, font=font(18), anchor="mm")
    return tile


def _depth_range(cells: Sequence[Cell]) -> tuple[float, float]:
    """Return the depths in metres between which colours are given: 2 % of the pixels are nearer, 2 % farther."""
    known = [cell.depth[cell.depth > 0] for cell in cells if cell.depth is not None]
    return limits_of(np.concatenate([*known, np.zeros(0)]))


def _legends(splits: Sequence[SplitFindings]) -> list[Image.Image]:
    """Return the legend of each list of classes that is short enough."""
    legends = {
        split.classes: split.source.palette for split in splits if split.source is not None and split.classes
    }
    return [_legend(names, palette) for names, palette in legends.items() if len(names) <= MOST_NAMES]


def _legend(names: Sequence[str], palette: Pixels) -> Image.Image:
    entries = [*zip(names, map(tuple, palette.tolist()), strict=False), ("void", VOID_COLOUR)]
    wide = max(font(18).getlength(name) for name, _ in entries) + 58
    columns = max(1, int((_WIDTH - 2 * _MARGIN) // wide))
    legend = Image.new("RGB", (_WIDTH, (1 + -(-len(entries) // columns)) * _LINE - _MARGIN // 2), _PAPER)
    pen = ImageDraw.Draw(legend)
    for place, (name, colour) in enumerate(entries):
        x, y = _MARGIN + round(place % columns * wide), place // columns * _LINE + _MARGIN // 2
        pen.rectangle((x, y + 5, x + 20, y + 25), fill=colour, outline=_MUTED)
        pen.text((x + 30, y + 15), name, fill=_INK, font=font(18), anchor="lm")
    return legend


def _scale(cells: Sequence[Cell]) -> list[Image.Image]:
    """Return the scale of the depths, if there are any."""
    if all(cell.depth is None for cell in cells):
        return []
    low, high = _depth_range(cells)
    scale = Image.new("RGB", (_WIDTH, 2 * _LINE), _PAPER)
    ramp = coloured_depth(np.tile(np.linspace(1, 2, 600, dtype=np.float32), (20, 1)), (1.0, 2.0))
    scale.paste(Image.fromarray(ramp), (_MARGIN, 4))
    pen = ImageDraw.Draw(scale)
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        text = f"{low + share * (high - low):.1f} m"
        pen.text((_MARGIN + 600 * share, 32), text, fill=_INK, font=font(17), anchor=anchor)
    pen.text((_MARGIN + 630, 14), "grey where depth is not known", fill=_MUTED, font=font(17), anchor="lm")
    return [scale]


def _stack(parts: Sequence[Image.Image], edge: int = _MARGIN) -> Image.Image:
    """Return pictures below each other on paper with an edge above and below."""
    sheet = Image.new("RGB", (_WIDTH, sum(one.height for one in parts) + 2 * edge), _PAPER)
    y = edge
    for part in parts:
        sheet.paste(part, (0, y))
        y += part.height
    return sheet


def _fitted(text: str, width: int) -> str:
    """Return a caption that fits; what is left out is in the middle."""
    half = len(text) // 2
    while half > 4 and font(17).getlength(f"{text[:half]}...{text[-half:]}") > width:
        half -= 1
    return text if font(17).getlength(text) <= width else f"{text[:half]}...{text[-half:]}"
