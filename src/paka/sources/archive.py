"""Files inside archives, read in place: nothing is unpacked, so nothing can be written where it should not be."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paka.sources.cache import index_path, load_arrays, save_arrays
from paka.sources.files import Files
from paka.sources.listing import FolderFiles

LARGEST_MEMBER = 1 << 30
"""Bytes of one file above which a zip is taken for a decompression bomb."""

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def open_files(root: Path, suffixes: tuple[str, ...]) -> Files:
    """Return the files below a folder, or inside a `.zip` or `.tar`.

    Args:
        root: The folder or archive.
        suffixes: Endings of the files to take, in lower case; matched in any case.

    Raises:
        ValueError: The archive is damaged or of a kind that cannot be read in place.
    """
    if root.is_dir():
        return FolderFiles(root, suffixes)
    name = root.name.lower()
    if name.endswith(".zip"):
        return ZipFiles(root, suffixes)
    if name.endswith(".tar"):
        return TarFiles([root], suffixes)
    reason = "a compressed tar cannot be read in place; decompress it" if name.endswith(COMPRESSED) else ""
    raise ValueError(
        f"expected a folder, a .zip or a .tar of images, got {root}: {reason or 'choose one of them'}"
    )


class TarFiles:
    """Files inside uncompressed tars, see `paka.sources.files.Files`; tars inside them are entered.

    The headers are read once, the places of the files kept in an index; then a file is one seek and one read.

    Args:
        paths: The tars, all in one folder. The names of files begin with that of their tar if there are several, and with the
            name of a tar in the tar, less its ending.
        suffixes: Endings of the files to take, in lower case; matched in any case.

    Raises:
        FileNotFoundError: A tar cannot be opened.
        ValueError: A tar is damaged, or compressed.
    """

    def __init__(self, paths: Sequence[Path], suffixes: tuple[str, ...]) -> None:
        self.paths = tuple(paths)
        self.root = self.paths[0] if len(self.paths) == 1 else self.paths[0].parent
        indices = [_tar_index(path, suffixes) for path in self.paths]
        lead = [b"" if len(self.paths) == 1 else os.fsencode(path.name) + b"/" for path in self.paths]
        names = [
            first + name for first, index in zip(lead, indices, strict=True) for name in index.names.tolist()
        ]
        order = np.argsort(np.array(names, np.bytes_), kind="stable")
        self.names = np.array(names, np.bytes_)[order]
        self.sizes = np.concatenate([index.sizes for index in indices])[order]
        self.offsets = np.concatenate([index.offsets for index in indices])[order]
        self.tar = np.repeat(np.arange(len(indices)), [len(index.names) for index in indices])[order]

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Return the content of file `index`.

        Raises:
            FileNotFoundError: Its tar cannot be opened.
            ValueError: Its tar ends before it.
        """
        with _open(self.paths[self.tar[index]]) as file:
            file.seek(int(self.offsets[index]))
            data = file.read(int(self.sizes[index]))
        if len(data) < self.sizes[index]:
            raise ValueError(
                f"{self.item(index)} is cut off: expected a whole tar; copy or download it again"
            )
        return data

    def item(self, index: int) -> str:
        """Return where file `index` is, as it can be printed."""
        return _item(self.root, self.names[index])


class ZipFiles:
    """Files inside a zip, see `paka.sources.files.Files`.

    Args:
        path: The zip.
        suffixes: Endings of the files to take, in lower case; matched in any case.

    Raises:
        FileNotFoundError: The zip cannot be opened.
        ValueError: The zip is damaged, or a file in it is encrypted, too large, or named to lie outside.
    """

    def __init__(self, path: Path, suffixes: tuple[str, ...]) -> None:
        self.root = path
        self.opened: tuple[int, zipfile.ZipFile] | None = None
        members = [
            member
            for member in self._zip().infolist()
            if _wanted(member.filename, suffixes) and not member.is_dir()
        ]
        for member in members:
            _check_member(path, member)
        members.sort(key=lambda member: os.fsencode(member.filename))
        self.names = np.array([os.fsencode(member.filename) for member in members], np.bytes_)
        self.sizes = np.array([member.file_size for member in members], np.int64)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open zip behind."""
        return {**self.__dict__, "opened": None}

    def _zip(self) -> zipfile.ZipFile:
        """Return the zip as this process has opened it: one that is forked would share its place with its parent."""
        if self.opened is None or self.opened[0] != os.getpid():
            self.opened = (os.getpid(), self._open())
        return self.opened[1]

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.root)
        except OSError as error:
            raise FileNotFoundError(
                f"cannot open {self.root}: {error.strerror or error}; restore it"
            ) from error
        except zipfile.BadZipFile as error:
            message = f"{self.root} is damaged: expected a whole zip, got: {error}; download it again"
            raise ValueError(message) from error

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Return the content of file `index`.

        Raises:
            FileNotFoundError: The zip cannot be opened.
            ValueError: It is damaged there.
        """
        name = os.fsdecode(self.names[index])
        try:
            content = self._zip().read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError) as error:
            message = (
                f"{self.item(index)} cannot be read: expected a whole zip, got: {error}; download it again"
            )
            raise ValueError(message) from error
        return content

    def item(self, index: int) -> str:
        """Return where file `index` is, as it can be printed."""
        return _item(self.root, self.names[index])


class _TarIndex(NamedTuple):
    """Names, offsets and sizes of the files in a tar, and the tar's own size and time of change, (2,) int64."""

    names: NDArray[np.bytes_]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    state: NDArray[np.int64]


def _tar_index(path: Path, suffixes: tuple[str, ...]) -> _TarIndex:
    """Return the index of a tar, from the cache if the tar has not changed since."""
    with _open(path) as file:
        stat = os.fstat(file.fileno())
        state = np.array([stat.st_size, stat.st_mtime_ns], np.int64)
        cached = index_path(path.resolve().as_posix(), *suffixes)
        known = load_arrays(cached, _TarIndex._fields)
        if known is not None and np.array_equal(known["state"], state):
            return _TarIndex(**known)  # type: ignore[arg-type]
        members = list(_scan(path, file, suffixes))
    names, offsets, sizes = ([*column] for column in zip(*members, strict=True)) if members else ([],) * 3
    index = _TarIndex(
        np.array(names, np.bytes_), np.array(offsets, np.int64), np.array(sizes, np.int64), state
    )
    save_arrays(cached, index._asdict())
    return index


def _scan(
    path: Path, file: BinaryIO, suffixes: tuple[str, ...], base: int = 0, within: str = ""
) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, offset and size of the files in the tar that begins at `base` of `file`."""
    file.seek(base)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            members = [member for member in tar if member.isreg() and not member.issparse()]
            _refuse_cut(file, tar.offset)
    except tarfile.TarError as error:
        raise ValueError(
            f"{_item(path, os.fsencode(within))} is damaged: expected an uncompressed tar, got: {error}; download it again"
        ) from error
    for member in members:
        name = f"{within}{member.name}"
        if member.name.lower().endswith(".tar"):
            yield from _scan(path, file, suffixes, member.offset_data, name[: -len(".tar")] + "/")
        elif _wanted(name, suffixes):
            _refuse_outside(path, name)
            yield os.fsencode(name), member.offset_data, member.size


def _refuse_cut(file: BinaryIO, end: int) -> None:
    """Raise if what ended a tar is half a header, which `tarfile` takes for its end."""
    file.seek(end)
    if 0 < len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it is cut off")


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise FileNotFoundError(f"cannot open {path}: {error.strerror or error}; restore it") from error


def _wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a member is taken: hidden ones, and companions that other systems add, are not."""
    parts = PurePosixPath(name).parts
    hidden = any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in parts)
    return not hidden and name.lower().endswith(suffixes)


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    _refuse_outside(path, member.filename)
    place = _item(path, os.fsencode(member.filename))
    if member.flag_bits & 1:
        raise ValueError(f"{place} is encrypted: expected a zip without a password; unpack it")
    if member.file_size > LARGEST_MEMBER:
        raise ValueError(
            f"{place} claims {member.file_size:,} bytes, which may be a decompression bomb: expected at most "
            f"{LARGEST_MEMBER:,}; remove it"
        )


def _refuse_outside(path: Path, name: str) -> None:
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise ValueError(
            f"{path} names a file outside of itself, {name!r}: expected names below its top; do not trust this archive"
        )


def _item(root: Path, name: bytes) -> str:
    return os.fsencode(f"{root}/{os.fsdecode(name)}").decode(errors="backslashreplace").rstrip("/")
