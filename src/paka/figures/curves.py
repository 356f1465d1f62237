"""Figures of training: curves of what was logged, and of scores on the way."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from paka.colours import Floats
from paka.figures.canvas import STYLE, paper, save

LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
TITLES = {"loss": "Loss", "cka": "CKA", "tag_accuracy": "Tag accuracy"}
"""Titles of the series that are logged under these names."""


@mpl.rc_context(STYLE)
def curves_figure(
    path: str | Path,
    steps: ArrayLike,
    series: Mapping[str, ArrayLike],
    *,
    validation: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
) -> None:
    """Save training curves: a panel per series, raw and smoothed, and one for scores during training.

    Args:
        path: File to write.
        steps: Optimizer steps, `(T,)`.
        series: Values by name, `(T,)` each; values that are not finite are left out.
        validation: Steps `(V,)` and mIoU in percent `(V,)` by protocol; None leaves the panel out.

    Raises:
        ValueError: There is no series, or one is not as long as `steps`.
    """
    if not series:
        raise ValueError("curves need at least one series, such as the loss")
    panels = len(series) + bool(validation)
    figure = paper(3.3 * panels, 2.7)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis, (name, values), colour in zip(axes, series.items(), cycle(LINES), strict=False):
        _curve(axis, name, np.asarray(steps), np.asarray(values, dtype=np.float64), colour)
    if validation:
        _validation(axes[-1], validation)
    for axis in axes:
        axis.set_xlabel("optimizer step")
        axis.grid(axis="y")
        axis.margins(x=0.02)
    figure.tight_layout(w_pad=2.0)
    save(figure, path)


def _curve(axis: Axes, name: str, steps: NDArray[Any], values: Floats, colour: str) -> None:
    if len(values) != len(steps):
        raise ValueError(f"series {name} has {len(values)} values for {len(steps)} steps")
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    smoothed = smooth(values, width=len(values) / 30)
    axis.plot(steps, smoothed, "o-" if len(values) == 1 else "-", color=colour, linewidth=1.8)
    axis.set_title(TITLES.get(name, name))


def smooth(values: Floats, *, width: float) -> Floats:
    """Return a Gaussian moving average of `(T,)` values, `width` entries wide, of only what there is at the ends."""
    reach = min(int(3 * width), max(len(values) - 1, 0))
    if reach < 1:
        return values.astype(np.float64)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    inside = slice(reach, reach + len(values))
    total = np.convolve(values, weights)[inside]
    return np.asarray(total / np.convolve(np.ones(len(values)), weights)[inside])


def _validation(axis: Axes, validation: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> None:
    colours = cycle(LINES[2:] + LINES[:2])
    for (name, (steps, values)), colour in zip(validation.items(), colours, strict=False):
        axis.plot(
            steps, values, "o-", color=colour, linewidth=1.6, markersize=3.5, label=name.replace("_", "-")
        )
    axis.set_title("Validation mIoU (%)")
    if len(validation) > 1:
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.15 * (high - low))  # room for the legend above the lines
        axis.legend(
            loc="upper center",
            ncols=3,
            frameon=False,
            fontsize=8,
            handlelength=1,
            columnspacing=1,
            borderaxespad=0,
        )
    else:
        axis.set_title(f"Validation mIoU (%), {next(iter(validation)).replace('_', '-')}")
