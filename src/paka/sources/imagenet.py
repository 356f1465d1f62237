"""ImageNet (ILSVRC 2012; Russakovsky et al., IJCV 2015): photographs with one image-level class each."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from paka.sources.folder import ImageFiles, check_split, locate


class ImageNet(ImageFiles):
    """The images of `root/{split}`, in one folder per class (tagged by it) or flat (without tags)."""

    def __init__(self, split: str, *, root: str | os.PathLike[str]) -> None:
        """List the images of one split.

        Args:
            split: `train`, `val` or `test`.
            root: Folder with `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG` or `val/*.JPEG`.

        Raises:
            FileNotFoundError: The root or the split is missing, or has no images.
            ValueError: The split is unknown, or only some of its images are in class folders.
        """
        folder = locate(root, check_split(split))
        super().__init__(split, folder=folder, name="imagenet", suffixes=(".jpeg", ".jpg"))
        wnids = [file.partition(b"/")[0] for file in self.files if b"/" in file]
        if 0 < len(wnids) < len(self):
            raise ValueError(
                f"{len(self) - len(wnids)} of {len(self)} images lie directly in {folder}, the others "
                "in class folders: expected all images in class folders or none; move them"
            )
        names, self._tag = np.unique(np.array(wnids, np.bytes_), return_inverse=True)
        self.tag_names = tuple(os.fsdecode(name) for name in names)

    def tags(self, index: int) -> NDArray[np.bool_]:
        """Return the class of image `index`, (T,) bool, one-hot over sorted class folders; (0,) if flat."""
        tags = np.zeros(len(self.tag_names), dtype=np.bool_)
        if tags.size:
            tags[self._tag[index]] = True
        return tags
