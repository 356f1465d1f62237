"""A miniature of COCO-Stuff 164k."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paka.miniatures.files import save, shares
from paka.miniatures.pictures import picture
from paka.sources import VOID
from paka.sources.coco_stuff import COARSE


def write(root: Path, *, images: int = 20, seed: int = 0) -> None:
    """Write `images/{train,val}2017` and `annotations/{train,val}2017`, a fine class for each coarse one."""
    fine = np.array([members[0] for members in COARSE.values()], dtype=np.uint8)
    for split, numbers in shares(images, ("train2017", "val2017")).items():
        for index in numbers:
            pixels, ids = picture(index, classes=len(fine), seed=seed)
            stored = fine[ids]
            stored[:, :2] = VOID
            save(root / f"images/{split}/{9 + 16 * index:012d}.jpg", pixels)
            save(root / f"annotations/{split}/{9 + 16 * index:012d}.png", stored)
