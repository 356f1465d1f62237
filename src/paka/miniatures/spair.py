"""A miniature of SPair-71k."""

from __future__ import annotations

import json
from pathlib import Path

from paka.miniatures.figures import figure, kinds, pairs
from paka.miniatures.files import save

CATEGORIES = ("aeroplane", "cat")


def write(root: Path, *, images: int = 20, seed: int = 0) -> None:
    """Write `root/SPair-71k` with trn, val and test: every two figures of a category are a pair, both ways."""
    tree = root / "SPair-71k"
    for split, kind_of in kinds(images, ("trn", "val", "test")).items():
        figures = {index: figure(index, kind=kind, seed=seed) for index, kind in kind_of.items()}
        names = {index: f"2008_{index:06d}" for index in figures}
        for index, one in figures.items():
            save(tree / f"JPEGImages/{CATEGORIES[kind_of[index]]}/{names[index]}.jpg", one.image)
        folder = tree / "PairAnnotation" / split
        folder.mkdir(parents=True)
        for number, (first, second) in enumerate(pairs(kind_of)):
            source, target = figures[first], figures[second]
            shared = [part for part in source.points if part in target.points]
            category = CATEGORIES[kind_of[first]]
            file = f"{number:06d}-{names[first]}-{names[second]}:{category}.json"
            content = {
                "filename": file.removesuffix(".json"),
                "src_imname": f"{names[first]}.jpg",
                "trg_imname": f"{names[second]}.jpg",
                "src_imsize": [*source.size, 3],
                "trg_imsize": [*target.size, 3],
                "src_bndbox": source.box,
                "trg_bndbox": target.box,
                "category": category,
                "kps_ids": [str(part) for part in shared],
                "src_kps": [source.points[part] for part in shared],
                "trg_kps": [target.points[part] for part in shared],
                "mirror": 0,
            }
            (folder / file).write_text(json.dumps(content), encoding="utf-8")
