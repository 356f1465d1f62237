"""Files by number, wherever they lie: below a folder, inside a zip or a tar."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Files(Protocol):
    """A listing of files that are read on demand, in the order of their names, byte by byte.

    A listing is a few arrays, so that a million files cost tens of megabytes and are not copied into every
    worker process by reference counts. It can be pickled; open handles stay behind.

    Attributes:
        root: The folder or archive.
        names: Paths relative to the root, (n,) bytes, with `/` between folders, sorted.
        sizes: Bytes of each file, (n,) int64.
    """

    root: Path
    names: NDArray[np.bytes_]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of files."""
        ...

    def read(self, index: int) -> bytes:
        """Return the content of file `index`.

        Raises:
            FileNotFoundError: It cannot be opened.
            ValueError: Its archive is damaged there.
        """
        ...

    def item(self, index: int) -> str:
        """Return where file `index` is, as it can be printed: `root/name`."""
        ...


class Chosen:
    """Some files of a listing, in its order.

    Args:
        files: The whole.
        indices: Which of its files, (n,) int64, ascending.
    """

    def __init__(self, files: Files, indices: NDArray[np.int64]) -> None:
        self.files, self.indices = files, indices
        self.root, self.names, self.sizes = files.root, files.names[indices], files.sizes[indices]

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.indices)

    def read(self, index: int) -> bytes:
        """Return the content of file `index`."""
        return self.files.read(int(self.indices[index]))

    def item(self, index: int) -> str:
        """Return where file `index` is, as it can be printed."""
        return self.files.item(int(self.indices[index]))
