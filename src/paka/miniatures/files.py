"""What the writers of miniatures share: how pictures fall to splits, and how files are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def shares(images: int, splits: Sequence[str]) -> dict[str, range]:
    """Return the numbers of the pictures of each split: a fifth for each but the first, which has the rest."""
    fifth = max(1, images // 5)
    first = max(1, images - fifth * (len(splits) - 1))
    starts = [0, *(first + fifth * i for i in range(len(splits)))]
    return {split: range(*starts[i : i + 2]) for i, split in enumerate(splits)}


def save(path: Path, pixels: NDArray[np.generic], *, palette: NDArray[np.uint8] | None = None) -> None:
    """Write an image in the format of the path's ending, its folders too; ids with a palette as a palette PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(path)


def save_list(path: Path, names: Iterable[str]) -> None:
    """Write names one a line, the folders of the list too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
