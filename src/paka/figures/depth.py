"""Figures of depth: true and estimated, and how far estimates are off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from paka.colours import VOID_COLOUR, Floats, Pixels
from paka.figures.canvas import (
    DPI,
    GAIN,
    LINE,
    LOSS,
    MARGIN,
    MUTED,
    STYLE,
    axes_at,
    check_counts,
    save,
    write,
)
from paka.figures.tiles import GAP, TILE, Column, resized, tiles

DEPTHS = "viridis_r"
"""Colours of depth: what is near is bright."""

_CHANGE = LinearSegmentedColormap.from_list("change", [LOSS, "#f5f5f5", GAIN])


@mpl.rc_context(STYLE)
def depth_figure(
    path: str | Path,
    images: Pixels,
    *,
    truth: Floats,
    predictions: Mapping[str, Floats],
    notes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Save images beside their true and estimated depth, and the error of one estimate or which of two is closer.

    Args:
        path: File to write.
        images: `(n, H, W, 3)` uint8 RGB, one row each.
        truth: Depth in metres, `(n, H, W)` with 0 where it is not known.
        predictions: Estimates by title, `(n, H, W)` each, with 0 for none: one, or two that are compared.
        notes: A line for each image by the title of an estimate.

    Raises:
        ValueError: The counts do not match.
    """
    check_counts(images, truth=truth, **predictions)
    known = truth > 0
    errors = [np.where(known, np.abs(guess - truth), 0.0) for guess in predictions.values()]
    compared = len(errors) > 1
    gain = errors[0] - errors[1] if compared else errors[0]
    far = limits_of(np.concatenate([truth[known], *(guess[known] for guess in predictions.values())]))
    worst = limits_of(np.abs(gain)[known])[1]
    scale: Colormap = _CHANGE if compared else mpl.colormaps["magma_r"]
    shaded = coloured(gain, (-worst if compared else 0.0, worst), scale)
    shaded[~known] = VOID_COLOUR
    columns = [
        Column("Image", resized(images, smooth=True), smooth=True),
        Column("True depth", coloured_depth(truth, far)),
    ]
    columns += [
        Column(title, coloured_depth(guess, far), (notes or {}).get(title, ()))
        for title, guess in predictions.items()
    ]
    columns.append(Column("Which is closer" if compared else "Error", shaded))
    figure = tiles(columns, footer=2 * LINE + 2 * MARGIN)
    _bar(figure, 0, mpl.colormaps[DEPTHS], [f"{value:.1f} m" for value in (far[0], sum(far) / 2, far[1])])
    ends = [f"{title.lower()} closer by {worst:.2f} m" for title in predictions] if compared else []
    _bar(
        figure,
        len(columns) - 2,
        scale,
        [ends[0], "alike", ends[1]] if compared else ["0 m", "", f"{worst:.2f} m"],
    )
    save(figure, path)


def coloured(values: Floats, limits: tuple[float, float], scale: Colormap) -> Pixels:
    """Return the colours of values between two limits, (..., 3) uint8."""
    low, high = limits
    shares = ((values - low) / max(high - low, 1e-9)).clip(0, 1)
    return np.asarray(np.rint(255 * scale(shares)[..., :3]), dtype=np.uint8)


def coloured_depth(depth: Floats, limits: tuple[float, float]) -> Pixels:
    """Return the colours of depth in metres between two limits, (..., 3) uint8; grey where it is 0, not known."""
    shaded = coloured(depth, limits, mpl.colormaps[DEPTHS])
    shaded[depth <= 0] = VOID_COLOUR
    return shaded


def limits_of(values: NDArray[Any]) -> tuple[float, float]:
    """Return the values between which colours are given: 2 % are lower, 2 % higher."""
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (2, 98))
    return float(low), float(max(high, low + 1e-6))


def _bar(figure: Figure, column: int, scale: Colormap, labels: Sequence[str]) -> None:
    """Draw a scale below two columns, with labels at both ends and in the middle."""
    left, wide = MARGIN + column * (TILE + GAP), 2 * TILE + GAP
    top = figure.get_figheight() - MARGIN - 1.6 * LINE
    axes = axes_at(figure, left, top, wide, 12 / DPI)
    axes.imshow(scale(np.linspace(0, 1, 512))[None, :, :3], aspect="auto")
    axes.set_axis_off()
    for share, label, align in zip((0.0, 0.5, 1.0), labels, ("left", "center", "right"), strict=True):
        write(figure, left + share * wide, top + 24 / DPI, label, ha=align, fontsize=7.5, color=MUTED)
