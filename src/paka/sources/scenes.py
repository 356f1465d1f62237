"""Scenes: labelled images of a procedural world, rendered once into a cache of memory-mapped shards."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from paka.cores import available_cores
from paka.sources import Source
from paka.sources.cache import default_cache
from paka.sources.world import CLASSES, WORLD_VERSION, render, render_portrait

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
"""Splits of the world; a split's position is part of each image's seed."""
SHARD = 250
"""Images per shard."""
TAG_SHARE = 0.01
"""Share of the pixels from which on a class is an image-level tag."""

RENDERERS = {"scenes": render, "portraits": render_portrait}
"""How the images of each source are rendered."""

World = tuple[str, int, int, int]
"""Name of the source, seed, number of the split, and side of the images in pixels."""
Shard = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images (n, size, size, 3) and masks (n, size, size)."""


class Scenes(Source):
    """One split of the procedural world; see `paka.sources.Source`.

    Image i depends on (seed, split, i) and the size only, so a longer split begins with the shorter one.
    Missing shards are rendered here, by all available cores; processes that share a cache may do so at once.

    Args:
        split: `train`, `val` or `test`.
        seed: Seed of the world, at least 0.
        train: Images in the training split.
        val: Images in the validation split.
        test: Images in the test split.
        size: Side of the images, in pixels.
        cache: Folder of the cache; by default `$PAKA_CACHE`, else `paka` in the user's cache folder.

    Raises:
        ValueError: The split is unknown, or a count, the size or the seed is out of range.
    """

    name = "scenes"
    classes: tuple[str, ...] = CLASSES
    tag_names = CLASSES
    _first_split = 0

    def __init__(
        self,
        split: str,
        *,
        seed: int = 0,
        train: int = 4000,
        val: int = 200,
        test: int = 300,
        size: int = 128,
        cache: str | Path | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split of scenes must be one of {', '.join(SPLITS)}, not {split!r}")
        _check_at_least(1, train=train, val=val, test=test, size=size)
        _check_at_least(0, seed=seed)
        self.split = split
        self._length = {"train": train, "val": val, "test": test}[split]
        self._world: World = (self.name, seed, SPLITS.index(split) + self._first_split, size)
        root = Path(cache) if cache is not None else default_cache()
        self._folder = root / self.name / f"v{WORLD_VERSION}-seed{seed}-{split}-{size}px"
        self._open_shards: dict[int, Shard] = {}
        self._render_missing()

    def __len__(self) -> int:
        """Return the number of images."""
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memory maps behind: a worker opens its own instead of being sent the pixels."""
        return {**self.__dict__, "_open_shards": {}}

    def item(self, index: int) -> str:
        """Return the name of image `index`."""
        return f"{self.name} {self.split} {index}"

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index` as read-only RGB, (size, size, 3) uint8.

        Raises:
            IndexError: There is no such image.
        """
        return self._item(index)[0]

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the class ids of image `index`, (size, size) uint8, read-only; no pixel is void.

        Raises:
            IndexError: There is no such image.
        """
        return self._item(index)[1]

    def tags(self, index: int) -> NDArray[np.bool_]:
        """Return which classes cover at least 1 % of image `index`, (12,) bool.

        Raises:
            IndexError: There is no such image.
        """
        mask = self.mask(index)
        return np.bincount(mask.ravel(), minlength=len(CLASSES)) >= TAG_SHARE * mask.size

    def _item(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if not 0 <= index < self._length:
            raise IndexError(f"scenes has {self._length} {self.split} images, so no index {index}")
        shard, place = divmod(index, SHARD)
        if shard not in self._open_shards:
            self._open_shards[shard] = self._open(shard)
        images, masks = self._open_shards[shard]
        return images[place], masks[place]

    def _open(self, shard: int) -> Shard:
        count = self._count(shard)
        # A full shard serves any length; a part of one has its own name, so lengths never overwrite each other.
        for stored in (SHARD, count):
            found = _open_shard(_stem(self._folder, shard, stored), stored, self._world[3])
            if found is not None:
                return found
        raise FileNotFoundError(
            f"shard {shard} in {self._folder} was removed or damaged while in use; start again to render it anew"
        )

    def _count(self, shard: int) -> int:
        return min(SHARD, self._length - shard * SHARD)

    def _is_missing(self, shard: int) -> bool:
        try:
            self._open(shard)
        except FileNotFoundError:
            return True
        return False

    def _render_missing(self) -> None:
        missing = [shard for shard in range(-(-self._length // SHARD)) if self._is_missing(shard)]
        if not missing:
            return
        counts = [self._count(shard) for shard in missing]
        logger.info("rendering %d %s images of %s into %s", sum(counts), self.split, self.name, self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        jobs = list(zip(missing, counts, strict=True))
        workers = min(available_cores(), len(jobs))
        if workers == 1:
            render_shards(self._folder, self._world, jobs)
            return
        with ThreadPoolExecutor(workers) as threads:
            run = partial(_render_elsewhere, self._folder, self._world)
            list(threads.map(run, [jobs[worker::workers] for worker in range(workers)]))


class Portraits(Scenes):
    """Pictures of the same world with one subject and one image-level tag each: the subject's class.

    They are to the scenes what pictures of single objects are to photographs of places: something to pretrain
    an encoder on without dense labels. They have no masks and share neither images nor textures with the scenes.
    """

    name = "portraits"
    classes = ()
    _first_split = len(SPLITS)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Raise: portraits have no masks.

        Raises:
            LookupError: Always.
        """
        raise LookupError(f"portraits have image-level tags only, so image {index} has no mask: use scenes")

    def tags(self, index: int) -> NDArray[np.bool_]:
        """Return the one tag of image `index`, (12,) bool.

        Raises:
            IndexError: There is no such image.
        """
        subject = int(self._item(index)[1][0, 0])
        tags: NDArray[np.bool_] = np.arange(len(CLASSES)) == subject
        return tags


def _check_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} of scenes must be at least {least}, not {value}")


def _stem(folder: Path, shard: int, count: int) -> Path:
    return folder / f"{shard:04d}-{count}"


def _open_shard(stem: Path, count: int, size: int) -> Shard | None:
    images = _memory_map(stem.with_suffix(".images.npy"), (count, size, size, 3))
    masks = _memory_map(stem.with_suffix(".masks.npy"), (count, size, size))
    return None if images is None or masks is None else (images, masks)


def _memory_map(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Map an array read-only; None if the file is absent, truncated or of another shape."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return cast("NDArray[np.uint8]", array) if array.shape == shape and array.dtype == np.uint8 else None


def _render_elsewhere(folder: Path, world: World, jobs: list[tuple[int, int]]) -> None:
    """Render shards in a process of its own, which, unlike a spawned one, never runs the caller's script again."""
    code = "import json, sys; from paka.sources.scenes import render_shards; render_shards(*json.loads(sys.argv[1]))"
    command = [sys.executable, "-c", code, json.dumps([str(folder), world, jobs])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RuntimeError(f"rendering scenes into {folder} failed:\n{done.stderr}")


def render_shards(folder: str | Path, world: World, jobs: list[tuple[int, int]]) -> None:
    """Render shards one after the other.

    Args:
        folder: Folder of the files, which exists.
        world: Name of the source, seed, number of the split, and side of the images in pixels.
        jobs: Number of each shard, and how many of its images are wanted.
    """
    cv2.setNumThreads(1)
    for shard, count in jobs:
        _render_shard(Path(folder), world, shard, count)


def _render_shard(folder: Path, world: World, shard: int, count: int) -> None:
    """Render the first `count` images of a shard; its files appear under their names when they are complete."""
    source, seed, split, size = world
    images = np.empty((count, size, size, 3), np.uint8)
    masks = np.empty((count, size, size), np.uint8)
    for place in range(count):
        images[place], masks[place] = RENDERERS[source](seed, split, shard * SHARD + place, size)
    stem = _stem(folder, shard, count)
    _save(stem.with_suffix(".masks.npy"), masks)
    _save(stem.with_suffix(".images.npy"), images)


def _save(path: Path, array: NDArray[np.uint8]) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".part", delete=False) as file:
        np.save(file, array)
    Path(file.name).replace(path)
