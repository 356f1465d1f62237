"""A miniature of Cityscapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paka.miniatures.files import save, shares
from paka.miniatures.pictures import picture
from paka.sources.cityscapes import FIRST_ID

_CITIES = {"train": ("aachen", "bochum"), "val": ("frankfurt", "lindau"), "test": ("berlin", "bonn")}
_OUT_OF_ROI = 3


def write(root: Path, *, images: int = 20, seed: int = 0) -> None:
    """Write `leftImg8bit` and `gtFine` with two cities in each of train, val and test; test has void masks."""
    for split, numbers in shares(images, tuple(_CITIES)).items():
        for index in numbers:
            pixels, ids = picture(index, classes=27, seed=seed)
            stored = ids + np.uint8(FIRST_ID)
            stored[-2:] = _OUT_OF_ROI
            if split == "test":
                stored[:] = _OUT_OF_ROI
            city = _CITIES[split][index % 2]
            place = f"{split}/{city}/{city}_{index:06d}_000019"
            save(root / f"leftImg8bit/{place}_leftImg8bit.png", pixels)
            save(root / f"gtFine/{place}_gtFine_labelIds.png", stored)
