"""Figures of how several trainings went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from paka.figures.canvas import STYLE, save_both
from paka.figures.curves import smooth
from paka.figures.sweeps import line_styles, panels_in_grid, titled


@dataclass(frozen=True)
class Learning:
    """How a logged value went.

    Attributes:
        title: What was logged.
        marked: Whether it was logged so seldom that each value gets a dot.
        curves: Of each configuration, steps and values of each seed.
    """

    title: str
    marked: bool
    curves: Sequence[Sequence[tuple[Sequence[int], Sequence[float]]]]


@mpl.rc_context(STYLE)
def learning_figure(path: Path, names: Sequence[str], panels: Sequence[Learning], *, ordered: bool) -> None:
    """Save learning curves: a colour for each configuration, a thin line for each seed, a thick one for their mean.

    Args:
        path: PNG file to write; the SVG file lies beside it.
        names: The configurations.
        panels: What was logged, with curves of each configuration.
        ordered: Whether the configurations have an order, as numbers do, which colours then follow.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not panels:
        raise ValueError("learning curves need at least one value that was logged")
    styles = line_styles(len(names), ordered=ordered)
    figure, axes = panels_in_grid(len(panels), 2.2, names if len(names) > 1 else [], styles)
    for axis, panel in zip(axes, panels, strict=True):
        for curves, style in zip(panel.curves, styles, strict=True):
            _learning(axis, curves, style, marked=panel.marked)
        titled(axis, panel.title)
        axis.set_xlabel("optimizer step")
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axis.grid(axis="y")
        axis.margins(x=0.02)
    save_both(figure, path)


def _learning(
    axis: Axes,
    curves: Sequence[tuple[Sequence[int], Sequence[float]]],
    style: tuple[str, Any],
    *,
    marked: bool,
) -> None:
    colour, dashes = style
    smoothed = [
        (np.array(steps), np.array(values) if marked else smooth(np.array(values), width=len(values) / 30))
        for steps, values in curves
    ]
    thin = len(smoothed) > 1
    for steps, values in smoothed:
        axis.plot(steps, values, color=colour, linewidth=0.7, alpha=0.4 if thin else 0)
    if smoothed:
        steps = np.unique(np.concatenate([steps for steps, _ in smoothed]))
        mean = np.mean([np.interp(steps, own, values) for own, values in smoothed], axis=0)
        axis.plot(
            steps,
            mean,
            color=colour,
            linestyle=dashes,
            linewidth=1.8,
            marker="o" if marked or len(steps) == 1 else "",
            markersize=3.5,
        )
