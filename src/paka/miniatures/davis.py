"""A miniature of DAVIS 2017 at 480p."""

from __future__ import annotations

from pathlib import Path

from paka.miniatures.clips import clip
from paka.miniatures.files import save, save_list
from paka.sources.voc import voc_palette

VIDEOS = {"train": ("bear", "boat"), "val": ("blackswan", "camel", "cows")}
FEWEST = 4
"""Frames of a video at least, so that two of them are scored."""


def write(root: Path, *, images: int = 60, seed: int = 0) -> None:
    """Write `root/DAVIS` with two videos to train on and three to score; masks are PNGs of palette indices."""
    tree = root / "DAVIS"
    frames = max(images // sum(map(len, VIDEOS.values())), FEWEST)
    for start, (split, names) in zip((0, len(VIDEOS["train"])), VIDEOS.items(), strict=True):
        for number, name in enumerate(names, start=start):
            for frame, (pixels, ids) in enumerate(clip(number, frames, seed=seed)):
                save(tree / f"JPEGImages/480p/{name}/{frame:05d}.jpg", pixels)
                save(tree / f"Annotations/480p/{name}/{frame:05d}.png", ids, palette=voc_palette(256))
        save_list(tree / f"ImageSets/2017/{split}.txt", names)
