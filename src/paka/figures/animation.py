"""An animation of tokens over a training, whose first frame makes sense alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from paka.colours import Pixels
from paka.figures.canvas import font
from paka.figures.moment import Marks, Moment, marked, scaled, shaded

TILE = 144
"""Width of a picture in pixels."""

FRAMES = 24
"""Moments that are shown at most."""

SECONDS = 5.0
"""About how long they take."""

STILL = 2500
"""Milliseconds for which the first frame, and the last moment, stand."""

_GAP, _MARGIN, _HEADER = 6, 12, 34
_PAPER, _INK, _MUTED = (255, 255, 255), (26, 26, 26), (107, 107, 107)


def animate(path: Path, images: Pixels, moments: Sequence[Moment], marks: Marks) -> None:
    """Save moments one after another as an animated GIF.

    Beside what changes stand the images and their tokens at the first moment. The last moment comes first, as it says most
    where nothing moves; then all of them in the order of time.

    Args:
        path: File to write.
        images: (n, H, W, 3) uint8 RGB, one row each.
        moments: What they look like at some steps, at least one.
        marks: What is marked.
    """
    places = shown([moment.step for moment in moments])
    base = _base(images, moments[0], marks)
    pictures = [_frame(base, moments[place], marks, moments[-1].step) for place in (-1, *places)]
    pace = round(min(max(1000 * SECONDS / len(places), 80), 700))
    durations = [STILL, *[pace] * (len(places) - 1), STILL]
    path.parent.mkdir(parents=True, exist_ok=True)
    # One palette for all: colours of a patch then change with the patch alone.
    shared = _palette(pictures)
    first, *others = (one.quantize(palette=shared, dither=Image.Dither.NONE) for one in pictures)
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, optimize=False)


def shown(steps: Sequence[int]) -> list[int]:
    """Return the places of at most `FRAMES` steps, the first and the last among them, of ascending ones as even as there are."""
    wanted = np.linspace(steps[0], steps[-1], min(FRAMES, len(steps)))
    return sorted({*np.abs(np.subtract.outer(wanted, steps)).argmin(axis=1).tolist()})


def _base(images: Pixels, start: Moment, marks: Marks) -> Image.Image:
    """Return what stands: titles, images, and tokens at the first moment."""
    rows = marked(images, start.colours.shape[1:3], marks, wide=TILE)
    wide, tall = 4 * (TILE + _GAP) - _GAP + 2 * _MARGIN, rows.shape[1]
    base = Image.new("RGB", (wide, _HEADER + len(rows) * (tall + _GAP) - _GAP + _MARGIN), _PAPER)
    _fill(base, 0, "Image", rows)
    _fill(base, 1, f"Tokens, step {start.step}", scaled(start.colours, TILE, smooth=False))
    return base


def _frame(base: Image.Image, moment: Moment, marks: Marks, steps: int) -> Image.Image:
    frame = base.copy()
    _fill(frame, 2, f"Step {moment.step} of {steps}", scaled(moment.colours, TILE, smooth=False), bold=True)
    similar = shaded(moment.similarity, marks.low)
    _fill(frame, 3, "Like the marked patch", scaled(similar, TILE, smooth=False))
    return frame


def _fill(paper: Image.Image, column: int, title: str, pictures: Pixels, *, bold: bool = False) -> None:
    """Put pictures below each other under a title."""
    left = _MARGIN + column * (TILE + _GAP)
    ImageDraw.Draw(paper).text(
        (left, _HEADER - 10), title, fill=_INK if bold else _MUTED, font=font(14, bold=bold), anchor="ls"
    )
    for row, picture in enumerate(pictures):
        paper.paste(Image.fromarray(picture), (left, _HEADER + row * (len(picture) + _GAP)))


def _palette(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return 256 colours for all pictures, from some of them side by side."""
    chosen = [pictures[place] for place in sorted({0, 1, len(pictures) // 2})]
    sheet = Image.new("RGB", (chosen[0].width, sum(one.height for one in chosen)))
    for place, one in enumerate(chosen):
        sheet.paste(one, (0, place * one.height))
    return sheet.quantize(256, method=Image.Quantize.MEDIANCUT)
