"""Where dense features are kept: in memory, or in files that a later evaluation finds again."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from paka.encoder import Encoder
from paka.sources import Source
from paka.workspace import Workspace, check_disk

PACKAGE = Path(__file__).parent


class Extent(NamedTuple):
    """How much the features of some images are.

    Attributes:
        images: Number of images n.
        rows: Rows of tokens h.
        columns: Columns of tokens w.
        dim: Channels D.
        attends: Whether the encoder has a class token, whose attention is kept.
    """

    images: int
    rows: int
    columns: int
    dim: int
    attends: bool

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the arrays, by the names that `DenseFeatures` has for them."""
        n, rows, columns, dim, attends = self
        seen = (rows, columns) if attends else (0, 0)
        return {
            "tokens": (n, rows, columns, dim),
            "globals": (n, dim),
            "attention": (n, *seen),
            "sizes": (n, 2),
            "filled": (n,),
        }


_DTYPES = {
    "globals": torch.float32,
    "attention": torch.float32,
    "sizes": torch.int32,
    "filled": torch.uint8,
}
"""Types of the arrays but for the tokens, whose type is chosen."""


@dataclass(frozen=True)
class Storage:
    """Features of n images that are filled in some at a time, perhaps by several processes.

    Attributes:
        arrays: By name, in memory or mapped from files; see `Extent.shapes`. `filled` says which images are there.
        flush: Called after each write to secure it.
    """

    arrays: Mapping[str, Tensor]
    flush: Callable[[], None] | None = None

    @property
    def complete(self) -> bool:
        """Whether all images are there."""
        return bool(self.arrays["filled"].all())

    def missing(self, share: range) -> list[int]:
        """Return which images of a share are not there yet."""
        return [index for index in share if not self.arrays["filled"][index]]

    def put(self, places: Sequence[int], **values: Tensor) -> None:
        """Fill in some images: a value (b, ...) for each array."""
        rows = torch.tensor(places)
        for name, value in values.items():
            self.arrays[name][rows] = value.to(self.arrays[name].dtype)
        self.arrays["filled"][rows] = 1
        if self.flush is not None:
            self.flush()


def in_memory(extent: Extent, workspace: Workspace) -> Storage:
    """Return room for features that end with this process.

    Raises:
        MemoryError: There is no room for them.
    """
    what = f"the features of {extent.images} images"
    arrays = {
        name: workspace.empty(*shape, dtype=_DTYPES.get(name, workspace.dtype), what=what)
        for name, shape in extent.shapes.items()
    }
    arrays["filled"].zero_()
    return Storage(arrays)


@dataclass(frozen=True)
class FeatureCache:
    """A folder of dense features, each set under a digest of all that it depends on.

    Attributes:
        folder: Where they are; made when needed.
        dtype: `float32`, or `float16` for half the room at 3 decimal digits.
        limit: Bytes that all sets together may take; those used longest ago are removed first.
    """

    folder: Path
    dtype: str
    limit: int

    def open(self, facts: Mapping[str, Any], extent: Extent) -> Storage:
        """Return the stored features that `facts` describe, complete, begun or still empty.

        Args:
            facts: All that the features depend on, as JSON: weights, images, size.
            extent: How much they are.

        Raises:
            ValueError: What lies under the digest is of other weights or other images: the folder was tampered with.
            MemoryError: The disk has no room for them.
        """
        facts = {**facts, "code": code_digest(), "dtype": self.dtype, "extent": list(extent)}
        place = self.folder / digest_of(facts)[:32]
        if not (place / "facts.json").exists():
            self._make_room(extent)
            _create(place, facts, extent)
        _check(place, facts)
        os.utime(place)  # what is used last is removed last
        arrays = {name: _mapped(place / f"{name}.npy") for name in extent.shapes}

        def flush() -> None:
            for array in arrays.values():  # `filled` last
                array.flush()

        return Storage({name: torch.from_numpy(array) for name, array in arrays.items()}, flush)

    def _make_room(self, extent: Extent) -> None:
        needed = math.prod(extent.shapes["tokens"]) * np.dtype(self.dtype).itemsize
        sets = sorted(self.folder.glob("*/facts.json"), key=lambda path: path.parent.stat().st_mtime)
        sizes = {path.parent: sum(file.stat().st_size for file in path.parent.iterdir()) for path in sets}
        for place in list(sizes):
            if sum(sizes.values()) + needed <= self.limit:
                break
            shutil.rmtree(place)
            del sizes[place]
        check_disk(self.folder, needed, f"the features of {extent.images} images")


def _create(place: Path, facts: Mapping[str, Any], extent: Extent) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, shape in extent.shapes.items():
        kind = str(_DTYPES.get(name, facts["dtype"])).removeprefix("torch.")
        np.lib.format.open_memmap(place / f"{name}.npy", mode="w+", dtype=kind, shape=shape).flush()
    _write(place / "facts.json", json.dumps(facts, indent=2, sort_keys=True))


def _check(place: Path, facts: Mapping[str, Any]) -> None:
    found = json.loads((place / "facts.json").read_text())
    wrong = sorted(name for name in {*facts, *found} if facts.get(name) != found.get(name))
    if wrong:
        message = (
            f"expected features of these weights and images in {place}, got some that differ in {', '.join(wrong)}: "
            "remove the folder, or set cache=null"
        )
        raise ValueError(message)


def _mapped(path: Path) -> Any:
    return np.lib.format.open_memmap(path, mode="r+")


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


def digest_of(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of facts, whatever their order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@cache
def code_digest() -> str:
    """Return the SHA-256 of this package's code: what older code made is not taken for what this would make."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def weights_digest(encoder: Encoder) -> str:
    """Return the SHA-256 of an encoder's weights and of what else its tokens depend on."""
    digest = hashlib.sha256(repr((encoder.layers, encoder.patch_size, type(encoder.model).__name__)).encode())
    for name, value in encoder.named_buffers():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    for name, weight in encoder.named_parameters():
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def images_digest(source: Source, count: int) -> str:
    """Return the SHA-256 of which images these are: their names, and size and date of those that are files."""
    digest = hashlib.sha256(repr((source.name, source.split, source.classes, count)).encode())
    for index in range(count):
        digest.update(_stamp(source.item(index)))
    return digest.hexdigest()


def labels_digest(source: Source) -> str:
    """Return the SHA-256 of what is known of images: size and date of the files of labels, and the points of pairs.

    Where labels have no files, the source's own code makes them.
    """
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(_stamp(source.label_item(index)))
    for pair in source.pairs:
        digest.update(repr((pair.first, pair.second, pair.extent, pair.category, len(pair.points))).encode())
        digest.update(pair.points.tobytes() + pair.targets.tobytes())
    return digest.hexdigest()


def _stamp(name: str) -> bytes:
    """Return a name, and if it is that of a file, its size and date."""
    path = Path(name)
    if not name or not path.is_file():
        return f"\0{name}".encode(errors="surrogateescape")
    status = path.stat()
    return f"\0{name}:{status.st_size}:{status.st_mtime_ns}".encode(errors="surrogateescape")
