"""Figures of nearest neighbours: patches, and the patches of other images that are most like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from paka.colours import Pixels
from paka.figures.canvas import DPI, GAIN, INK, LOSS, MARGIN, MUTED, STYLE, axes_at, paper, save, write
from paka.figures.tiles import show

_SIDE, _GAP, _NOTE, _SPACE, _HEADER = 180 / DPI, 9 / DPI, 27 / DPI, 33 / DPI, 36 / DPI
_LARGER = 1.5
"""How much larger what is looked for is drawn than what is found, where several rows belong to it."""


class Patch(NamedTuple):
    """A patch with what is around it.

    Attributes:
        picture: (S, S, 3) uint8 RGB.
        box: Where the patch is in it: left, top, width and height as shares of its side.
        name: Of the class it shows.
    """

    picture: Pixels
    box: tuple[float, float, float, float]
    name: str


class Query(NamedTuple):
    """A patch, and those nearest to it.

    Attributes:
        patch: What is looked for.
        found: The nearest patches of each encoder by title, the nearest first.
    """

    patch: Patch
    found: Mapping[str, Sequence[Patch]]


@mpl.rc_context(STYLE)
def neighbours_figure(path: str | Path, queries: Sequence[Query]) -> None:
    """Save patches beside their nearest patches, a row for each encoder; neighbours of the same class are marked.

    Args:
        path: File to write.
        queries: Patches, with the same encoders and as many neighbours each.

    Raises:
        ValueError: There are no patches.
    """
    if not queries:
        raise ValueError("a figure of neighbours needs at least one patch to look for")
    sides = list(queries[0].found)
    count = len(queries[0].found[sides[0]])
    column = 0.3 + 0.085 * max(map(len, sides))
    large = _SIDE * (_LARGER if len(sides) > 1 else 1.0)
    width = 2 * MARGIN + large + _SPACE + column + count * (_SIDE + _GAP)
    row = _SIDE + _NOTE
    step = len(sides) * row + _SPACE / 2
    figure = paper(width, MARGIN + _HEADER + len(queries) * step + MARGIN)
    first = MARGIN + large + _SPACE
    write(figure, MARGIN, MARGIN + 0.1, "Patch", fontsize=9.5, weight="bold")
    write(
        figure,
        first + column,
        MARGIN + 0.1,
        f"Its {count} nearest patches of other images",
        fontsize=9.5,
        weight="bold",
    )
    for number, query in enumerate(queries):
        top = MARGIN + _HEADER + number * step
        _draw(figure, query.patch, (MARGIN, top, large), INK, query.patch.name)
        for place, (side, patches) in enumerate(query.found.items()):
            _line(figure, query, side, patches, (first, column, top + place * row))
    save(figure, path)


def _line(
    figure: Figure, query: Query, side: str, patches: Sequence[Patch], place: tuple[float, float, float]
) -> None:
    """Draw the neighbours of one encoder in a line."""
    left, column, top = place
    same = [patch.name == query.patch.name for patch in patches]
    write(figure, left, top + _SIDE / 2 - 0.08, side, fontsize=9, weight="bold")
    write(figure, left, top + _SIDE / 2 + 0.1, f"{sum(same)} of {len(same)}", fontsize=8.5, color=MUTED)
    for rank, (patch, alike) in enumerate(zip(patches, same, strict=True)):
        x = left + column + rank * (_SIDE + _GAP)
        _draw(
            figure, patch, (x, top, _SIDE), GAIN if alike else LOSS, f"{'✓' if alike else '✗'} {patch.name}"
        )


def _draw(figure: Figure, patch: Patch, place: tuple[float, float, float], colour: str, note: str) -> None:
    """Draw a patch at that place, left and top, that large."""
    left, top, large = place
    axes = axes_at(figure, left, top, large, large)
    show(axes, patch.picture, smooth=True)
    side = patch.picture.shape[0]
    x, y, wide, high = (share * side for share in patch.box)
    for edge, width in (("white", 3.4), (colour, 1.8)):
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), wide, high, fill=False, edgecolor=edge, linewidth=width))
    write(figure, left, top + large + 0.09, note, fontsize=7.5, color=MUTED)
