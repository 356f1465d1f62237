"""Figures of one moment of a training: tokens as colours, what is like one patch, and kernels of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from paka.boxes import Box
from paka.colours import Floats, Pixels
from paka.figures.canvas import DPI, MARGIN, STYLE, check_counts, save
from paka.figures.tiles import GAP, TILE, Column, resized, tiles

SIMILARITIES, KERNELS = "viridis", "RdBu_r"
"""Colours of cosines, and of kernels: red above the mean of their rows and columns, blue below."""

_MARKED, _EDGE = (255, 255, 255), (20, 20, 20)


@dataclass(frozen=True)
class Moment:
    """What n images look like to an encoder at one step.

    Attributes:
        step: Optimizer steps done.
        colours: Tokens as colours, (n, h, w, 3) uint8.
        similarity: Cosine of each token to the marked one of its image, (n, h, w).
        kernels: Centred kernels of student and teacher over the same points, (n, 2, N, N), zero where there is no pair; None
            for objectives that compare no pairs.
        cka: Their alignment, (n,).
    """

    step: int
    colours: Pixels
    similarity: Floats
    kernels: Floats | None = None
    cka: Sequence[float] = ()


@dataclass(frozen=True)
class Marks:
    """What is pointed at in the images, the same at all times.

    Attributes:
        patches: Row and column of the marked token of each image.
        views: Box of the view that the kernels are of, in pixels of the picture; None without.
        low: Cosine that becomes the darkest colour.
    """

    patches: Sequence[tuple[int, int]]
    views: Sequence[Box | None]
    low: float = 0.0


@mpl.rc_context(STYLE)
def moment_figure(path: str | Path, images: Pixels, moment: Moment, marks: Marks) -> None:
    """Save images beside what they look like to an encoder at one step.

    Args:
        path: File to write.
        images: `(n, H, W, 3)` uint8 RGB, one row each.
        moment: What is to be seen.
        marks: What is marked.

    Raises:
        ValueError: The counts do not match.
    """
    check_counts(images, colours=moment.colours, similarity=moment.similarity)
    columns = [
        Column(f"Step {moment.step}", marked(images, moment.colours.shape[1:3], marks), smooth=True),
        Column("Tokens", resized(moment.colours, smooth=False)),
        Column("Like the marked patch", resized(shaded(moment.similarity, marks.low), smooth=False)),
    ]
    if moment.kernels is not None:
        shape = columns[0].pictures.shape[1:3]
        notes = [f"CKA {value:.2f}" if np.isfinite(value) else "no pair" for value in moment.cka]
        sides = moment.kernels.swapaxes(0, 1)
        columns += [
            Column(
                title, np.stack([_square(one, shape) for one in side]), notes if last else [""] * len(notes)
            )
            for title, side, last in zip(
                ("Kernel of the student", "Kernel of the teacher"), sides, (False, True), strict=True
            )
        ]
    save(tiles(columns, footer=MARGIN - GAP), path)


def marked(images: Pixels, grid: Sequence[int], marks: Marks, *, wide: int | None = None) -> Pixels:
    """Return images as wide as a tile with their marked patches, and boxes of views, outlined.

    Args:
        images: (n, H, W, 3) uint8.
        grid: Rows and columns of tokens.
        marks: What is marked.
        wide: Width in pixels; None for that of a tile.
    """
    tall, side = images.shape[1:3]
    pictures = scaled(images, wide or round(TILE * DPI), smooth=True)
    scale = pictures.shape[2] / side
    for picture, (row, column), view in zip(pictures, marks.patches, marks.views, strict=True):
        high, across = tall / grid[0], side / grid[1]
        patch = column * across, row * high, (column + 1) * across, (row + 1) * high
        if view is not None:
            _outline(picture, [scale * value for value in view], (90, 190, 255))
        _outline(picture, [scale * value for value in patch], _MARKED)
    return pictures


def scaled(maps: NDArray[Any], wide: int, *, smooth: bool) -> NDArray[Any]:
    """Return images or maps (n, H, W, 3) uint8 at a width: photographs smoothly, data by nearest neighbour."""
    size = wide, max(round(wide * maps.shape[1] / maps.shape[2]), 1)
    smoothly = cv2.INTER_AREA if maps.shape[2] > wide else cv2.INTER_CUBIC
    way = smoothly if smooth else cv2.INTER_NEAREST_EXACT
    return np.stack([cv2.resize(one, size, interpolation=way) for one in maps])


def shaded(similarity: Floats, low: float) -> Pixels:
    """Return cosines as colours, (..., 3) uint8: `low` and less is darkest, 1 is brightest."""
    share = (similarity - low) / max(1.0 - low, 1e-6)
    return _painted(mpl.colormaps[SIMILARITIES](share.clip(0.0, 1.0)))


def _painted(colours: Any) -> Pixels:
    return np.asarray(np.rint(255 * colours[..., :3]), dtype=np.uint8)


def _square(kernel: Floats, shape: tuple[int, ...]) -> Pixels:
    """Return a kernel as a square of colours, as large as fits into a picture of a shape, on white."""
    peak = float(np.abs(kernel).max())
    picture = np.full((*shape, 3), 255, dtype=np.uint8)
    if peak > 0:
        side = min(shape)
        colours = _painted(mpl.colormaps[KERNELS]((kernel / peak + 1) / 2))
        picture[:side, :side] = cv2.resize(colours, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return picture


def _outline(picture: Pixels, box: Sequence[float], colour: tuple[int, int, int]) -> None:
    """Draw the outline of a box, left, top, right and bottom, with an edge that shows on any ground."""
    left, top, right, bottom = (round(value) for value in box)
    for grown, line in ((1, _EDGE), (0, colour)):
        corner, other = (left - grown, top - grown), (right - 1 + grown, bottom - 1 + grown)
        cv2.rectangle(picture, corner, other, line, thickness=1 if grown else 2)
