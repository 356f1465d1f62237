"""Videos as folders of frames, with masks of objects for all frames or for some: the source for one's own videos."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paka.sources import VOID
from paka.sources.decode import IMAGE_SUFFIXES, image_size, read_mask
from paka.sources.folder import check_size, check_split, locate
from paka.sources.labelled import NamedImages, under
from paka.sources.listing import list_files
from paka.sources.voc import voc_palette


class Video(NamedTuple):
    """The files of one video.

    Attributes:
        frames: Image files in the order of time.
        masks: Mask files by the image file that they belong to.
    """

    frames: list[str]
    masks: Mapping[str, str]


class Videos(NamedImages):
    """Frames of videos, one video after another, with masks that hold the numbers of objects.

    A mask is a PNG of one 8-bit channel or of a palette: 0 around the objects, 1 to 254 for the objects, the same
    through a video, 255 for void. The first frame of each video has one: it shows what is to be followed. Of a frame without
    one nothing is known, and what `mask` returns is void everywhere.

    Attributes:
        masks: Mask file of each image, (n,) bytes; empty for images without.
    """

    def __init__(
        self,
        split: str,
        *,
        name: str,
        root: Path,
        folders: tuple[Path, Path],
        videos: Sequence[Video],
        published: int | None = None,
    ) -> None:
        """Take the videos in their order.

        Args:
            split: Name of the split, in the data set's own words.
            name: Name of the data set, as reports print it.
            root: Folder of the data set.
            folders: Folders that the names of frames and of masks are relative to.
            videos: The videos.
            published: Number of frames that the owners published.

        Raises:
            FileNotFoundError: There are no frames, or the first frame of a video has no mask.
        """
        frames = [frame for video in videos for frame in video.frames]
        masks = [video.masks.get(frame, "") for video in videos for frame in video.frames]
        super().__init__(
            split, name=name, root=root, images=under(root, folders[0], frames), published=published
        )
        files = under(root, folders[1], masks)
        self.masks = np.where(np.array(masks) != "", files, b"")
        stops = np.cumsum([len(video.frames) for video in videos]).tolist()
        self._videos = tuple(map(range, [0, *stops[:-1]], stops))
        self._first = np.repeat([0, *stops[:-1]], [len(video) for video in self._videos])
        for video in self._videos:
            if not self.masks[video.start]:
                raise FileNotFoundError(
                    f"{self.item(video.start)} has no mask: expected that of the first frame of its video below "
                    f"{folders[1]}, to know which objects are followed; add it, or use data=folder without masks"
                )

    @property
    def videos(self) -> tuple[range, ...]:
        """The frames of each video, in the order of time."""
        return self._videos

    @property
    def palette(self) -> NDArray[np.uint8]:
        """Colours of the numbers of objects, (255, 3) uint8 RGB, as DAVIS paints them."""
        return voc_palette(VOID)

    def label_item(self, index: int) -> str:
        """Return the path of the mask of image `index`; empty without one."""
        return os.fsdecode(self.root / os.fsdecode(self.masks[index])) if self.masks[index] else ""

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the numbers of objects in image `index`, (H, W) uint8 with 255 for void; all void without a mask.

        Raises:
            ValueError: The mask cannot be read, it has another size than its frame, or the frame than the first of the
                video; or the first frame shows no object.
        """
        path, first = self.path(index), int(self._first[index])
        size = image_size(path)
        _check_frame(path, size, self.path(first))
        if not self.masks[index]:
            return np.full(size, VOID, dtype=np.uint8)
        file = Path(self.label_item(index))
        mask = read_mask(file)
        check_size(mask, file, path)
        if index == first and not ((mask > 0) & (mask < VOID)).any():
            raise ValueError(
                f"mask {file} of the first frame of a video has no object: expected numbers from 1 to {VOID - 1} of what "
                "is followed; correct it, or begin the video where its objects are seen"
            )
        return mask


class VideoFolder(Videos):
    """Videos below `root/frames`, a folder each, and masks of the same names below `root/masks`."""

    def __init__(self, split: str, *, root: str | os.PathLike[str], name: str = "frames") -> None:
        """List the videos.

        Args:
            split: `all`.
            root: Folder with `frames/VIDEO/*.jpg` or other images, and with `masks/VIDEO/*.png`: that of the first frame
                of each video, and of any others that are to be scored.
            name: Name of the data set, as reports print it.

        Raises:
            FileNotFoundError: A folder is missing, there are no frames, or the first frame of a video has no mask.
            ValueError: The split is unknown, a frame is missing, or a mask belongs to no frame.
        """
        root = Path(root).expanduser()
        check_split(split, ("all",))
        folders = locate(root, "frames"), locate(root, "masks")
        frames, masks = by_folder(folders[0], IMAGE_SUFFIXES), by_folder(folders[1], (".png",))
        videos = [paired(video, (files, masks.pop(video, [])), folders) for video, files in frames.items()]
        if masks:
            video, files = next(iter(masks.items()))
            raise ValueError(
                f"mask {folders[1] / video / files[0]} belongs to no frame: expected frames in {folders[0] / video}; "
                "add them or remove the masks"
            )
        super().__init__(split, name=name, root=root, folders=folders, videos=videos)


def by_folder(root: Path, suffixes: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the names of the files below a folder that have one of the endings, by the folder that they are in."""
    found: dict[str, list[str]] = {}
    for file in list_files(root, suffixes):
        folder, _, name = os.fsdecode(file).rpartition("/")
        found.setdefault(folder, []).append(name)
    return found


def paired(video: str, files: tuple[Sequence[str], Sequence[str]], folders: tuple[Path, Path]) -> Video:
    """Return the frames of a video in the order of time, and their masks.

    Args:
        video: Folder of the video in both of `folders`.
        files: Names of the frames and of the masks in it.
        folders: Where the videos' folders of frames and of masks are.

    Raises:
        ValueError: A frame is missing, or a mask belongs to no frame.
    """
    frames, masks = in_order(files[0], folders[0] / video), {Path(mask).stem: mask for mask in files[1]}
    own = {frame: masks.pop(Path(frame).stem) for frame in frames if Path(frame).stem in masks}
    if masks:
        stem, mask = next(iter(masks.items()))
        raise ValueError(
            f"mask {folders[1] / video / mask} belongs to no frame: expected a frame {stem} in {folders[0] / video}; "
            "add it or remove the mask"
        )
    place = f"{video}/" if video else ""
    return Video(
        [place + frame for frame in frames], {place + frame: place + mask for frame, mask in own.items()}
    )


def in_order(names: Iterable[str], folder: Path) -> list[str]:
    """Return the frames of a video in the order of time.

    It is that of the numbers that the names end in, if all do after the same beginning; they rise evenly then. Else it is that of the names.

    Args:
        names: Files of the frames.
        folder: Where they are, for messages.

    Raises:
        ValueError: A number is missing, or two files are of one frame.
    """
    ordered = sorted(names)
    parts = [re.fullmatch(r"(.*?)([0-9]+)", Path(name).stem) for name in ordered]
    found = [part for part in parts if part]
    if len(found) < len(ordered) or len({part[1] for part in found}) > 1:
        _refuse_twice([Path(name).stem for name in ordered], ordered, folder)
        return ordered
    numbers = [int(part[2]) for part in found]
    order = np.argsort(numbers, kind="stable").tolist()
    ordered, numbers = [ordered[place] for place in order], [numbers[place] for place in order]
    _refuse_twice(numbers, ordered, folder)
    _refuse_gap(numbers, ordered, folder)
    return ordered


def _refuse_twice(frames: Sequence[str | int], names: Sequence[str], folder: Path) -> None:
    for place in range(1, len(names)):
        if frames[place] == frames[place - 1]:
            raise ValueError(
                f"{folder / names[place - 1]} and {names[place]} are the same frame: expected one file for each; remove one"
            )


def _refuse_gap(numbers: Sequence[int], names: Sequence[str], folder: Path) -> None:
    steps = np.diff(numbers)
    uneven = np.flatnonzero(steps != steps.min(initial=np.iinfo(np.int64).max))
    if not len(uneven):
        return
    place, step = int(uneven[0]), int(steps.min())
    before = Path(names[place])
    digits = before.stem[len(before.stem.rstrip("0123456789")) :]
    missing = before.stem.removesuffix(digits) + str(numbers[place] + step).zfill(len(digits)) + before.suffix
    raise ValueError(
        f"{folder / missing} is missing: expected frames whose numbers rise by {step}, got {before.name} and then "
        f"{names[place + 1]}; add it, or number the frames evenly"
    )


def _check_frame(path: Path, size: tuple[int, int], first: Path) -> None:
    expected = image_size(first)
    if size != expected:
        raise ValueError(
            f"frame {path} is {size[1]}x{size[0]} pixels (width x height), but the first of its video, {first}, "
            f"is {expected[1]}x{expected[0]}: expected the same size; resize it"
        )
