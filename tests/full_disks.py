"""Files that cannot grow, as on a full disk."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Have no file of this process grow beyond some bytes, for the length of the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    keeps = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # of what is imported meanwhile, Python would leave parts
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = keeps
