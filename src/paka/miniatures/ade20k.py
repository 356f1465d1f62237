"""A miniature of ADE20K, SceneParse150."""

from __future__ import annotations

from pathlib import Path

from paka.miniatures.files import save, shares
from paka.miniatures.pictures import picture


def write(root: Path, *, images: int = 20, seed: int = 0) -> None:
    """Write `root/ADEChallengeData2016` with training and validation; masks store 0 for other, 1 to 150."""
    tree = root / "ADEChallengeData2016"
    for split, numbers in shares(images, ("training", "validation")).items():
        for index in numbers:
            pixels, ids = picture(index, classes=151, seed=seed)
            name = f"ADE_{'train' if split == 'training' else 'val'}_{index - numbers.start + 1:08d}"
            save(tree / f"images/{split}/{name}.jpg", pixels)
            save(tree / f"annotations/{split}/{name}.png", ids)
