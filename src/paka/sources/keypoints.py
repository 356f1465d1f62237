"""Pairs of images with points that both show: any folder of them, with one JSON file of pairs for each split."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paka.sources import KeypointPair
from paka.sources.decode import LONGEST_SIDE, image_size
from paka.sources.folder import check_split, locate
from paka.sources.labelled import NamedImages

CENTRE = 0.5
"""Annotations count pixels from 0 at the top left, where `KeypointPair` has the middle of that pixel."""


class Annotation(NamedTuple):
    """A pair as a file has it, before it is checked.

    Attributes:
        where: File and entry, as messages name it.
        first: Image that the points are given in, by its name.
        second: Image that they are looked for in.
        points: x and y of m points in pixels of the first image.
        targets: Their places in the second.
        box: Left, top, right and bottom of the object in the second image; None measures by the image.
        category: What the pair shows; empty where that is not known.
    """

    where: str
    first: str
    second: str
    points: Any
    targets: Any
    box: Any = None
    category: str = ""


class KeypointFolder(NamedImages):
    """Images below `root/images`, and the pairs of a split in `root/pairs/{split}.json`; its images are those of its pairs.

    The file is a list of `{"source": NAME, "target": NAME, "source_points": [[x, y], ...], "target_points": [[x, y], ...]}`,
    perhaps with `"target_box": [left, top, right, bottom]` and `"category": NAME`. Names are relative to `root/images`;
    pixels are counted from 0 at the top left of the image as it is stored, whatever its EXIF orientation. Distances are
    measured by the longer side of the box, or of the second image where there is none.
    """

    def __init__(self, split: str, *, root: str | os.PathLike[str], name: str = "keypoints") -> None:
        """Read the pairs of one split.

        Args:
            split: `train`, `val` or `test`; the other splits need not exist.
            root: Folder with `images` and `pairs`.
            name: Name of the data set, as reports print it.

        Raises:
            FileNotFoundError: A folder, the file of the split, or an image that it names is missing.
            ValueError: The split is unknown, or the file is no list of at least one pair.
        """
        root = Path(root).expanduser()
        check_split(split)
        folder = locate(root, "images")
        self._entries = _read_list(locate(root, "pairs") / f"{split}.json")
        named: dict[str, str] = {}
        for where, entry in self._entries.items():
            for key in ("source", "target"):
                named.setdefault(text(entry, key, where), where)
        super().__init__(split, name=name, root=folder, images=existing(folder, named))

    @cached_property
    def pairs(self) -> tuple[KeypointPair, ...]:
        """The pairs of the split, in the order of its file.

        Raises:
            ValueError: Points are missing, lie outside their image, or do not go together; or a box is none.
        """
        return checked(
            (
                Annotation(
                    where,
                    entry["source"],
                    entry["target"],
                    field(entry, "source_points", where),
                    field(entry, "target_points", where),
                    entry.get("target_box"),
                    str(entry.get("category", "")),
                )
                for where, entry in self._entries.items()
            ),
            self,
        )


def _read_list(path: Path) -> dict[str, Any]:
    """Return the entries of a file of pairs, by what messages call them."""
    content = read_json(path)
    if not isinstance(content, list) or not content:
        came = "an empty list" if content == [] else f"a {type(content).__name__}"
        raise ValueError(f"{path}: expected a list of at least one pair, got {came}; add pairs")
    return {f"{path}, entry {place}": entry for place, entry in enumerate(content)}


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        FileNotFoundError: It cannot be opened.
        ValueError: It is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"cannot open {path}, expected the pairs of a split: {error.strerror}; add it or choose another split"
        raise FileNotFoundError(message) from error
    except ValueError as error:  # of JSON, or of UTF-8
        raise ValueError(f"cannot read {path}, expected JSON: {error}; correct or restore it") from error


def field(entry: Any, key: str, where: str) -> Any:
    """Return what an entry has under a key.

    Raises:
        ValueError: It has nothing there.
    """
    if not isinstance(entry, dict) or key not in entry:
        raise ValueError(f"{where}: expected {key}, got none; add it")
    return entry[key]


def text(entry: Any, key: str, where: str) -> str:
    """Return the name that an entry has under a key.

    Raises:
        ValueError: It has none.
    """
    value = field(entry, key, where)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: expected a name as {key}, got {value!r:.60}; correct it")
    return value


def existing(folder: Path, named: Mapping[str, str]) -> NDArray[np.bytes_]:
    """Return names of images as `NamedImages` has them, (n,) bytes.

    Args:
        folder: What they are relative to.
        named: What names each first, by image.

    Raises:
        FileNotFoundError: One of them is missing.
    """
    for image, where in named.items():
        if not (folder / image).is_file():
            raise FileNotFoundError(
                f"{where}: expected its image {image} in {folder}, got none there; add it or correct the name"
            )
    return np.array([os.fsencode(image) for image in named], np.bytes_)


def checked(annotations: Iterable[Annotation], images: NamedImages) -> tuple[KeypointPair, ...]:
    """Return the pairs that annotations describe.

    Args:
        annotations: Pairs of the images by name.
        images: The images; only their headers are read.

    Raises:
        ValueError: Points are no points, lie outside their image, or do not go together; or a box is none.
    """
    number = {os.fsdecode(image): index for index, image in enumerate(images.images.tolist())}

    @cache
    def size(name: str) -> tuple[int, int]:
        return image_size(images.path(number[name]))

    return tuple(_pair(one, number, size(one.first), size(one.second)) for one in annotations)


def _pair(
    one: Annotation, number: Mapping[str, int], first: tuple[int, int], second: tuple[int, int]
) -> KeypointPair:
    points = _points(one.points, f"{one.where}: expected points of {one.first}", first)
    targets = _points(one.targets, f"{one.where}: expected points of {one.second}", second)
    if len(points) != len(targets):
        raise ValueError(
            f"{one.where}: expected as many points in both images, got {len(points)} and {len(targets)}; correct it"
        )
    extent = float(max(second)) if one.box is None else _longer_side(one.box, one.where)
    return KeypointPair(number[one.first], number[one.second], points, targets, extent, one.category)


def _points(value: Any, expected: str, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return points (m, 2) float32 of an image of some height and width; `expected` begins the message."""
    height, width = size
    if max(size) > LONGEST_SIDE:
        raise ValueError(
            f"{expected}, an image of up to {LONGEST_SIDE} pixels, got {width}x{height}: shrink both"
        )
    stored = _numbers(value)
    if stored is None or stored.ndim != 2 or stored.shape[1] != 2 or not len(stored):
        raise ValueError(f"{expected} as a list of at least one [x, y], got {value!r:.60}; correct it")
    outside = ~((stored >= 0) & (stored <= (width, height))).all(axis=1)
    if outside.any():
        place = int(np.flatnonzero(outside)[0])
        x, y = stored[place].tolist()
        raise ValueError(
            f"{expected} inside its {width}x{height} pixels (width x height), got ({x:g}, {y:g}) as point {place}; "
            "correct or remove it"
        )
    return (stored + CENTRE).astype(np.float32)


def _longer_side(box: Any, where: str) -> float:
    sides = _numbers(box)
    if sides is None or sides.shape != (4,) or not (sides[2:] > sides[:2]).all():
        raise ValueError(
            f"{where}: expected a box [left, top, right, bottom] with right above left and bottom above top, "
            f"got {box!r:.60}; correct it"
        )
    return float((sides[2:] - sides[:2]).max())


def _numbers(value: Any) -> NDArray[np.float64] | None:
    """Return finite numbers as an array, or None if they are none."""
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return numbers if np.isfinite(numbers).all() else None
