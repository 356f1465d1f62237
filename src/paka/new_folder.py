"""A folder that is there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from paka.digests import DIGESTS, read_digests

_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_free(target: Path, *, overwrite: bool) -> None:
    """Refuse a folder that something else is in.

    Args:
        target: The folder that is to be written.
        overwrite: Whether an earlier export there may be replaced; nothing else ever is, nor what was put into its folder.

    Raises:
        ValueError: Something is there.
    """
    if not target.exists() or _is_empty(target):
        return
    own = read_digests(target)
    if "README.md" not in own:
        raise ValueError(
            f"expected a new or empty folder at {target}, found something else there: set output=FOLDER to another"
        )
    others = sorted(path.name for path in target.iterdir() if path.name not in {DIGESTS, *own})
    if others:
        raise ValueError(
            f"expected an export alone at {target}, which {DIGESTS} lists, found {others[0]} beside it: move it elsewhere, or set "
            "output=FOLDER to another"
        )
    if not overwrite:
        raise ValueError(
            f"expected a new or empty folder at {target}, found an export there: set output=FOLDER to another, or overwrite=true"
        )


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill, which becomes `target` once the block is through, in place of what was there.

    Raises:
        ValueError: It could not be written, for one because the disk is full; nothing of it is left.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        _put(unfinished, target)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot write {target}: {_reason(error)}; nothing of it is left") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _put(unfinished: Path, target: Path) -> None:
    """Put a finished folder in its place."""
    if not target.exists():
        unfinished.rename(target)
        return
    if _is_empty(target):  # filled, not replaced: it may be the current folder
        for path in unfinished.iterdir():
            path.rename(target / path.name)
        return
    old = unfinished.with_name(f"{unfinished.name}.old")
    target.rename(old)
    try:
        unfinished.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _reason(error: OSError | SafetensorError) -> str:
    """Return what went wrong, and what to do where it is known."""
    full = isinstance(error, OSError) and error.errno in _FULL
    if full or "No space left" in str(error):
        return "the disk is full; make room, or set output=FOLDER to another disk"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)
