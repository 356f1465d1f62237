"""Locks on files that end with the process that holds them, and places that processes take in turn."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL = 0.5
"""Seconds between two looks for a free place."""


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock on a file for the length of the block, and give whether it could be had.

    The lock is the process's, not its children's: it ends with the process, however that ends. One process may take it twice.

    Args:
        path: The file, which is made if it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _taken(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def place(folder: Path, places: int) -> Iterator[int]:
    """Wait for one of several places that processes share, and hold it for the length of the block.

    Args:
        folder: Where the places are kept; processes that share them name the same.
        places: How many there are, at least 1.

    Yields:
        The number of the place, from 0.
    """
    while True:
        for number in range(places):
            with locked(folder / f".place-{number}") as free:
                if free:
                    yield number
                    return
        time.sleep(POLL)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # which of them is up to the system
        return False
    return True
