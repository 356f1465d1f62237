"""ImageNet (ILSVRC 2012; Russakovsky et al., IJCV 2015): photographs with one image-level class each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paka.sources.archive import TarFiles
from paka.sources.files import Chosen, Files
from paka.sources.folder import ImageFiles, check_split, locate
from paka.sources.listing import FolderFiles

SUFFIXES = (".jpeg", ".jpg")


class ImageNet(ImageFiles):
    """The images of `root/{split}` or of the published tars, by class (tagged by it) or flat (without tags)."""

    def __init__(
        self,
        split: str,
        *,
        root: str | os.PathLike[str],
        classes: Sequence[str] | str | os.PathLike[str] | None = None,
    ) -> None:
        """List the images of one split.

        Args:
            split: `train`, `val` or `test`.
            root: Folder with `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG` or `val/*.JPEG`, or with the published
                `ILSVRC2012_img_{split}.tar`, that of train a tar of tars; they are read in place.
            classes: Only images of these classes, by wnid (`n01440764`): a list, or a text file with one wnid at the
                start of each line, as ImageNet-100 is given; None for all.

        Raises:
            FileNotFoundError: The root or the split is missing, or has no images.
            ValueError: The split is unknown, only some of its images are in class folders, or a class has none.
        """
        files = _split_files(Path(root).expanduser(), check_split(split))
        super().__init__(
            split, files=files if classes is None else _of_classes(files, classes), name="imagenet"
        )
        wnids = [name.partition(b"/")[0] for name in self.files.names if b"/" in name]
        if 0 < len(wnids) < len(self):
            raise ValueError(
                f"{len(self) - len(wnids)} of {len(self)} images lie directly in {files.root}, the others "
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


def _split_files(root: Path, split: str) -> Files:
    tar = root / f"ILSVRC2012_img_{split}.tar"
    if tar.is_file() and not (root / split).is_dir():
        return TarFiles([tar], SUFFIXES)
    return FolderFiles(locate(root, split), SUFFIXES)


def _of_classes(files: Files, classes: Sequence[str] | str | os.PathLike[str]) -> Files:
    wnids = [os.fsencode(wnid) for wnid in _read_classes(classes)]
    found = np.array([name.partition(b"/")[0] for name in files.names], np.bytes_)
    missing = sorted({*wnids} - {*found.tolist()})
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(wnids)} classes have no images in {files.root}, {os.fsdecode(missing[0])} the first of "
            "them: expected wnids like n01440764; correct data.classes"
        )
    return Chosen(files, np.flatnonzero(np.isin(found, wnids)))


def _read_classes(classes: Sequence[str] | str | os.PathLike[str]) -> list[str]:
    if not isinstance(classes, str | os.PathLike):
        return [*classes]
    path = Path(classes).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a text file of classes at {path}, found no such file: correct data.classes"
        )
    return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
