"""A miniature of tar shards as of webdataset."""

from __future__ import annotations

from pathlib import Path

from paka.miniatures.archives import encode, save_tar
from paka.miniatures.pictures import picture

SHARD = 8
"""Images in a shard."""


def write(root: Path, *, images: int = 20, seed: int = 0) -> None:
    """Write `root/train/train-000000.tar` and so on, each image with a `.cls` and a `.json` beside it."""
    for start in range(0, images, SHARD):
        members = {}
        for index in range(start, min(start + SHARD, images)):
            members[f"{index:08d}.jpg"] = encode(picture(index, classes=6, seed=seed)[0])
            members[f"{index:08d}.cls"] = str(index % 6).encode()
            members[f"{index:08d}.json"] = b'{"caption": "ellipses"}'
        save_tar(root / f"train/train-{start // SHARD:06d}.tar", members)
