"""Figures of matrices: which classes are taken for which, and how alike tokens are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from paka.colours import Floats, Pixels
from paka.figures.canvas import DPI, INK, MARGIN, MUTED, STYLE, axes_at, paper, save, write

NUMBERED = 24
"""Most classes whose cells hold numbers."""

_SHARES = LinearSegmentedColormap.from_list(
    "shares", ["#ffffff", "#9ecae1", "#3182bd", "#08306b"]
).with_extremes(bad="#f4f4f4")
_PANEL, _STRIP, _BETWEEN = 540 / DPI, 12 / DPI, 48 / DPI
"""Side of a kernel matrix, thickness of the colours beside it, and distance between two, in inches."""


@mpl.rc_context(STYLE)
def confusion_figure(path: str | Path, counts: NDArray[Any], classes: Sequence[str]) -> None:
    """Save which share of each class is predicted as which, in percent; classes that do not occur are left out.

    Args:
        path: File to write.
        counts: Pixels, `(C, C)`; rows are the truth, columns the prediction.
        classes: Names of the C classes.

    Raises:
        ValueError: There are not as many names as classes, or no pixel.
    """
    shares, names = confusion_shares(counts, classes)
    n = len(names)
    cell = 0.38 if n <= NUMBERED else min(max(9.0 / n, 0.085), 0.38)
    size = 8.5 if n <= NUMBERED else max(min(8.5, 62 * cell), 5.0)
    side, label = n * cell, 0.1 + 0.0088 * size * max(map(len, names))
    left, top = label + 0.28, label + 0.32
    figure = paper(left + max(side, 3.0) + 0.25, top + side + 0.5)
    axes = axes_at(figure, left, top, side, side)
    axes.imshow(shares, cmap=_SHARES, norm=PowerNorm(0.5, 0, 100), aspect="auto", interpolation="nearest")
    axes.xaxis.tick_top()
    axes.set_xticks(range(n), names, rotation=90, fontsize=size, color=INK)
    axes.set_yticks(range(n), names, fontsize=size, color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    write(figure, left, 0.16, "Predicted as", weight="bold", fontsize=9.5)
    write(figure, 0.16, top, "Truth", weight="bold", fontsize=9.5, rotation=90, ha="center", va="top")
    if n <= NUMBERED:
        _numbers(axes, shares)
    _scale(
        figure,
        (left, top + side + 0.12, min(max(side, 2.4), 3.0)),
        _SHARES,
        ("0 %", "25 %", "100 % of the class"),
    )
    save(figure, path)


def confusion_shares(counts: NDArray[Any], classes: Sequence[str]) -> tuple[Floats, list[str]]:
    """Return in percent what the pixels of each class are predicted as, and the names of the classes.

    Args:
        counts: Pixels, `(C, C)`; rows are the truth, columns the prediction.
        classes: Names of the C classes.

    Returns:
        `(c, c)` float64 over the c classes in truth or prediction; rows sum to 100, or are NaN for a class that is
        predicted only.

    Raises:
        ValueError: There are not as many names as classes, or no pixel.
    """
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"expected counts of {len(classes)} classes, got {counts.shape}")
    occurs = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
    if not occurs.any():
        raise ValueError("expected counts of at least one pixel, got none: nothing was scored")
    kept = counts[np.ix_(occurs, occurs)].astype(np.float64)
    totals = kept.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, 100 * kept / np.maximum(totals, 1), np.nan)
    return shares, [name for name, there in zip(classes, occurs, strict=True) if there]


def _numbers(axes: Axes, shares: Floats) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if np.isnan(share) or round(share) == 0:
            continue
        weight = "bold" if row == column else "normal"
        style: Any = {"ha": "center", "va": "center", "fontsize": 7.5, "weight": weight}
        axes.text(column, row, f"{share:.0f}", color="white" if share > 35 else INK, **style)


@mpl.rc_context(STYLE)
def kernels_figure(
    path: str | Path,
    kernels: Mapping[str, Floats],
    classes: NDArray[np.uint8],
    *,
    names: Sequence[str],
    colours: Pixels,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Save kernel matrices of the tokens of one image, sorted by class, on one scale.

    Args:
        path: File to write.
        kernels: Similarities by title, `(N, N)` each.
        classes: Class of each token, `(N,)` uint8, sorted.
        names: Names of the C classes.
        colours: Their colours, `(C, 3)` uint8 RGB.
        notes: A line below each matrix, by its title.

    Raises:
        ValueError: The shapes differ, or tokens are not sorted.
    """
    _check_sorted(kernels, classes)
    low = min(float(np.percentile(kernel, 1)) for kernel in kernels.values())
    scale = mpl.colormaps["viridis"]
    left = 0.35 + 0.078 * max(len(names[one]) for one in np.unique(classes))
    width = left + len(kernels) * (_PANEL + _STRIP + _BETWEEN) - _BETWEEN + MARGIN
    figure = paper(width, 0.4 + _STRIP + _PANEL + 0.75)
    strip = colours[classes]
    for place, (title, kernel) in enumerate(kernels.items()):
        x = left + place * (_PANEL + _STRIP + _BETWEEN)
        write(figure, x + _STRIP, 0.2, title, fontsize=9.5, weight="bold")
        axes = axes_at(figure, x + _STRIP, 0.4 + _STRIP, _PANEL, _PANEL)
        axes.imshow(kernel, cmap=scale, vmin=low, vmax=1.0, aspect="auto", interpolation="auto")
        axes.set_axis_off()
        for picture, corner in (
            (strip[None], (x + _STRIP, 0.4, _PANEL, _STRIP)),
            (strip[:, None], (x, 0.4 + _STRIP, _STRIP, _PANEL)),
        ):
            edge = axes_at(figure, *corner)
            edge.imshow(picture, aspect="auto", interpolation="nearest")
            edge.set_axis_off()
        write(
            figure,
            x + _STRIP,
            0.4 + _STRIP + _PANEL + 0.12,
            (notes or {}).get(title, ""),
            fontsize=7.5,
            color=MUTED,
        )
    _group_names(figure, (left, 0.4 + _STRIP), classes, names)
    _scale(figure, (left + _STRIP, 0.4 + _STRIP + _PANEL + 0.3, 3.0), scale, (f"cosine {low:.2f}", "", "1"))
    save(figure, path)


def _check_sorted(kernels: Mapping[str, Floats], classes: NDArray[np.uint8]) -> None:
    expected = (len(classes), len(classes))
    wrong = [kernel.shape for kernel in kernels.values() if kernel.shape != expected]
    if wrong or not len(classes):
        raise ValueError(
            f"expected kernels of the {len(classes)} tokens that classes are given for, got {wrong}"
        )
    if (np.diff(classes.astype(np.int64)) < 0).any():
        raise ValueError("expected tokens sorted by class, got others: sort kernels and classes alike")


def _group_names(
    figure: Figure, corner: tuple[float, float], classes: NDArray[np.uint8], names: Sequence[str]
) -> None:
    """Write the name of each class beside its tokens, where there is room for it."""
    x, y = corner
    for one in np.unique(classes):
        places = np.flatnonzero(classes == one)
        if len(places) >= 0.035 * len(classes):
            middle = y + _PANEL * (places.mean() + 0.5) / len(classes)
            write(figure, x - 0.08, middle, names[one], ha="right", fontsize=8)


def _scale(figure: Figure, place: tuple[float, float, float], scale: Colormap, labels: Sequence[str]) -> None:
    """Draw a colour scale at that place, left and top, of that width, with labels at its ends and in the middle."""
    left, top, wide = place
    axes = axes_at(figure, left, top, wide, 12 / DPI)
    axes.imshow(scale(np.linspace(0, 1, 256))[None, :, :3], aspect="auto")
    axes.set_axis_off()
    for share, label, align in zip((0.0, 0.5, 1.0), labels, ("left", "center", "right"), strict=True):
        write(figure, left + share * wide, top + 0.17, label, fontsize=7.5, color=MUTED, ha=align)
