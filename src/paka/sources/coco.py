"""The photographs of COCO (Lin et al., ECCV 2014), without labels."""

from __future__ import annotations

import logging
import os

from paka.sources.folder import ImageFiles, check_split, locate
from paka.sources.listing import FolderFiles

logger = logging.getLogger(__name__)

_PUBLISHED = {
    "train2017": 118_287,
    "val2017": 5_000,
    "unlabeled2017": 123_403,
    "train2014": 82_783,
    "val2014": 40_504,
}


class Coco(ImageFiles):
    """The images of `root/train2017` or `root/images/train2017`, and of `val2017` and `unlabeled2017` likewise."""

    def __init__(self, split: str, *, root: str | os.PathLike[str], year: int = 2017) -> None:
        """List the images of one split; a count other than the published one is logged as a warning.

        Args:
            split: `train`, `val` or `unlabeled`.
            root: Folder with `train{year}` or `images/train{year}`.
            year: Which release's split.

        Raises:
            FileNotFoundError: The root or the split is missing, or has no images.
            ValueError: The split is unknown.
        """
        release = f"{check_split(split, ('train', 'val', 'unlabeled'))}{year}"
        folder = locate(root, release, f"images/{release}")
        super().__init__(split, files=FolderFiles(folder, (".jpg",)), name="coco")
        published = _PUBLISHED.get(release, len(self))
        if len(self) != published:
            logger.warning("%s holds %d images, but %d were published", folder, len(self), published)
