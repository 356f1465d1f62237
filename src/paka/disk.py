"""Room on disk: files that are written whole or not at all, and the sentence for a disk that is full."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is too large",
}
"""What the system calls it when a file cannot grow."""

ABANDONED = 600
"""Seconds after which an unfinished file that has not grown is that of a process that was killed."""


class DiskFullError(OSError):
    """There is no room for a file; its message is the sentence for the user."""

    def __str__(self) -> str:
        """Return the sentence alone."""
        return str(self.strerror)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield where to write a file that takes the place of `path` once the block is through, and never a part of it.

    What processes that were killed have left of the same file is removed: it is hidden, and may be large.

    Args:
        path: The file; its folder is made.

    Raises:
        OSError: It cannot be written; `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def _clear(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with suppress(OSError):
            # Not by the process's number: it may be one of another machine that shares the disk.
            number = left.name.removeprefix(f".{path.name}.")
            if number.isdigit() and time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink()


@contextmanager
def as_os_error(kind: type[Exception]) -> Iterator[None]:
    """Raise errors of a library that only tell the system's error number, as in `os error 28`, as what they are."""
    try:
        yield
    except kind as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def full_disk(
    error: BaseException, folder: Path, *, needed: int | None = None, then: str | None = None
) -> DiskFullError | None:
    """Return an error that says in a sentence that there is no room, or None if something else is the matter.

    Args:
        error: What was raised.
        folder: The run's folder.
        needed: Bytes of the file that did not fit, if known.
        then: What to do once there is room; by default what a run does.
    """
    if isinstance(error, DiskFullError):
        return error
    if not isinstance(error, OSError) or error.errno not in FULL:
        return None
    what = f"a file of {size(needed)}" if needed else "another file"
    return DiskFullError(
        error.errno,
        f"expected room for {what} in {folder}, but {FULL[error.errno]}{_free(folder)}: {f'make room and {then}' if then else _way_out(folder)}",
    )


def _free(folder: Path) -> str:
    with suppress(OSError):
        return f" ({size(shutil.disk_usage(folder).free)} free)"
    return ""


def _way_out(folder: Path) -> str:
    """Return what to do: the last checkpoint is whole, if there is one."""
    if (folder / "checkpoints" / "last.ckpt").is_file():
        return f"make room and go on from the last checkpoint with resume={folder}"
    return "make room and start again; there is no checkpoint yet"


def size(count: float) -> str:
    """Return a number of bytes as one says it, such as `1.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
