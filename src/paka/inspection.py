"""Reading every item of a data set once: what is there, and what is wrong with it."""

from __future__ import annotations

import hashlib
import logging
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from paka.config import explain
from paka.cores import available_cores
from paka.findings import IDS, Problem, Reading, SplitFindings, printable
from paka.sources import VOID, Source
from paka.sources.decode import LONGEST_SIDE
from paka.sources.subset import is_labelled

CHUNK = 8
"""Images that a process reads at a time: few, so that Ctrl-C is answered at once."""
DATA = "data"
"""Role of a split that is post-trained on, and needs no labels."""

Progress = Callable[[str, int, int], None]
"""Told after each image: name of the split, images read, images to read."""

_FAILURES = (ValueError, LookupError, OSError, MemoryError, cv2.error)


def inspect(
    open_split: Callable[..., Source],
    splits: Mapping[str, str | None],
    *,
    home: str | None = None,
    sample: int | None = None,
    workers: int | None = None,
    progress: Progress = lambda *_: None,
) -> list[SplitFindings]:
    """Open the splits of a data set and read every image in them once, with its labels.

    Args:
        open_split: Opens a split, called with `split=NAME`.
        splits: Names of the splits by role: `data`, `train`, `val` or `test`; None for what does not exist.
        home: Where its owners publish the data set.
        sample: Read at most this many images of each split, drawn evenly; None for all.
        workers: Processes that read; None for one a core.
        progress: Told after each image.

    Returns:
        What was found, one for each split, in the order of the roles.
    """
    roles: dict[str, list[str]] = {}
    for role, name in splits.items():
        if name is not None:
            roles.setdefault(name, []).append(role)
    found = [SplitFindings(name, tuple(own)) for name, own in roles.items()]
    with _one_thread():
        for split in found:
            _open(open_split, split, home)
            if split.source is not None:
                indices = drawn(len(split.source), sample)
                _read_all(split, split.source, indices, workers or available_cores(), progress)
    return found


def drawn(count: int, sample: int | None) -> list[int]:
    """Return up to `sample` of `count` indices, evenly spaced, the first and the last among them."""
    wanted = count if sample is None else min(sample, count)
    return [round(place) for place in np.linspace(0, count - 1, wanted)]


def read(source: Source, index: int, *, masks: bool) -> Reading:
    """Read one image and its labels; what is wrong with them is part of what is returned.

    Args:
        source: The split.
        index: Number of the image.
        masks: Whether to read its mask.
    """
    reading = Reading(index)
    try:
        image = source.image(index)
        shape = image.shape[0], image.shape[1]
        reading = replace(reading, size=shape[::-1], digest=_digest(image))
        if masks:
            reading = replace(reading, counts=_count(source, index, shape))
        if source.has_depth:
            reading = replace(reading, depth=_measure(source, index, shape))
    except _FAILURES as error:
        reading = replace(reading, problem=sentence(error))
    return reading


def sentence(error: BaseException) -> str:
    """Return what an error says in one line; what this package did not raise is given its type."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        name = error.filename or b""
        name = name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)
        text = f"cannot read {name[:120]}{'...' * (len(name) > 120)}: {error.strerror}; remove or restore it"
    elif explain(error) is None:
        text = f"{type(error).__name__}: {text}"
    return printable(" ".join(text.split()))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep OpenCV from threads of its own: a process forked while there are some waits for them for ever."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _open(open_split: Callable[..., Source], split: SplitFindings, home: str | None) -> None:
    """Open a split, or note why it cannot be opened or does not serve its roles."""
    problem = None
    with _heard(split.warnings):
        try:
            split.source = open_split(split=split.split)
            problem = _unfit(split.source, split.roles)
        except _FAILURES as error:
            where = (
                f"; its owners publish it at {home}" if home and isinstance(error, FileNotFoundError) else ""
            )
            problem = sentence(error) + where
    if problem is not None:
        split.problems.append(Problem(split.split, "", problem))


def _unfit(source: Source, roles: Sequence[str]) -> str | None:
    """Return why a split does not serve its roles."""
    if not len(source):
        return f"{source.name} {source.split} has no images: expected at least one; add them"
    if is_labelled(source) or {*roles} == {DATA}:
        return None
    source.mask(0)  # says why there is none
    return f"{source.name} {source.split} has masks without classes: expected their names; add them"


class _Collector(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(printable(record.getMessage()))


@contextmanager
def _heard(warnings: list[str]) -> Iterator[None]:
    """Collect the package's warnings instead of printing them: they are part of what is found."""
    logger, collector = logging.getLogger("paka"), _Collector(warnings)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagated


def _read_all(
    split: SplitFindings, source: Source, indices: Sequence[int], workers: int, progress: Progress
) -> None:
    masks = bool(indices) and not split.problems and bool(source.classes or source.videos)
    try:
        with closing(_readings(source, indices, masks=masks, workers=workers)) as readings:
            for reading in readings:
                split.add(reading)
                progress(split.split, split.read, len(indices))
    except BrokenProcessPool:
        text = (
            "a process that reads images was killed at this image or soon after: out of memory, or its decoder crashed; "
            "remove the file, or give the program more memory"
        )
        split.problems.append(Problem(split.split, split.item(indices[split.read]), text))


def _readings(
    source: Source, indices: Sequence[int], *, masks: bool, workers: int
) -> Generator[Reading, None, None]:
    """Yield what is read, in order, by several processes where that pays."""
    workers = min(workers, -(-len(indices) // CHUNK))
    if workers <= 1:
        yield from (read(source, index, masks=masks) for index in indices)
        return
    pool = ProcessPoolExecutor(workers, initializer=_begin, initargs=(source, masks))
    try:
        yield from pool.map(_read_mine, indices, chunksize=CHUNK)
    finally:
        pool.shutdown(cancel_futures=True)


_mine: tuple[Source, bool]


def _begin(source: Source, masks: bool) -> None:  # noqa: FBT001 - positional, as `initargs` are
    """Prepare a process that reads; Ctrl-C is answered by the process that started it."""
    global _mine  # noqa: PLW0603 - so that the source is not sent with every image
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _mine = source, masks


def _read_mine(index: int) -> Reading:
    source, masks = _mine
    return read(source, index, masks=masks)


def _digest(image: NDArray[np.uint8]) -> int:
    digest = hashlib.blake2b(str(image.shape).encode(), digest_size=8)
    digest.update(image.tobytes())
    return int.from_bytes(digest.digest(), "little")


def _count(source: Source, index: int, shape: tuple[int, int]) -> NDArray[np.int64]:
    mask = source.mask(index)
    _check_shape("mask", mask.shape, shape)
    counts = np.bincount(mask.ravel(), minlength=IDS)
    classes = len(source.classes)
    if classes and counts[classes:VOID].any():  # numbers of objects are no classes
        largest = int(np.flatnonzero(counts[:VOID])[-1])
        raise ValueError(
            f"the mask has class id {largest}, but the {classes} classes allow ids 0 to {classes - 1}, and {VOID} "
            "for void; correct the mask or name more classes"
        )
    return counts


def _measure(source: Source, index: int, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    depth = source.depth(index)
    _check_shape("depth map", depth.shape, shape)
    known = depth[depth > 0]
    if not np.isfinite(depth).all() or depth.min() < 0 or not known.size:
        raise ValueError(
            "the depth map has values below 0 or not finite, or 0 only: expected metres, and 0 where depth is not known; "
            "correct it or leave the image out"
        )
    return float(known.min()), float(np.median(known)), float(known.max()), 1 - known.size / depth.size


def _check_shape(kind: str, found: tuple[int, ...], expected: tuple[int, int]) -> None:
    # Longer images are decoded at a reduced size; their sources compare what the headers say.
    if found != expected and max(found) <= LONGEST_SIDE:
        came, wanted = ("x".join(map(str, shape[::-1])) for shape in (found, expected))
        raise ValueError(
            f"the {kind} is {came} pixels (width x height), but its image is {wanted}: expected the same; resize it"
        )
