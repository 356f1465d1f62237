"""A miniature of the images of COCO 2017."""

from __future__ import annotations

from pathlib import Path

from paka.miniatures.files import save, shares
from paka.miniatures.pictures import picture


def write(root: Path, *, images: int = 20, seed: int = 0) -> None:
    """Write `root/{train,val,unlabeled}2017` with names of twelve digits."""
    for split, part in shares(images, ("train", "val", "unlabeled")).items():
        for index in part:
            save(root / f"{split}2017/{9 + index:012d}.jpg", picture(index, classes=6, seed=seed)[0])
