"""What tests of figures share: the figure that a function would save, and whether its words are where they should be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def figure_of(
    patch: pytest.MonkeyPatch, function: Callable[..., None], *arguments: Any, **named: Any
) -> Figure:
    """Return the figure that a function draws, without saving it."""
    saved: list[Figure] = []
    with patch.context() as within:
        within.setattr(sys.modules[function.__module__], "save", lambda figure, path: saved.append(figure))
        function("unused.png", *arguments, **named)
    return saved[0]


def words(figure: Figure) -> list[Text]:
    """Return the texts of a figure that are shown."""
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        found += axes.texts
        if axes.axison:
            found += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
            found += [label for axis in (axes.xaxis, axes.yaxis) for label in tick_labels(axis)]
        if axes.get_legend() is not None:
            found += axes.get_legend().get_texts()
    return [text for text in found if text.get_text().strip() and text.get_visible()]


def tick_labels(axis: Axis) -> list[Text]:
    """Return the labels of ticks within the view: there are others, which are not drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [label for tick in ticks for label in (tick.label1, tick.label2)]


def check_words(figure: Figure) -> None:
    """Fail if words leave the paper or lie over each other."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.canvas.draw()
    paper = figure.bbox
    boxes = {text: text.get_window_extent(renderer) for text in words(figure)}
    for text, box in boxes.items():
        inside = (
            paper.x0 - 1 <= box.x0
            and box.x1 <= paper.x1 + 1
            and paper.y0 - 1 <= box.y0
            and box.y1 <= paper.y1 + 1
        )
        assert inside, f"{text.get_text()!r} leaves the paper"
    for (first, one), (second, other) in combinations(boxes.items(), 2):
        wide = min(one.x1, other.x1) - max(one.x0, other.x0)
        high = min(one.y1, other.y1) - max(one.y0, other.y0)
        # Boxes hold room for letters with descenders, which may touch.
        assert wide <= 1 or high <= 3, f"{first.get_text()!r} lies over {second.get_text()!r}"
