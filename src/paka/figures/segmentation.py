"""Figures of segmentations: true and predicted classes over the image, and where predictions are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.patches import Patch

from paka.colours import VOID_COLOUR, Pixels, overlay, palette
from paka.figures.canvas import (
    GAIN,
    LINE,
    LOSS,
    MARGIN,
    NEITHER,
    STYLE,
    check_counts,
    columns_within,
    legend,
    rgb,
    save,
)
from paka.figures.tiles import GAP, TILE, Column, resized, tiles, tinted
from paka.sources import VOID

FADED = 0.35
"""How much white lies over an image where nothing is wrong."""
VOIDED, RIGHT, ONLY_SECOND, ONLY_FIRST, WRONG = range(5)
"""What can be said of a pixel; see `agreement`."""


@mpl.rc_context(STYLE)
def segmentation_figure(
    path: str | Path,
    images: Pixels,
    *,
    truth: Pixels,
    predictions: Mapping[str, Pixels],
    classes: Sequence[str],
    colours: Pixels | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Save images beside their true and predicted segmentations, and where those are right.

    Args:
        path: File to write.
        images: `(n, H, W, 3)` uint8 RGB, one row each.
        truth: Class ids, `(n, H, W)` uint8, 255 void.
        predictions: Class ids by title, `(n, H, W)` uint8 each: one prediction, or two that are compared.
        classes: Names of the C classes; the legend shows those that occur.
        colours: Their colours, `(C, 3)` uint8 RGB; None draws distinct ones.
        notes: A line for each image by the title of a prediction.

    Raises:
        ValueError: The counts do not match, or a class id has no name.
    """
    check_counts(images, truth=truth, **predictions)
    colours = palette(len(classes)) if colours is None else colours
    handles = _class_handles([truth, *predictions.values()], classes, colours)
    images = resized(images, smooth=True)
    truth, *predicted = (resized(ids, smooth=False) for ids in (truth, *predictions.values()))
    codes = agreement(truth, predicted)
    columns = [
        Column("Image", images, smooth=True),
        Column("Truth", overlay(images, truth, colours)),
        *(
            Column(title, overlay(images, ids, colours), (notes or {}).get(title, ()))
            for title, ids in zip(predictions, predicted, strict=True)
        ),
        Column(_title(predicted), judged(images, codes), [_shares(one, len(predicted)) for one in codes]),
    ]
    _with_legends(columns, handles, _judgements([*predictions]), path)


def _with_legends(
    columns: Sequence[Column], classes: Sequence[Patch], judged: Sequence[Patch], path: str | Path
) -> None:
    width = len(columns) * (TILE + GAP)
    across = columns_within([str(handle.get_label()) for handle in classes], width)
    rows = -(-len(classes) // across)
    figure = tiles(columns, footer=(rows + 1) * LINE + 3 * MARGIN)
    legend(figure, classes, bottom=LINE + 2 * MARGIN, columns=across)
    legend(figure, judged, bottom=MARGIN, columns=len(judged))
    save(figure, path)


def agreement(truth: Pixels, predictions: Sequence[Pixels]) -> Pixels:
    """Return what can be said of each pixel: which of one or two predictions are right.

    Args:
        truth: Class ids with 255 for void, any shape, uint8.
        predictions: Class ids of the same shape: one prediction, or two.

    Returns:
        uint8 of the same shape: `VOIDED`, `RIGHT` by all, `ONLY_SECOND` right, `ONLY_FIRST`, or `WRONG` by all.
    """
    right = [ids == truth for ids in predictions]
    first, second = right[0], right[-1]
    codes = np.select([first & second, second, first], [RIGHT, ONLY_SECOND, ONLY_FIRST], WRONG)
    return np.where(truth == VOID, VOIDED, codes).astype(np.uint8)


def judged(images: Pixels, codes: Pixels) -> Pixels:
    """Return images (n, H, W, 3) with colours where a prediction is wrong, by the codes of `agreement` (n, H, W)."""
    faded = tinted(images, np.array([255, 255, 255]), FADED)
    colours = {ONLY_SECOND: rgb(GAIN), ONLY_FIRST: rgb(LOSS), WRONG: rgb(NEITHER)}
    for code, colour in colours.items():
        faded = np.where((codes == code)[..., None], tinted(images, colour, 0.85), faded)
    return np.where((codes == VOIDED)[..., None], np.uint8(VOID_COLOUR[0]), faded)


def _title(predicted: Sequence[Pixels]) -> str:
    return "Where they differ" if len(predicted) > 1 else "Errors"


def _shares(codes: Pixels, predictions: int) -> str:
    """Return in words how much of an image's labelled pixels is right."""
    labelled = max(int((codes != VOIDED).sum()), 1)
    share = {code: 100 * int((codes == code).sum()) / labelled for code in (RIGHT, ONLY_SECOND, ONLY_FIRST)}
    if predictions == 1:
        return f"{share[RIGHT]:.0f} % of the pixels right"
    return f"after only {share[ONLY_SECOND]:.0f} %, before only {share[ONLY_FIRST]:.0f} %"


def _judgements(titles: Sequence[str]) -> list[Patch]:
    if len(titles) == 1:
        wrong = {"wrong": NEITHER}
    else:
        first, second = (title.lower() for title in titles)
        wrong = {f"only {second} is right": GAIN, f"only {first} is right": LOSS, "both wrong": NEITHER}
    patches = [Patch(facecolor=colour, label=label) for label, colour in wrong.items()]
    plain = Patch(facecolor="white", edgecolor="#b0b0b0", linewidth=0.8)
    plain.set_label("right: the image itself" if len(titles) == 1 else "both right: the image itself")
    return [*patches, plain]


def _class_handles(maps: Sequence[Pixels], classes: Sequence[str], colours: Pixels) -> list[Patch]:
    present = np.unique(np.concatenate([ids.ravel() for ids in maps])).tolist()
    unnamed = [class_id for class_id in present if len(classes) <= class_id < VOID]
    if unnamed:
        raise ValueError(f"class id {unnamed[0]} has no name: there are names for {len(classes)} classes")
    names = {class_id: "void" if class_id == VOID else classes[class_id] for class_id in present}
    return [
        Patch(facecolor=_legend_colour(colours, class_id), label=name) for class_id, name in names.items()
    ]


def _legend_colour(colours: Pixels, class_id: int) -> Any:
    """Return the colour of a class as it looks over a medium grey."""
    middle = np.full((1, 1, 3), 150, dtype=np.uint8)
    return overlay(middle, np.array([[class_id]], dtype=np.uint8), colours)[0, 0] / 255.0
