"""Figures of what classes gain, by configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from paka.colours import Floats
from paka.figures.canvas import DPI, GAIN, INK, LOSS, MUTED, STYLE, axes_at, paper, save_both, write

_CHANGE = LinearSegmentedColormap.from_list("change", [LOSS, "#f5f5f5", GAIN]).with_extremes(bad="#ffffff")


@mpl.rc_context(STYLE)
def gains_figure(
    path: Path, classes: Sequence[str], columns: Sequence[str], gains: Floats, *, key: str = ""
) -> None:
    """Save the gain of each class with each configuration as a heat map with numbers, as PNG and SVG.

    Args:
        path: PNG file to write; the SVG file lies beside it.
        classes: Names of the C classes.
        columns: Names of the K configurations.
        gains: Points of IoU, (C, K); NaN where a class has none.
        key: What the names of the configurations are values of, if that is one thing.

    Raises:
        ValueError: There is no gain.
    """
    if not np.isfinite(gains).any():
        raise ValueError("a figure of gains needs at least one gain")
    tall, wide = 0.24, 0.62
    left = 0.3 + 0.072 * max(map(len, classes))
    head = 0.3 + 0.068 * max(map(len, columns))
    steep = max(map(len, columns)) > 7
    head = head if steep else 0.45
    width = left + max(wide * len(columns), 2.6) + 0.25
    figure = paper(width, head + tall * len(classes) + 0.55)
    axis = axes_at(figure, left, head, wide * len(columns), tall * len(classes))
    most = max(float(np.nanmax(np.abs(gains))), 1.0)  # or what is nothing would be as bright as what is much
    axis.imshow(gains, cmap=_CHANGE, vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    axis.xaxis.tick_top()
    axis.set_xticks(range(len(columns)), columns, rotation=90 if steep else 0, color=INK, fontsize=8)
    axis.set_yticks(range(len(classes)), classes, color=INK, fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    for (row, column), gain in np.ndenumerate(gains):
        if np.isfinite(gain):
            colour = "white" if abs(gain) > 0.75 * most else INK
            axis.text(
                column,
                row,
                f"{round(float(gain), 1) + 0.0:+.1f}".replace("+0.0", "0.0"),
                ha="center",
                va="center",
                fontsize=7.5,
                color=colour,
            )
    if key:
        write(
            figure,
            left - 0.05,
            head - (0.17 if not steep else 0.25),
            key,
            fontsize=8,
            color=MUTED,
            ha="right",
        )
    _scale(figure, left, head + tall * len(classes) + 0.15, most)
    save_both(figure, path)


def _scale(figure: Figure, left: float, top: float, most: float) -> None:
    axis = axes_at(figure, left, top, 2.4, 12 / DPI)
    axis.imshow(_CHANGE(np.linspace(0, 1, 256))[None, :, :3], aspect="auto")
    axis.set_axis_off()
    for share, text, align in (
        (0, f"-{most:.1f}", "left"),
        (0.5, "0", "center"),
        (1, f"+{most:.1f} IoU", "right"),
    ):
        write(figure, left + share * 2.4, top + 0.17, text, fontsize=7.5, color=MUTED, ha=align)
