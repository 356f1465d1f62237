"""A miniature of PASCAL Context."""

from __future__ import annotations

from pathlib import Path

from paka.miniatures.files import save, save_list, shares
from paka.miniatures.pictures import picture


def write(root: Path, *, images: int = 20, seed: int = 0) -> None:
    """Write `root/VOCdevkit/VOC2010` with train and val; masks store 0 for background, 1 to 59."""
    tree = root / "VOCdevkit/VOC2010"
    for split, numbers in shares(images, ("train", "val")).items():
        for index in numbers:
            pixels, ids = picture(index, classes=60, seed=seed)
            save(tree / f"JPEGImages/2008_{index + 1:06d}.jpg", pixels)
            save(tree / f"SegmentationClassContext/2008_{index + 1:06d}.png", ids)
        names = (f"2008_{index + 1:06d}" for index in numbers)
        save_list(tree / f"ImageSets/SegmentationContext/{split}.txt", names)
