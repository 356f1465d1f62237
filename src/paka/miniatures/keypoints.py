"""A miniature of a folder of pairs of images with keypoints."""

from __future__ import annotations

import json
from pathlib import Path

from paka.miniatures.figures import figure, kinds, pairs
from paka.miniatures.files import save

KINDS = ("star", "flower")


def write(root: Path, *, images: int = 20, seed: int = 0) -> None:
    """Write `root/images` and `root/pairs/{train,val,test}.json`; every other pair has no box around its target."""
    (root / "pairs").mkdir(parents=True, exist_ok=True)
    for split, kind_of in kinds(images, ("train", "val", "test")).items():
        figures = {index: figure(index, kind=kind, seed=seed) for index, kind in kind_of.items()}
        names = {index: f"{split}/{index:04d}.png" for index in figures}
        for index, one in figures.items():
            save(root / "images" / names[index], one.image)
        entries: list[dict[str, object]] = []
        for first, second in pairs(kind_of):
            source, target = figures[first], figures[second]
            shared = [part for part in source.points if part in target.points]
            entry: dict[str, object] = {
                "source": names[first],
                "target": names[second],
                "source_points": [source.points[part] for part in shared],
                "target_points": [target.points[part] for part in shared],
                "category": KINDS[kind_of[first]],
            }
            entries.append(entry if len(entries) % 2 else {**entry, "target_box": target.box})
        (root / "pairs" / f"{split}.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")
