"""Data sets whose files are given by name, as their owners lay them out: images, and one label file for each."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paka import colours
from paka.sources import VOID, Source
from paka.sources.decode import read_image, read_mask
from paka.sources.folder import check_size
from paka.sources.listing import list_files

logger = logging.getLogger(__name__)

NO_CLASS = 254
"""Entry of a table for stored ids that the data set does not define."""


class Legend(NamedTuple):
    """What the stored ids of masks mean.

    Attributes:
        names: Names of the classes, in order of their ids.
        table: Class id of each stored id, (256,) uint8; see `id_table`.
        palette: Colour of each class, (C, 3) uint8 RGB; None draws distinct ones.
    """

    names: tuple[str, ...]
    table: NDArray[np.uint8]
    palette: NDArray[np.uint8] | None = None


class NamedImages(Source):
    """Images given by name; that all are there is checked at once.

    Attributes:
        root: Folder that the names are relative to.
        images: Image files, (n,) bytes.
    """

    def __init__(
        self, split: str, *, name: str, root: Path, images: NDArray[np.bytes_], published: int | None = None
    ) -> None:
        """Take the images in their order; a count other than the published one is logged as a warning.

        Args:
            split: Name of the split, in the data set's own words.
            name: Name of the data set, as reports print it.
            root: Folder that the names are relative to.
            images: Image files, (n,) bytes.
            published: Number of images that the owners published.

        Raises:
            FileNotFoundError: There are no images, or one of them is missing.
        """
        self.split, self.name, self.root, self.images = split, name, root, images
        if not len(images):
            message = (
                f"{name} {split} has no images in {root}: expected at least one; unpack its images there"
            )
            raise FileNotFoundError(message)
        _require(root, images, f"{name} {split} images")
        if published not in (None, len(images)):
            logger.warning(
                "%s %s holds %d images, but %d were published", name, split, len(images), published
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def path(self, index: int) -> Path:
        """Return the path of image `index`."""
        return self.root / os.fsdecode(self.images[index])

    def item(self, index: int) -> str:
        """Return the path of image `index`, as it can be printed."""
        return os.fsencode(self.path(index)).decode(errors="backslashreplace")

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index` as RGB, (H, W, 3) uint8.

        Raises:
            ValueError: The file is truncated, corrupt or not an image.
        """
        return read_image(self.path(index))


class PairedImages(NamedImages):
    """Images with one label file each, both given by name.

    Attributes:
        labels: Label file of each image, (n,) bytes.
    """

    def __init__(
        self,
        split: str,
        *,
        name: str,
        root: Path,
        images: NDArray[np.bytes_],
        labels: NDArray[np.bytes_],
        published: int | None = None,
    ) -> None:
        """Pair images and labels; see `NamedImages`.

        Args:
            split: Name of the split, in the data set's own words.
            name: Name of the data set, as reports print it.
            root: Folder that the names are relative to.
            images: Image files, (n,) bytes.
            labels: Label file of each image, (n,) bytes, in the same order.
            published: Number of images that the owners published.

        Raises:
            FileNotFoundError: There are no images, or one of the files is missing.
        """
        super().__init__(split, name=name, root=root, images=images, published=published)
        self.labels = labels
        _require(root, labels, f"{name} {split} label files")

    def label_path(self, index: int) -> Path:
        """Return the path of the labels of image `index`."""
        return self.root / os.fsdecode(self.labels[index])

    def label_item(self, index: int) -> str:
        """Return the path of the labels of image `index`."""
        return os.fsdecode(self.label_path(index))


class LabelledImages(PairedImages):
    """Images with one mask each, whose stored ids a legend turns into class ids."""

    def __init__(
        self,
        split: str,
        *,
        name: str,
        root: Path,
        images: NDArray[np.bytes_],
        masks: NDArray[np.bytes_],
        legend: Legend,
        published: int | None = None,
    ) -> None:
        """Pair images and masks; see `PairedImages`.

        Raises:
            FileNotFoundError: There are no images, or one of the files is missing.
        """
        super().__init__(split, name=name, root=root, images=images, labels=masks, published=published)
        self.legend = legend

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask classes, in order of their ids."""
        return self.legend.names

    @property
    def palette(self) -> NDArray[np.uint8]:
        """Colours of the mask classes, (C, 3) uint8 RGB."""
        palette = self.legend.palette
        return colours.palette(len(self.classes)) if palette is None else palette

    def stored(self, index: int) -> NDArray[np.uint8]:
        """Return the ids of image `index` as its mask stores them, (H, W) uint8.

        Raises:
            ValueError: The mask is not a whole PNG of one 8-bit channel.
        """
        return read_mask(self.label_path(index))

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the class ids of image `index`, (H, W) uint8 with 255 for void.

        Raises:
            ValueError: The mask cannot be read, has another size than its image, or an id of no class.
        """
        stored, path = self.stored(index), self.label_path(index)
        check_size(stored, path, self.path(index))
        ids = self.legend.table[stored]
        unknown = np.argwhere(ids == NO_CLASS)
        if len(unknown):
            row, column = unknown[0]
            known = np.flatnonzero(self.legend.table != NO_CLASS)
            raise ValueError(
                f"mask {path} has id {stored[row, column]} (row {row}, column {column}), which is no class of "
                f"{self.name}: expected ids out of {_ranges(known)}; correct the mask or use that of the owners"
            )
        return ids


def id_table(classes: Mapping[int, int], *, void: Iterable[int] = ()) -> NDArray[np.uint8]:
    """Return the class id of each stored id, (256,) uint8: 255 for void, 254 for ids that are not defined.

    Args:
        classes: Class id by stored id.
        void: Stored ids, besides 255, of pixels that belong to no class.
    """
    table = np.full(256, NO_CLASS, dtype=np.uint8)
    table[[*void, VOID]] = VOID
    table[list(classes)] = list(classes.values())
    return table


def choose(classes: int, known: Sequence[int], name: str) -> int:
    """Return `classes` if the data set has a convention with that number of classes.

    Raises:
        ValueError: It has none.
    """
    if classes not in known:
        numbers = " or ".join(map(str, known))
        raise ValueError(f"classes of {name} must be {numbers}, but {classes!r} came; choose one of them")
    return classes


def name_list(text: str) -> tuple[str, ...]:
    """Return the names that a text has between commas, over any number of lines."""
    return tuple(" ".join(text.split()).split(", "))


def hex_palette(text: str) -> NDArray[np.uint8]:
    """Return colours written as six hexadecimal digits each, (C, 3) uint8 RGB."""
    return np.frombuffer(bytes.fromhex(text), dtype=np.uint8).reshape(-1, 3)


def stems(folder: Path, ending: str) -> list[str]:
    """Return the files below a folder that end in `ending`, in lower case, sorted, without it."""
    return [os.fsdecode(file)[: -len(ending)] for file in list_files(folder, (ending,))]


def files_in(folder: Path) -> set[bytes]:
    """Return the names of what is in a folder; empty if it does not exist."""
    if not folder.is_dir():
        return set()
    with os.scandir(os.fsencode(folder)) as entries:
        return {entry.name for entry in entries}


def read_list(path: Path, *, name: str) -> list[str]:
    """Return the images that a list of a split names, one a line, without folder and ending.

    Raises:
        FileNotFoundError: There is no such list.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{name} has no list {path}: expected the names of the images of its split there, one a line; "
            "add the list or choose another split"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Path(line.split()[0]).stem for line in lines if line.strip()]


def under(root: Path, folder: Path, names: Iterable[str], ending: str = "") -> NDArray[np.bytes_]:
    """Return `folder/name` and the ending for each name, (n,) bytes, relative to `root` where they lie below."""
    inside = folder.relative_to(root) if folder.is_relative_to(root) else folder.absolute()
    return np.array([os.fsencode(f"{inside.as_posix()}/{name}{ending}") for name in names], np.bytes_)


def _require(root: Path, files: NDArray[np.bytes_], what: str) -> None:
    """Raise if a file is missing; each folder is listed once, as looking up files one by one is slow."""
    folders: dict[bytes, set[bytes]] = {}
    missing = []
    for file in files:
        folder, _, name = file.rpartition(b"/")
        if folder not in folders:
            folders[folder] = files_in(root / os.fsdecode(folder))
        if name not in folders[folder]:
            missing.append(file)
    if missing:
        first = root / os.fsdecode(missing[0])
        state = "" if first.parent.is_dir() else ", a folder that does not exist"
        raise FileNotFoundError(
            f"{len(missing)} of {len(files)} {what} are missing: expected {first.name} in {first.parent}{state}; "
            "unpack the files of the owners again, or correct the list that names it"
        )


def _ranges(ids: NDArray[np.intp]) -> str:
    runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
