"""Files below a folder, listed once: a cached index remembers every folder until its time of change differs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paka.sources.cache import index_path, load_arrays, save_arrays

SMALLEST_INDEX = 1000
"""Files from which on a listing is worth keeping."""

UNSETTLED = 2_000_000_000
"""Nanoseconds in which a folder may change again without another time of change, on coarse file systems."""


class Index(NamedTuple):
    """What is known of the files below a folder.

    Attributes:
        names: Paths relative to the folder, (n,) bytes, sorted.
        sizes: Bytes, (n,) int64.
        modified: Times of change in nanoseconds, (n,) int64.
        place: Which folder each file is in, (n,) int64.
        folders: Folders relative to the top, (f,) bytes; the top itself is empty.
        changed: Their times of change when they were listed, (f,) int64; 0 for those that may still have changed.
    """

    names: NDArray[np.bytes_]
    sizes: NDArray[np.int64]
    modified: NDArray[np.int64]
    place: NDArray[np.int64]
    folders: NDArray[np.bytes_]
    changed: NDArray[np.int64]


class FolderFiles:
    """Files below a folder with certain endings; see `paka.sources.files.Files`.

    Hidden files and folders are left out: archives made on other systems bring hidden companions of the same ending. So
    are links that lead nowhere. Links to folders are followed, unless they lead back to a folder they are in.

    Args:
        root: Where to search, with all folders below.
        suffixes: Endings to take, in lower case; matched in any case.
    """

    def __init__(self, root: Path, suffixes: tuple[str, ...]) -> None:
        self.root = root
        path = index_path(root.resolve().as_posix(), *suffixes)
        known = load_arrays(path, Index._fields)
        old = None if known is None else Index(**known)  # type: ignore[arg-type]
        index = _refresh(root, tuple(suffix.encode() for suffix in suffixes), old)
        if index is not old and len(index.names) >= SMALLEST_INDEX:
            save_arrays(path, index._asdict())
        self.names, self.sizes = index.names, index.sizes

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.names)

    def path(self, index: int) -> Path:
        """Return the path of file `index`."""
        return self.root / os.fsdecode(self.names[index])

    def read(self, index: int) -> bytes:
        """Return the content of file `index`.

        Raises:
            FileNotFoundError: It cannot be opened.
        """
        path = self.path(index)
        try:
            return path.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise FileNotFoundError(
                f"cannot open {self.item(index)}, expected to be a readable file: {reason}; restore it or its folder"
            ) from error

    def item(self, index: int) -> str:
        """Return the path of file `index`, as it can be printed."""
        return os.fsencode(self.path(index)).decode(errors="backslashreplace")


def list_files(folder: Path, suffixes: tuple[str, ...]) -> NDArray[np.bytes_]:
    """Return the files below a folder that have one of the endings, (n,) paths relative to it, sorted byte by byte."""
    return FolderFiles(folder, suffixes).names


class _Folder(NamedTuple):
    """A folder as it is now: its time of change, and its files as (path, size, time of change) where it was listed."""

    name: bytes
    changed: int
    files: list[tuple[bytes, int, int]] | None


def _refresh(root: Path, suffixes: tuple[bytes, ...], old: Index | None) -> Index:
    """Return the index of `root`: the old one itself if no folder changed."""
    now = time.time_ns()
    found = list(_walk(os.fsencode(root), suffixes, old))
    if old is not None and len(found) == len(old.folders) and all(one.files is None for one in found):
        return old
    kept = {one.name: place for place, one in enumerate(found) if one.files is None}
    files = [(*file, place) for place, one in enumerate(found) for file in one.files or ()]
    names, sizes, modified, places = (
        ([*column] for column in zip(*files, strict=True)) if files else ([],) * 4
    )
    if old is not None:
        moved = np.array([kept.get(folder, -1) for folder in old.folders.tolist()])[old.place]
        stays = moved >= 0
        names, sizes = [*names, *old.names[stays].tolist()], [*sizes, *old.sizes[stays].tolist()]
        modified, places = [*modified, *old.modified[stays].tolist()], [*places, *moved[stays].tolist()]
    order = np.argsort(np.array(names, np.bytes_), kind="stable")
    return Index(
        names=np.array(names, np.bytes_)[order],
        sizes=np.array(sizes, np.int64)[order],
        modified=np.array(modified, np.int64)[order],
        place=np.array(places, np.int64)[order],
        folders=np.array([one.name for one in found], np.bytes_),
        changed=np.array([one.changed if one.changed + UNSETTLED < now else 0 for one in found], np.int64),
    )


def _walk(root: bytes, suffixes: tuple[bytes, ...], old: Index | None) -> Iterator[_Folder]:
    """Yield all folders from the top down; those that did not change are not listed again."""
    changed, below = _remembered(old)
    waiting: list[tuple[bytes, frozenset[tuple[int, int]]]] = [(b"", frozenset())]
    while waiting:
        name, above = waiting.pop()
        state = os.stat(root + b"/" + name)  # noqa: PTH116 - the name is bytes, and may be no text
        identity = (state.st_dev, state.st_ino)
        if identity in above:
            continue
        if changed.get(name) == state.st_mtime_ns:
            folders = below.get(name, [])
            yield _Folder(name, state.st_mtime_ns, None)
        else:
            folders, files = _list(root, name, suffixes)
            yield _Folder(name, state.st_mtime_ns, files)
        waiting += [(folder, above | {identity}) for folder in folders]


def _remembered(old: Index | None) -> tuple[dict[bytes, int], dict[bytes, list[bytes]]]:
    """Return the time of change of each known folder, and the folders in each."""
    if old is None:
        return {}, {}
    folders: list[bytes] = old.folders.tolist()
    below: dict[bytes, list[bytes]] = {}
    for folder in filter(None, folders):
        below.setdefault(folder.rpartition(b"/")[0], []).append(folder)
    return dict(zip(folders, old.changed.tolist(), strict=True)), below


def _list(
    root: bytes, folder: bytes, suffixes: tuple[bytes, ...]
) -> tuple[list[bytes], list[tuple[bytes, int, int]]]:
    """Return the folders and the files directly in a folder."""
    folders, files = [], []
    prefix = folder + b"/" if folder else b""
    with os.scandir(root + b"/" + folder) as entries:
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            with contextlib.suppress(OSError):  # a link to itself
                if entry.is_dir():
                    folders.append(prefix + entry.name)
                elif entry.name.lower().endswith(suffixes) and entry.is_file():
                    state = entry.stat()
                    files.append((prefix + entry.name, state.st_size, state.st_mtime_ns))
    return folders, files
