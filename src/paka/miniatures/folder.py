"""A miniature of a folder of images with masks, in several formats."""

from __future__ import annotations

from pathlib import Path

from paka.miniatures.files import save, shares
from paka.miniatures.pictures import picture

KINDS = ("jpg", "png", "webp", "bmp", "tif")


def write(root: Path, *, images: int = 20, seed: int = 0, classes: int = 5) -> None:
    """Write `root/images/{train,val,test}` and `root/masks/{train,val,test}`; every fourth image is grey.

    Args:
        root: Where to write.
        images: Images in all.
        seed: Seed of the pictures.
        classes: Classes in the masks.
    """
    for split, part in shares(images, ("train", "val", "test")).items():
        for index in part:
            pixels, ids = picture(index, classes=classes, seed=seed)
            shown = pixels.mean(axis=2).astype(pixels.dtype) if index % 4 == 3 else pixels
            save(root / f"images/{split}/{index:04d}.{KINDS[index % len(KINDS)]}", shown)
            save(root / f"masks/{split}/{index:04d}.png", ids)
