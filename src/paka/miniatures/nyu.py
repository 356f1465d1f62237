"""A miniature of NYU Depth V2."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paka.miniatures.files import save, shares
from paka.miniatures.pictures import picture

_SCENES = ("bathroom", "bedroom", "kitchen")


def write(root: Path, *, images: int = 20, seed: int = 0) -> None:
    """Write `official_splits/{train,test}/SCENE`: a depth of 1 to 9 m for each shape, 0 on the left edge."""
    for split, numbers in shares(images, ("train", "test")).items():
        for index in numbers:
            pixels, ids = picture(index, classes=9, seed=seed)
            millimetres = (ids.astype(np.uint16) + 1) * 1000
            millimetres[:, :4] = 0
            place = root / "official_splits" / split / _SCENES[index % len(_SCENES)]
            save(place / f"rgb_{index:05d}.jpg", pixels)
            save(place / f"sync_depth_{index:05d}.png", millimetres)
