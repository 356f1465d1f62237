"""Folders of images, with masks or without: the source for one's own data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paka.sources import VOID, Source
from paka.sources.archive import open_files
from paka.sources.decode import IMAGE_SUFFIXES, decode_image, image_size, read_mask
from paka.sources.files import Files
from paka.sources.listing import list_files

SPLITS = ("train", "val", "test")


class ImageFiles(Source):
    """Image files without labels, wherever they lie.

    Attributes:
        files: The files; image i is file i.
    """

    def __init__(self, split: str, *, files: Files, name: str, oriented: bool = False) -> None:
        """Take every file as an image.

        Args:
            split: Name of the split, in the data set's own words.
            files: The files.
            name: Name of the data set, as reports print it.
            oriented: Whether images are turned as their EXIF orientation says.

        Raises:
            FileNotFoundError: There is no file.
        """
        self.split, self.name, self.files, self.oriented = split, name, files, oriented
        if not len(files):
            raise FileNotFoundError(
                f"{files.root} holds no images: expected files of the kinds {' '.join(IMAGE_SUFFIXES)}, found none; "
                f"put the {split} images of {name} there or set root to where they are"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def item(self, index: int) -> str:
        """Return where image `index` is, as it can be printed."""
        return self.files.item(index)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index` as RGB, (H, W, 3) uint8.

        Raises:
            FileNotFoundError: The file cannot be opened.
            ValueError: The file is truncated, corrupt or not an image.
        """
        return decode_image(self.files.read(index), self.item(index), oriented=self.oriented)


class Folder(ImageFiles):
    """Images below `root/images/{split}`, and masks of the same names below `root/masks/{split}` if there.

    Without `root/images`, all images below `root` are the unlabelled split `train`; so are those in an archive. Images are
    turned as their EXIF orientation says, unless they have masks. A mask is a PNG of one 8-bit channel with the relative path of its image but for the ending: class ids,
    255 for void. Masks are opened by `mask` and by an inferred `classes` only, never to read images.
    """

    def __init__(
        self,
        split: str,
        *,
        root: str | os.PathLike[str],
        name: str = "folder",
        classes: Sequence[str] | None = None,
    ) -> None:
        """List the images and masks of one split.

        Args:
            split: `train`, `val` or `test`; the other splits need not exist.
            root: Folder with `images/{split}` and, if labelled, `masks/{split}`; or any folder or archive of images.
            name: Name of the data set, as reports print it.
            classes: Names of the classes in order of their ids; None names them "0", "1", ... up to the
                largest id in the masks of any split.

        Raises:
            FileNotFoundError: The root or the split is missing, or has no images.
            ValueError: The split is unknown, or masks and images do not match one to one.
        """
        root = Path(root).expanduser()
        self._mask_folder = root / "masks" / split
        labelled = self._mask_folder.is_dir()
        files = open_files(_images(root, check_split(split)), IMAGE_SUFFIXES)
        super().__init__(split, files=files, name=name, oriented=not labelled)
        self._names = tuple(classes) if classes else None
        self._masks: NDArray[np.bytes_] | None = None
        if labelled:
            self._masks = _pair_masks(
                self.files.names, list_files(self._mask_folder, (".png",)), self._mask_folder
            )

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask classes; empty without masks. Inferring them opens every mask once."""
        if self._masks is None:
            return ()
        if self._names is not None:
            return self._names
        return tuple(str(i) for i in range(_count_classes(self._mask_folder.parent)))

    def label_item(self, index: int) -> str:
        """Return the path of the mask of image `index`; empty without masks."""
        return "" if self._masks is None else os.fsdecode(self._mask_folder / os.fsdecode(self._masks[index]))

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the class ids of image `index`, (H, W) uint8 with 255 for void.

        Raises:
            LookupError: The split has no masks.
            ValueError: The mask cannot be read, has another size than its image, or an id of no class.
        """
        if self._masks is None:
            raise LookupError(
                f"the {self.split} images of {self.name} have no masks: expected them in "
                f"{self._mask_folder}, which does not exist; add them, or use a labelled source as benchmark"
            )
        path = Path(self.label_item(index))
        mask = read_mask(path)
        check_size(mask, path, self.files.root / os.fsdecode(self.files.names[index]))
        _check_ids(mask, path, len(self.classes))
        return mask


def _images(root: Path, split: str) -> Path:
    """Return where the images of a split are: the root itself if it is no tree of splits."""
    if split == "train" and root.exists() and not (root / "images").is_dir():
        return root
    return locate(root, f"images/{split}")


def check_split(split: str, known: Sequence[str] = SPLITS) -> str:
    """Return `split` if it is a known one.

    Raises:
        ValueError: It is not.
    """
    if split not in known:
        raise ValueError(f"split must be one of {', '.join(known)}, but {split!r} came; choose one of them")
    return split


def locate(root: str | os.PathLike[str], *candidates: str) -> Path:
    """Return the first of the `candidates`, paths relative to `root`, that is a folder.

    Raises:
        FileNotFoundError: The root is no folder, or has none of the candidates.
    """
    root = Path(root).expanduser()
    expected = " or ".join(f"{candidate}/" for candidate in candidates)
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(
            f"data root {root} {state}: expected a folder with {expected} in it; set root to that folder"
        )
    for candidate in candidates:
        if (root / candidate).is_dir():
            return root / candidate
    parent = (root / candidates[-1]).parent
    there = parent if parent.is_dir() else root
    raise FileNotFoundError(
        f"data root {root} has no {expected}: found {_preview([entry.name for entry in there.iterdir()])} in {there}; "
        f"add the folder, choose another split or set root to the folder that has it"
    )


def _pair_masks(images: NDArray[np.bytes_], masks: NDArray[np.bytes_], folder: Path) -> NDArray[np.bytes_]:
    """Return the mask file of every image, (n,), both given as paths relative to their folders."""
    mask_of = {_stem(mask): mask for mask in masks}
    stems = [_stem(image) for image in images]
    bare = [image for image, stem in zip(images, stems, strict=True) if stem not in mask_of]
    if bare:
        wanted = os.fsdecode(_stem(bare[0]) + b".png")
        raise ValueError(
            f"{len(bare)} of {len(images)} images have no mask in {folder} ({_preview(bare)}): expected "
            f"{wanted} there for the first; add the masks, or move the folder away to go unlabelled"
        )
    orphans = [mask_of[stem] for stem in sorted(set(mask_of) - set(stems))]
    if orphans:
        raise ValueError(
            f"{len(orphans)} of {len(masks)} masks in {folder} belong to no image ({_preview(orphans)}): "
            "expected one image of the same name for each; remove the masks or add the images"
        )
    return np.array([mask_of[stem] for stem in stems], np.bytes_)


def _count_classes(folder: Path) -> int:
    """Return one more than the largest class id in the masks of all splits, so that they agree."""
    folders = [folder / split for split in SPLITS if (folder / split).is_dir()]
    masks = [path / os.fsdecode(file) for path in folders for file in list_files(path, (".png",))]
    count = 1 + max(map(_largest_stored, masks), default=-1)
    if not count:
        for mask in masks:
            read_mask(mask)  # a broken one says so itself
        raise ValueError(
            f"the {len(masks)} masks in {folder} hold no class: expected ids from 0 up, "
            f"found {VOID} (void) only; label some pixels or move the folder away"
        )
    return count


def _largest_stored(path: Path) -> int:
    try:
        return _largest_id(read_mask(path))
    except (ValueError, FileNotFoundError):  # refused by name when it is read as the mask of its image
        return -1


def _largest_id(mask: NDArray[np.uint8]) -> int:
    ids = mask[mask != VOID]
    return int(ids.max()) if ids.size else -1


def check_size(mask: NDArray[np.uint8], path: Path, image: Path) -> None:
    """Raise unless a mask has the size of its image.

    Raises:
        ValueError: It has not.
    """
    height, width = image_size(image)
    if mask.shape != (height, width):
        raise ValueError(
            f"mask {path} is {mask.shape[1]}x{mask.shape[0]} pixels (width x height), but its image {image} "
            f"is {width}x{height}: expected the same size; resize the mask without interpolation"
        )


def _check_ids(mask: NDArray[np.uint8], path: Path, classes: int) -> None:
    largest = _largest_id(mask)
    if largest >= classes:
        row, column = np.argwhere(mask == largest)[0]
        raise ValueError(
            f"mask {path} has class id {largest} (row {row}, column {column}), but the {classes} classes "
            f"allow ids 0 to {classes - 1}, and {VOID} for void; correct the mask or name more classes"
        )


def _stem(path: bytes) -> bytes:
    """Return a relative path without its ending."""
    return os.fsencode(Path(os.fsdecode(path)).with_suffix(""))


def _preview(names: Iterable[bytes | str]) -> str:
    """Return the first three names in order, and that there are more if there are."""
    ordered = sorted(os.fsdecode(name) for name in names)
    return ", ".join(ordered[:3] + ["..."] * (len(ordered) > 3)) or "nothing"
