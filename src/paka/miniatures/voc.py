"""A miniature of PASCAL VOC 2012 with its augmented training masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paka.miniatures.files import save, save_list, shares
from paka.miniatures.pictures import picture
from paka.sources import VOID
from paka.sources.voc import CLASSES, voc_palette


def write(root: Path, *, images: int = 20, seed: int = 0) -> None:
    """Write `root/VOCdevkit/VOC2012`: trainaug and val, the first half of trainaug being train.

    Masks are PNGs of palette indices. Those in SegmentationClass have void pixels, those further ones that are in
    SegmentationClassAug only have none, as with SBD.
    """
    tree = root / "VOCdevkit/VOC2012"
    parts = shares(images, ("trainaug", "val"))
    names = {i: f"2007_{i + 1:06d}" for part in parts.values() for i in part}
    train = parts["trainaug"][: (len(parts["trainaug"]) + 1) // 2]
    for index, name in names.items():
        pixels, ids = picture(index, classes=len(CLASSES), seed=seed)
        own = index in train or index in parts["val"]
        if own:
            ids[1:][ids[1:] != ids[:-1]] = VOID
        save(tree / f"JPEGImages/{name}.jpg", pixels)
        for folder, wanted in (("", own), ("Aug", index in parts["trainaug"])):
            if wanted:
                save(tree / f"SegmentationClass{folder}/{name}.png", ids, palette=voc_palette(256))
    lists = {**parts, "train": train, "trainval": [*train, *parts["val"]]}
    for split, part in lists.items():
        save_list(tree / f"ImageSets/Segmentation/{split}.txt", (names[i] for i in np.asarray(part)))
