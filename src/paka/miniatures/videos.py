"""A miniature of a folder of videos, with masks for some of the frames."""

from __future__ import annotations

from pathlib import Path

from paka.miniatures.clips import clip
from paka.miniatures.davis import FEWEST
from paka.miniatures.files import save

KINDS = ("jpg", "png")
VIDEOS = 4
MASKED = 2
"""Every frame of so many has a mask, from the first on."""


def write(root: Path, *, images: int = 40, seed: int = 0) -> None:
    """Write `root/frames/clip_N` and `root/masks/clip_N` of four videos, and a mask for every other frame."""
    frames = max(images // VIDEOS, FEWEST + 1)
    for number in range(VIDEOS):
        for frame, (pixels, ids) in enumerate(clip(number, frames, seed=seed)):
            save(root / f"frames/clip_{number}/{frame + 1:04d}.{KINDS[number % len(KINDS)]}", pixels)
            if frame % MASKED == 0:
                save(root / f"masks/clip_{number}/{frame + 1:04d}.png", ids)
