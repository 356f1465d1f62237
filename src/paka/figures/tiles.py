"""Rows of pictures under titled columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from paka.figures.canvas import DPI, MARGIN, MUTED, axes_at, paper, write

# Inches, whole in pixels. In 288 pixels, tokens of grids of 12, 16, 18, 24, 32 or 36 are equal squares.
TILE, GAP, HEADER, NOTE = 288 / DPI, 6 / DPI, 33 / DPI, 24 / DPI


class Column(NamedTuple):
    """Pictures below each other.

    Attributes:
        title: What they show.
        pictures: (n, H, W, 3) or values in [0, 1] of colours, one for each row.
        notes: A line under each; empty without.
        smooth: Whether they are photographs, whose pixels are no data.
    """

    title: str
    pictures: NDArray[Any]
    notes: Sequence[str] = ()
    smooth: bool = False


def tiles(columns: Sequence[Column], *, footer: float) -> Figure:
    """Return a figure of columns of pictures with room for a footer.

    Args:
        columns: As many pictures in each; all are drawn as large as the first.
        footer: Height of the room below in inches.
    """
    first = columns[0].pictures
    rows, tall = len(first), round(TILE * DPI * first.shape[1] / first.shape[2]) / DPI
    step = tall + GAP + (NOTE if any(column.notes for column in columns) else 0.0)
    figure = paper(2 * MARGIN + len(columns) * (TILE + GAP) - GAP, MARGIN + HEADER + rows * step + footer)
    for number, column in enumerate(columns):
        left = MARGIN + number * (TILE + GAP)
        write(figure, left, MARGIN + 0.1, column.title, fontsize=9.5, weight="bold")
        for row, picture in enumerate(column.pictures):
            top = MARGIN + HEADER + row * step
            show(axes_at(figure, left, top, TILE, tall), picture, smooth=column.smooth)
            if column.notes:
                write(figure, left, top + tall + 0.085, column.notes[row], fontsize=7.5, color=MUTED)
    return figure


def resized(maps: NDArray[Any], *, smooth: bool) -> NDArray[Any]:
    """Return images or maps (n, H, W, ...) as wide as a tile: photographs smoothly, data by nearest neighbour."""
    wide = round(TILE * DPI)
    size = wide, round(wide * maps.shape[1] / maps.shape[2])
    smoothly = cv2.INTER_AREA if maps.shape[2] > wide else cv2.INTER_CUBIC
    way = smoothly if smooth else cv2.INTER_NEAREST_EXACT
    return np.stack([cv2.resize(one, size, interpolation=way) for one in maps])


def show(axes: Axes, picture: NDArray[Any], *, smooth: bool = False) -> None:
    """Show a picture over the whole of its axes."""
    axes.imshow(picture, interpolation="lanczos" if smooth else "nearest", aspect="auto")
    axes.set_axis_off()


def tinted(picture: NDArray[Any], colour: NDArray[Any], opacity: float) -> NDArray[np.uint8]:
    """Return pixels (..., 3) with that much of a colour over them, uint8."""
    return np.asarray(np.rint(opacity * colour + (1 - opacity) * picture), dtype=np.uint8)
