"""Folder trees with masks, sound ones and broken ones, as `paka.sources.folder.Folder` reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = {"train": 12, "val": 3, "test": 4}


def write_folder(root: Path, splits: dict[str, int] | None = None, *, classes: int = 3) -> Path:
    """Write noise images `images/SPLIT/I.png` of 12 x 8 pixels, all different, and masks of vertical stripes, first row void."""
    ids = np.broadcast_to(np.arange(12, dtype=np.uint8) * classes // 12, (8, 12)).copy()
    ids[0] = 255
    for number, (split, count) in enumerate((splits or SPLITS).items()):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng([number, index]).integers(0, 256, (8, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{index}.png")
            Image.fromarray(ids).save(root / "masks" / split / f"{index}.png")
    return root
