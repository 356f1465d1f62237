"""NYU Depth V2 (Silberman et al., ECCV 2012): indoor images with depth, in the official split."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paka.sources.decode import image_size, read_depth
from paka.sources.folder import check_split, locate
from paka.sources.labelled import PairedImages, under
from paka.sources.listing import list_files

SPLITS = {"train": 795, "test": 654}
"""Published number of images by split."""


class NYU(PairedImages):
    """Images with the depth of their sensor in metres; no classes. Scores leave out the frame around the images."""

    has_depth = True

    def __init__(self, split: str, *, root: str | os.PathLike[str], name: str = "nyu") -> None:
        """Pair the images and depth maps of one split, as BTS (Lee et al. 2019) lays them out.

        Args:
            split: `train` or `test`.
            root: Folder with `official_splits/{split}` or `{split}`, and there `SCENE/rgb_00045.jpg` with
                `SCENE/sync_depth_00045.png`, 16-bit millimetres.
            name: Name of the data set, as reports print it.

        Raises:
            FileNotFoundError: A folder or a depth map is missing.
            ValueError: The split is unknown.
        """
        root = Path(root).expanduser()
        check_split(split, tuple(SPLITS))
        folder = locate(root, f"official_splits/{split}", split, f"nyu_depth_v2/official_splits/{split}")
        images = [Path(os.fsdecode(file)) for file in list_files(folder, (".jpg",)) if b"rgb_" in file]
        depths = [file.with_name(f"sync_depth_{file.stem.removeprefix('rgb_')}.png") for file in images]
        super().__init__(
            split,
            name=name,
            root=root,
            images=under(root, folder, map(Path.as_posix, images)),
            labels=under(root, folder, map(Path.as_posix, depths)),
            published=SPLITS[split],
        )

    def depth(self, index: int) -> NDArray[np.float32]:
        """Return the depth of image `index` in metres, (H, W) float32 with 0 where it is not known.

        Raises:
            ValueError: The depth map cannot be read, or has another size than its image.
        """
        path = self.label_path(index)
        depth = read_depth(path)
        size = image_size(self.path(index))
        if depth.shape != size:
            raise ValueError(
                f"depth map {path} has {depth.shape[0]} rows and {depth.shape[1]} columns: expected {size[0]} "
                f"and {size[1]}, those of {self.path(index)}; use the pair as BTS lays it out"
            )
        return depth
