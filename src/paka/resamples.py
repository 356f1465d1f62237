"""Scores of resampled images: kept by each run, so that runs can be compared image by image long after."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zipfile import BadZipFile

import numpy as np

from paka.colours import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from paka.result import Result
    from paka.statistics import Metric

FILE = "resamples.npz"
SEED = 0
"""Of the resampling: one for all runs, whatever their own seed, so that they draw the same images."""
NO_FILE = (OSError, ValueError, KeyError, EOFError, BadZipFile)
"""What reading a damaged file raises."""


class Key(NamedTuple):
    """What was scored.

    Attributes:
        side: `before` or `after`.
        method: What was done between the two; empty before.
        protocol: How the tokens were probed.
        metric: What was measured.
    """

    side: str
    method: str
    protocol: str
    metric: str


class Resampled(NamedTuple):
    """A score of the images, and of resamples of them.

    Attributes:
        value: The score of all images, in the unit in which it is printed.
        values: The score of each of R resamples, (R,) float64; NaN where one has none.
        images: How many images were scored.
        digest: Of the truth and of the draws: scores with the same digest are paired, resample by resample.
    """

    value: float
    values: Floats
    images: int
    digest: str

    def pairs_with(self, other: Resampled) -> bool:
        """Return whether the other score is of the same resamples of the same images."""
        return self.digest == other.digest and self.values.shape == other.values.shape


def write_resamples(
    path: Path, before: Mapping[str, Result], after: Mapping[str, Mapping[str, Result]], *, resamples: int
) -> None:
    """Write each score of each of a number of resamples of the images, for all sides.

    A few kilobytes for each score, where counts of each image would take up to gigabytes; and whoever compares runs needs
    to know nothing of how a score is computed.

    Args:
        path: File to write, `resamples.npz` of a run's folder.
        before: What the protocols made of the encoder before, by protocol.
        after: What they made of the encoders after, by method.
        resamples: Number of resamples.
    """
    rows = dict(_resampled("before", "", before, resamples))
    for method, results in after.items():
        rows |= _resampled("after", method, results, resamples)
    keep(path, rows)


def keep(path: Path, rows: Mapping[Key, Resampled]) -> None:
    """Write resampled scores as `read_resamples` reads them."""
    np.savez_compressed(
        path,
        names=np.array([[*key, row.digest] for key, row in rows.items()], dtype=np.str_),
        value=np.array([row.value for row in rows.values()]),
        values=np.array([row.values for row in rows.values()]),
        images=np.array([row.images for row in rows.values()]),
    )


def _resampled(
    side: str, method: str, results: Mapping[str, Result], resamples: int
) -> Iterator[tuple[Key, Resampled]]:
    from paka.statistics import draws

    for protocol, result in results.items():
        times = draws(len(result.counts), resamples, SEED)
        for metric in result.metrics:
            values = metric.scale * metric.resampled(result.counts, times)
            digest = _digest(metric, result.counts, times)
            yield (
                Key(side, method, protocol, metric.name),
                Resampled(
                    metric.scale * metric.once(result.counts),
                    np.asarray(values, dtype=np.float64),
                    len(result.counts),
                    digest,
                ),
            )


def _digest(metric: Metric, counts: Tensor, times: Tensor) -> str:
    truth = metric.truth(counts).contiguous()
    told = f"{len(times)} of {tuple(truth.shape)} {truth.dtype}".encode()
    parts = (told, truth.cpu().numpy().tobytes(), times[0].numpy().tobytes())
    return hashlib.blake2b(b"".join(parts), digest_size=12).hexdigest()


def read_resamples(folder: Path) -> dict[Key, Resampled]:
    """Return what a run kept of its resampled scores; nothing where the file is missing or damaged."""
    try:
        with (folder / FILE).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            parts = [file[name] for name in ("names", "value", "values", "images")]
        return {
            Key(*map(str, names[:4])): Resampled(float(value), values, int(images), str(names[4]))
            for names, value, values, images in zip(*parts, strict=True)
        }
    except NO_FILE:
        return {}
