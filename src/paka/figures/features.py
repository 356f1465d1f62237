"""Figures of tokens as colours of their principal components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

from paka.colours import Floats, Pixels, pca_rgb
from paka.figures.canvas import MARGIN, STYLE, check_counts, save
from paka.figures.tiles import GAP, Column, resized, tiles


@mpl.rc_context(STYLE)
def features_figure(
    path: str | Path, images: Pixels, sides: Mapping[str, Floats], *, joint: bool = True
) -> None:
    """Save images beside the features of encoders, as colours of their first principal components; see `pca_rgb`.

    Args:
        path: File to write.
        images: `(n, H, W, 3)` uint8 RGB, one row each; 4 to 6 look best.
        sides: Tokens of each encoder by title, `(n, h, w, D)`.
        joint: Whether all share one basis and range, so that equal colours mean equal tokens.

    Raises:
        ValueError: The counts or the shapes do not match.
    """
    check_counts(images, **sides)
    colours = pca_rgb(*sides.values()) if joint else [pca_rgb(side)[0] for side in sides.values()]
    columns = [Column("Image", resized(images, smooth=True), smooth=True)]
    columns += [Column(title, side) for title, side in zip(sides, colours, strict=True)]
    save(tiles(columns, footer=MARGIN - GAP), path)
