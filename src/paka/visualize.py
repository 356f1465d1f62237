"""Pictures of an experiment: features and segmentations before and after, training curves, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from paka.colours import Floats, Pixels, palette, pca_rgb

DPI = 150
VOID = 255
VOID_COLOUR = (222, 222, 222)
INK, MUTED, BEFORE, AFTER = "#1a1a1a", "#6b6b6b", "#9a9a9a", "#0072b2"
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
TITLES = {"loss": "Loss", "cka": "CKA", "tag_accuracy": "Tag accuracy"}
"""Titles of the series that are logged under these names."""

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": "#c8c8c8",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "text.parse_math": False,
    "grid.color": "#ececec",
    "savefig.facecolor": "white",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}
# Inches, whole in pixels. In 288 pixels, tokens of grids of 12, 16, 18, 24, 32 or 36 are equal squares.
_TILE, _GAP, _MARGIN, _LINE, _HEADER = 288 / DPI, 6 / DPI, 12 / DPI, 28 / DPI, 33 / DPI


@mpl.rc_context(_STYLE)
def features_figure(path: str | Path, images: Pixels, before: Floats, after: Floats) -> None:
    """Save images beside the features of two encoders, as colours of one joint PCA; see `pca_rgb`.

    Args:
        path: File to write.
        images: `(n, H, W, 3)` uint8 RGB, one row each; 4 to 6 look best.
        before: Tokens of the first encoder, `(n, h, w, D)`.
        after: Tokens of the second, `(n, h, w, D)`.

    Raises:
        ValueError: The counts or the shapes do not match.
    """
    _check_counts(images, before=before, after=after)
    colours_before, colours_after = pca_rgb(before, after)
    columns = {"Image": images, "Features before": colours_before, "Features after": colours_after}
    figure, _ = _tiles(columns, footer=_LINE + _MARGIN)
    _caption(figure, "First three principal components of the frozen patch tokens as RGB, one joint basis.")
    _save(figure, path)


@mpl.rc_context(_STYLE)
def segmentation_figure(
    path: str | Path,
    images: Pixels,
    *,
    truth: Pixels,
    before: Pixels,
    after: Pixels,
    classes: Sequence[str],
    colours: Pixels | None = None,
    iou: ArrayLike | None = None,
) -> None:
    """Save images beside their true and predicted segmentations.

    Args:
        path: File to write.
        images: `(n, H, W, 3)` uint8 RGB, one row each.
        truth: Class ids, `(n, H, W)` uint8, 255 void.
        before: Classes predicted from the first encoder's tokens, `(n, H, W)` uint8.
        after: Classes predicted from the second's, `(n, H, W)` uint8.
        classes: Names of the C classes; the legend shows those that occur.
        colours: Their colours, `(C, 3)` uint8 RGB; None draws distinct ones.
        iou: mIoU of each image in percent, `(n, 2)`: before, after. None leaves it out.

    Raises:
        ValueError: The counts do not match, or a class id has no name.
    """
    maps = {"Truth": truth, "Before": before, "After": after}
    _check_counts(images, **maps)
    lookup = np.full((256, 3), VOID_COLOUR, dtype=np.uint8)
    lookup[: len(classes)] = palette(len(classes)) if colours is None else colours
    handles = _legend_handles(list(maps.values()), classes, lookup)
    legend_columns = _legend_columns(handles, width=4 * _TILE)
    legend = -(-len(handles) // legend_columns) * _LINE + _MARGIN
    note = 0.0 if iou is None else 24 / DPI
    columns = {"Image": images, **{name: lookup[ids] for name, ids in maps.items()}}
    figure, axes = _tiles(columns, footer=legend + _MARGIN, note=note)
    if iou is not None:
        _write_scores(axes, np.asarray(iou, dtype=np.float64))
    y = (_MARGIN + _GAP) / figure.get_figheight()
    figure.legend(
        handles=handles, ncols=legend_columns, loc="lower center", bbox_to_anchor=(0.5, y), frameon=False,
        handlelength=1.1, handleheight=1.1, borderaxespad=0, borderpad=0, labelspacing=0.45, columnspacing=1.6,
    )  # fmt: skip
    _save(figure, path)


@mpl.rc_context(_STYLE)
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
    figure = _figure(3.3 * panels, 2.7)
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
    _save(figure, path)


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


@mpl.rc_context(_STYLE)
def scores_figure(
    path: str | Path, changes: Sequence[Change], *, metric: str = "mIoU", caption: str = ""
) -> None:
    """Save scores before and after: a row each, with an arrow and the interval of the difference.

    Args:
        path: File to write.
        changes: Rows from top to bottom.
        metric: Name of the score, for the axis; it is in percent.
        caption: One line at the foot.

    Raises:
        ValueError: There are no rows.
    """
    if not changes:
        raise ValueError("a figure of scores needs at least one score with a value before and after")
    height = 0.46 * len(changes) + 0.95 + (_LINE if caption else 0.0)
    figure = _figure(7.2, height)
    left = 0.25 + 0.075 * max(len(change.label) for change in changes)
    right = 0.25 + 0.072 * max(len(change.text) for change in changes)
    foot = 0.5 + (_LINE if caption else 0.0)
    axis = figure.add_axes((left / 7.2, foot / height, 1 - (left + right) / 7.2, 1 - (foot + 0.35) / height))
    for row, change in enumerate(changes):
        _change(axis, row, change)
    axis.set(xlabel=f"{metric} (%)", ylim=(len(changes) - 0.5, -0.5))
    axis.set_yticks(range(len(changes)), [change.label for change in changes], color=INK, fontsize=9.5)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    axis.margins(x=0.08)
    interval, before, after = axis.get_legend_handles_labels()[0][:3]
    axis.legend(
        handles=[before, after, interval], ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False,
        handlelength=1.4, handletextpad=0.7, columnspacing=1.6, borderaxespad=0,
    )  # fmt: skip
    _caption(figure, caption)
    _save(figure, path)


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
    axis.text(1.02, row, change.text, transform=axis.get_yaxis_transform(), va="center", fontsize=9)


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


def _figure(width: float, height: float) -> Figure:
    # The object-oriented interface leaves pyplot's figures and the user's backend alone.
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _tiles(
    columns: Mapping[str, NDArray[Any]], *, footer: float, note: float = 0.0
) -> tuple[Figure, NDArray[Any]]:
    """Return a figure of pictures in titled columns, with room for a note under each and for a footer (inches)."""
    first = next(iter(columns.values()))
    rows, tall = len(first), round(_TILE * DPI * first.shape[1] / first.shape[2]) / DPI
    width = 2 * _MARGIN + len(columns) * (_TILE + _GAP) - _GAP
    height = _MARGIN + _HEADER + rows * (tall + note + _GAP) + footer
    figure = _figure(width, height)
    axes = np.empty((rows, len(columns)), dtype=object)
    for column, (title, pictures) in enumerate(columns.items()):
        x = _MARGIN + column * (_TILE + _GAP)
        figure.text(x / width, 1 - (_MARGIN + 0.1) / height, title, fontsize=9.5, weight="bold", va="center")
        for row, picture in enumerate(pictures):
            y = height - _MARGIN - _HEADER - row * (tall + note + _GAP) - tall
            axis = figure.add_axes((x / width, y / height, _TILE / width, tall / height))
            axis.imshow(picture, interpolation="nearest" if column else "lanczos", aspect="auto")
            axis.set_axis_off()
            axes[row, column] = axis
    return figure, axes


def _write_scores(axes: NDArray[Any], iou: Floats) -> None:
    for row, scores in zip(axes, iou, strict=True):
        for axis, score in zip(row[2:], scores, strict=True):
            label = {"va": "top", "fontsize": 7.5, "color": MUTED}
            axis.text(0.0, -0.012, f"mIoU {score:.1f} %", transform=axis.transAxes, **label)


def _legend_handles(maps: Sequence[Pixels], classes: Sequence[str], colours: Pixels) -> list[Patch]:
    present = np.unique(np.concatenate([ids.ravel() for ids in maps])).tolist()
    unnamed = [class_id for class_id in present if len(classes) <= class_id < VOID]
    if unnamed:
        raise ValueError(f"class id {unnamed[0]} has no name: there are names for {len(classes)} classes")
    names = {class_id: "void" if class_id == VOID else classes[class_id] for class_id in present}
    return [Patch(facecolor=colours[class_id] / 255.0, label=name) for class_id, name in names.items()]


def _legend_columns(handles: Sequence[Patch], *, width: float) -> int:
    longest = max(len(str(handle.get_label())) for handle in handles)
    fitting = max(int(width / (0.4 + 0.075 * longest)), 1)
    rows = -(-len(handles) // fitting)
    return -(-len(handles) // rows)


def _caption(figure: Figure, text: str) -> None:
    x, y = _MARGIN / figure.get_figwidth(), _MARGIN / figure.get_figheight()
    figure.text(x, y, text, fontsize=7.5, color=MUTED, va="bottom")


def _check_counts(images: Pixels, **others: NDArray[Any]) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0:
        raise ValueError(f"images must be (n, H, W, 3) with at least one image, not {images.shape}")
    for name, other in others.items():
        if len(other) != len(images):
            raise ValueError(f"{name} holds {len(other)} maps for {len(images)} images")


def _save(figure: Figure, path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
