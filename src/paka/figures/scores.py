"""Figures of scores before and after: of protocols, and of single classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paka.figures.canvas import AFTER, BEFORE, INK, STYLE, axes_at, paper, save


class Change(NamedTuple):
    """A score before and after, as a row of `scores_figure`.

    Attributes:
        label: What was measured.
        before: Score before, in percent.
        after: Score after, in percent.
        low: Lower end of the 95 % interval of the difference, in points; NaN if unknown.
        high: Its upper end, in points; NaN if unknown.
        text: The difference in words, written at the end of the row.
    """

    label: str
    before: float
    after: float
    low: float
    high: float
    text: str


@mpl.rc_context(STYLE)
def scores_figure(path: str | Path, changes: Sequence[Change], *, metric: str = "mIoU") -> None:
    """Save scores before and after: a row each, with an arrow and the interval of the difference.

    Args:
        path: File to write.
        changes: Rows from top to bottom.
        metric: Name of the score, for the axis; it is in percent.

    Raises:
        ValueError: There are no rows.
    """
    if not changes:
        raise ValueError("a figure of scores needs at least one score with a value before and after")
    figure, axis = _rows([change.label for change in changes], [change.text for change in changes], tall=0.46)
    for row, change in enumerate(changes):
        _change(axis, row, change)
    axis.set_xlabel(f"{metric} (%)")
    axis.margins(x=0.08)
    interval, before, after = axis.get_legend_handles_labels()[0][:3]
    _legend(axis, [before, after, interval])
    save(figure, path)


def _change(axis: Axes, row: int, change: Change) -> None:
    interval = (change.before + change.low, change.before + change.high)
    bar: Any = {"color": AFTER, "alpha": 0.28, "linewidth": 6, "solid_capstyle": "butt"}
    axis.plot(interval, (row, row), label="95 % interval", zorder=2, **bar)
    axis.annotate(
        "", (change.after, row), (change.before, row), zorder=3,
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.0, "shrinkA": 4, "shrinkB": 4.5},
    )  # fmt: skip
    axis.plot(change.before, row, "o", color=BEFORE, markersize=7, label="before", zorder=4)
    axis.plot(change.after, row, "o", color=AFTER, markersize=7, label="after", zorder=4)


class Bar(NamedTuple):
    """The score of a class, as a row of `classes_figure`.

    Attributes:
        label: Name of the class.
        before: Score in percent.
        after: Score after, in percent; None where there is nothing to compare with.
        low: Lower end of the 95 % interval of the last score, or of its difference to the one before; in percent.
        high: Its upper end.
        text: The numbers in words, written at the end of the row.
    """

    label: str
    before: float
    after: float | None
    low: float
    high: float
    text: str


@mpl.rc_context(STYLE)
def classes_figure(path: str | Path, bars: Sequence[Bar], *, metric: str = "IoU") -> None:
    """Save the scores of classes as bars, before and after below each other, with an interval.

    Args:
        path: File to write.
        bars: Classes from top to bottom, all with a score after, or none.
        metric: Name of the score, for the axis; it is in percent.

    Raises:
        ValueError: There are no rows.
    """
    if not bars:
        raise ValueError("a figure of classes needs at least one class with a score")
    compared = bars[0].after is not None
    figure, axis = _rows(
        [bar.label for bar in bars], [bar.text for bar in bars], tall=0.34 if compared else 0.26
    )
    for row, bar in enumerate(bars):
        _bars(axis, row, bar)
    axis.set_xlabel(f"{metric} (%)")
    axis.set_xlim(left=0)
    handles, labels = axis.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    _legend(axis, [named[name] for name in ("before", "after", "score", "95 % interval") if name in named])
    save(figure, path)


def _rows(labels: Sequence[str], texts: Sequence[str], *, tall: float) -> tuple[Figure, Axes]:
    """Return a figure with a labelled row for each text, which stands at its end; `tall` inches each."""
    width, head, foot = 7.2, 0.35, 0.5
    figure = paper(width, tall * len(labels) + head + foot + 0.1)
    left = 0.25 + 0.075 * max(map(len, labels))
    right = 0.25 + 0.072 * max(map(len, texts))
    axis = axes_at(figure, left, head, width - left - right, tall * len(labels) + 0.1)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_yticks(range(len(labels)), labels, color=INK, fontsize=9.5 if tall > 0.4 else 8.5)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    for row, text in enumerate(texts):
        axis.text(
            1.02,
            row,
            text,
            transform=axis.get_yaxis_transform(),
            va="center",
            fontsize=9 if tall > 0.4 else 8,
        )
    return figure, axis


def _legend(axis: Axes, handles: Sequence[Any]) -> None:
    axis.legend(
        handles=handles, ncols=len(handles), loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False,
        handlelength=1.4, handletextpad=0.7, columnspacing=1.6, borderaxespad=0,
    )  # fmt: skip


def _bars(axis: Axes, row: int, bar: Bar) -> None:
    compared = bar.after is not None
    middle = row + 0.19 if compared else row
    if compared:
        axis.barh(row - 0.19, bar.before, 0.34, color=BEFORE, label="before")
    last = bar.before if bar.after is None else bar.after
    axis.barh(middle, last, 0.34 if compared else 0.62, color=AFTER, label="after" if compared else "score")
    axis.plot((bar.low, bar.high), (middle, middle), color=INK, linewidth=1.1, label="95 % interval")
    for end in (bar.low, bar.high):
        axis.plot((end, end), (middle - 0.1, middle + 0.1), color=INK, linewidth=1.1)
