"""Tar shards as of webdataset: many tars of images, each beside files of labels and captions that are not read."""

from __future__ import annotations

import os
from pathlib import Path

from paka.sources.archive import TarFiles
from paka.sources.decode import IMAGE_SUFFIXES
from paka.sources.folder import ImageFiles


class Shards(ImageFiles):
    """The images in the tars of `root/{split}`, or of `root` itself."""

    def __init__(
        self, split: str, *, root: str | os.PathLike[str], pattern: str = "*.tar", name: str = "shards"
    ) -> None:
        """List the images of all shards; the shards' headers are read once and remembered.

        Args:
            split: Name of the split.
            root: Folder of the shards, or of a folder of them for each split.
            pattern: Names of the shards of the split, as `train-*.tar`.
            name: Name of the data set, as reports print it.

        Raises:
            FileNotFoundError: There is no such folder, no shard or no image.
            ValueError: A shard is damaged.
        """
        root = Path(root).expanduser()
        folder = root / split if (root / split).is_dir() else root
        shards = sorted(folder.glob(pattern)) if folder.is_dir() else []
        if not shards:
            raise FileNotFoundError(
                f"{folder} holds no shards: expected tars named {pattern}; set root to their folder, or data.pattern"
            )
        super().__init__(split, files=TarFiles(shards, IMAGE_SUFFIXES), name=name)
