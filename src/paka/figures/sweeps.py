"""Figures of sweeps: scores against a number or by configuration, gains of classes, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from paka.figures.canvas import (
    INK,
    LINE,
    MARGIN,
    MUTED,
    STYLE,
    axes_at,
    columns_within,
    paper,
    save_both,
)
from paka.figures.curves import LINES

ACROSS = 3
"""Panels side by side."""
PANEL, BETWEEN = 2.55, 0.32
"""Width of a panel, and distance between two that share their rows, in inches."""
LEAST = 0.02
"""How much an axis of scores covers at least: two of the last digits that are printed."""
APART = 0.72
"""Distance between two that have axes of their own."""
COLOURS = (*LINES, "#60006c", "#483c00", "#a80c48", "#9078f0", "#30249c", "#6c5478")
_SEEDS: Any = {"linestyle": "none", "marker": "o", "markersize": 3.2, "alpha": 0.45, "markeredgewidth": 0}
_START: Any = {"color": MUTED, "linewidth": 1.1, "linestyle": (0, (4, 3)), "zorder": 1}


@dataclass(frozen=True)
class Sampled:
    """Scores of one configuration.

    Attributes:
        mean: Their mean.
        low: Lower end of its 95 % interval; NaN without one.
        high: Upper end of it.
        seeds: The scores themselves.
    """

    mean: float
    low: float
    high: float
    seeds: Sequence[float]


@dataclass(frozen=True)
class Line:
    """Scores against a number.

    Attributes:
        name: What the line is called; empty where it is the only one.
        x: The numbers, rising.
        scores: Scores at each.
    """

    name: str
    x: Sequence[float]
    scores: Sequence[Sampled]


@dataclass(frozen=True)
class Panel:
    """A score.

    Attributes:
        title: What was measured.
        start: Score of the encoder that went in; None where there is none, or there are several.
        lines: Scores against a number.
        rows: Scores of configurations, from top to bottom; None where one has none.
        named: Whether the line at the start has its name beside it.
    """

    title: str
    start: float | None
    lines: Sequence[Line] = ()
    rows: Sequence[Sampled | None] = ()
    named: bool = True


@mpl.rc_context(STYLE)
def curve_figure(
    path: Path,
    panels: Sequence[Panel],
    axis_name: str,
    ticks: Sequence[float],
    *,
    start: str,
    across: int = ACROSS,
) -> None:
    """Save scores against a number that was swept, with intervals over seeds: a panel for each score, as PNG and SVG.

    Args:
        path: PNG file to write; the SVG file lies beside it.
        panels: Scores, with at least one line each.
        axis_name: Name of the number.
        ticks: Its values; where they are spaced so, the axis is logarithmic.
        start: Name of the dashed line at the start.
        across: Panels side by side.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not panels:
        raise ValueError("a curve needs at least one score")
    names = [line.name for line in panels[0].lines if line.name]
    figure, axes = panels_in_grid(len(panels), 2.2, names, line_styles(len(names)), across=across)
    for axis, panel in zip(axes, panels, strict=True):
        for line, (colour, dashes) in zip(panel.lines, line_styles(len(panel.lines)), strict=True):
            _line(axis, line, colour, dashes)
        titled(axis, panel.title)
        _ordinate(axis)
        _abscissa(axis, axis_name, ticks)
        if panel.start is not None:
            axis.axhline(panel.start, **_START)
            axis.margins(y=0.12)
            if panel.named:
                _name_start(axis, panel.start, start)
    save_both(figure, path)


def _line(axis: Axes, line: Line, colour: str, dashes: Any) -> None:
    x, mean = np.array(line.x), np.array([score.mean for score in line.scores])
    axis.plot(x, mean, color=colour, linestyle=dashes, linewidth=1.7, marker="o", markersize=5, zorder=3)
    for place, score in zip(x, line.scores, strict=True):
        axis.plot([place] * len(score.seeds), score.seeds, color=colour, **_SEEDS)
        if np.isfinite(score.low):
            axis.errorbar(
                place, score.mean, [[score.mean - score.low], [score.high - score.mean]],
                color=colour, linewidth=0.9, capsize=2.5, alpha=0.75, zorder=2,
            )  # fmt: skip


def _ordinate(axis: Axes) -> None:
    """Write scores out, and keep those that are alike in print from looking different."""
    axis.ticklabel_format(axis="y", style="plain", useOffset=False)
    low, high = axis.get_ylim()
    if high - low < LEAST:
        axis.set_ylim((low + high - LEAST) / 2, (low + high + LEAST) / 2)


def _abscissa(axis: Axes, name: str, ticks: Sequence[float]) -> None:
    if logarithmic(ticks):
        axis.set_xscale("log")
        axis.minorticks_off()
    shown = ticks if len(ticks) <= 8 else [ticks[i] for i in np.linspace(0, len(ticks) - 1, 6).astype(int)]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axis.set_xlabel(name)
    axis.grid(axis="y")
    axis.set_axisbelow(True)
    axis.margins(x=0.06)


def logarithmic(values: Sequence[float]) -> bool:
    """Return whether numbers are spaced evenly in their logarithm rather than by themselves."""
    numbers = np.unique(np.asarray(values, dtype=np.float64))
    if len(numbers) < 3 or numbers[0] <= 0:
        return False
    spread = [float(np.std(gaps) / np.mean(gaps)) for gaps in (np.diff(numbers), np.diff(np.log(numbers)))]
    return spread[1] < spread[0]


def _name_start(axis: Axes, value: float, name: str) -> None:
    """Write what the dashed line is at its end, in the first word of its name."""
    axis.annotate(
        name.split(maxsplit=1)[0], (1, value), xycoords=axis.get_yaxis_transform(), xytext=(4, 0), textcoords="offset points",
        ha="left", va="center", fontsize=7, color=MUTED,
    )  # fmt: skip


@mpl.rc_context(STYLE)
def dots_figure(
    path: Path, labels: Sequence[str], panels: Sequence[Panel], *, start: str, across: int = ACROSS
) -> None:
    """Save scores of configurations as dots with intervals over seeds: a panel for each score, as PNG and SVG.

    Args:
        path: PNG file to write; the SVG file lies beside it.
        labels: Configurations from top to bottom.
        panels: Scores, with a row for each configuration.
        start: Name of the dashed line at the start.
        across: Panels side by side.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not panels or not labels:
        raise ValueError("a figure of configurations needs at least one configuration and one score")
    left = 0.3 + 0.072 * max(map(len, labels))
    tall, across = 0.27 * len(labels) + 0.2, min(across, len(panels))
    down = -(-len(panels) // across)
    figure = paper(left + across * (PANEL + BETWEEN), down * (tall + 0.85) + 0.1)
    for place, panel in enumerate(panels):
        row, column = divmod(place, across)
        axis = axes_at(figure, left + column * (PANEL + BETWEEN), 0.35 + row * (tall + 0.85), PANEL, tall)
        _dots(axis, panel, labels if column == 0 else [""] * len(labels), start)
    save_both(figure, path)


def _dots(axis: Axes, panel: Panel, labels: Sequence[str], start: str) -> None:
    for row, score in enumerate(panel.rows):
        if score is None:
            continue
        axis.plot(score.seeds, [row + 0.24] * len(score.seeds), color=LINES[0], **_SEEDS)
        if np.isfinite(score.low):
            axis.plot((score.low, score.high), (row, row), color=LINES[0], linewidth=1.3)
        axis.plot(score.mean, row, "o", color=LINES[0], markersize=6)
    axis.set_ylim(len(panel.rows) - 0.4, -0.6)
    axis.set_yticks(range(len(labels)), labels, color=INK)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    axis.margins(x=0.08)
    titled(axis, panel.title)
    if panel.start is not None:
        axis.axvline(panel.start, **_START)
        axis.set_xlabel(f"dashed: {start}" if labels[0] else "", fontsize=7, color=MUTED, loc="left")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5))


def line_styles(count: int, *, ordered: bool = False) -> list[tuple[str, Any]]:
    """Return a colour and dashes for each line."""
    if ordered and count > 1:
        shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, count))
        return [(mpl.colors.to_hex(shade), "-") for shade in shades]
    dashes: list[Any] = ["-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1))]
    return [
        (COLOURS[i % len(COLOURS)], dashes[i // len(COLOURS) % len(dashes)]) for i in range(max(count, 1))
    ]


def panels_in_grid(
    count: int, tall: float, names: Sequence[str], styles: Sequence[tuple[str, Any]], *, across: int = ACROSS
) -> tuple[Figure, list[Axes]]:
    """Return a figure with that many panels above a legend of names, and the panels."""
    across = min(across, count)
    down = -(-count // across)
    width = 0.55 + across * (PANEL + APART) - 0.2
    columns = columns_within(names, width - 0.6) if names else 1
    foot = LINE * -(-len(names) // columns) + 2 * MARGIN if names else 0.0
    figure = paper(width, down * (tall + 0.85) + foot)
    axes = [
        axes_at(
            figure, 0.55 + (i % across) * (PANEL + APART), 0.32 + (i // across) * (tall + 0.85), PANEL, tall
        )
        for i in range(count)
    ]
    if names:
        handles = [Line2D([], [], color=colour, linestyle=dashes, linewidth=2) for colour, dashes in styles]
        figure.legend(
            handles, names, ncols=columns, loc="lower left", frameon=False, borderaxespad=0, borderpad=0,
            bbox_to_anchor=(0.5 / width, MARGIN / figure.get_figheight()), handlelength=1.8, columnspacing=1.6,
        )  # fmt: skip
    return figure, axes


def titled(axis: Axes, title: str) -> None:
    """Give a panel its title."""
    axis.set_title(title, fontsize=9)
