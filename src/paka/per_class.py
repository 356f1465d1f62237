"""Scores of single classes: intersection over union before and after, each with its interval."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from paka.benchmark import Benchmark
from paka.result import Result
from paka.scores import INTERVAL, decimal, verdict
from paka.statistics import draws, matching


@dataclass(frozen=True)
class ClassScore:
    """The IoU of one class with one protocol; the fields are the columns of `per_class.csv`, in order.

    Attributes:
        protocol: How the tokens were probed.
        method: What was done between before and after; empty without.
        name: Name of the class.
        share: Share of the labelled pixels that show it, in percent.
        before: IoU in percent; None where the class is in neither truth nor prediction.
        after: IoU after; None without.
        delta: `after - before`, in points.
        ci_low: Lower end of the 95 % interval of `delta`, or of `before` alone.
        ci_high: Its upper end.
    """

    protocol: str
    method: str
    name: str
    share: float
    before: float | None
    after: float | None
    delta: float | None
    ci_low: float | None
    ci_high: float | None

    @property
    def verdict(self) -> str:
        """Return `gain` or `loss` where the interval of the difference leaves no doubt, else nothing."""
        return verdict(self.delta, self.ci_low, self.ci_high)


COLUMNS = tuple("class" if field.name == "name" else field.name for field in fields(ClassScore))


def class_scores(
    benchmark: Benchmark, protocol: str, before: Result, after: Result | None, *, method: str = ""
) -> list[ClassScore]:
    """Return the IoU of each class that occurs, pooled over the images, as means over the seeds.

    The interval is the 95 % percentile interval over resampled images, the same for both sides; resamples in which a
    class does not occur are left out for that class. Where the profile matches classes, predictions are matched once,
    for all images.

    Args:
        benchmark: Whose images are scored.
        protocol: Name of the protocol, which predicts classes of pixels.
        before: What it made of the first encoder.
        after: What it made of the second; None without.
        method: What was done between the two.
    """
    profile = benchmark.profile
    sides = [_overlaps(one.counts, matched=profile.matching) for one in (before, after) if one is not None]
    times = draws(len(sides[0]), profile.bootstrap, benchmark.seed)
    values = [_iou(side.sum(dim=0)) for side in sides]
    resampled = [_iou((times @ side.flatten(1)).view(len(times), *side.shape[1:])) for side in sides]
    wanted = resampled[0] if after is None else resampled[1] - resampled[0]
    low, high = torch.nanquantile(wanted, torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    pixels = sides[0][:, 0, :, 1].sum(dim=0)
    columns = torch.stack([pixels / pixels.sum(), values[0], values[-1], values[-1] - values[0], low, high])
    return [
        _row(protocol, method, name, 100 * numbers, compared=after is not None)
        for name, numbers in zip(benchmark.query.classes, columns.T, strict=True)
        if bool(numbers[1:3].isfinite().any())
    ]


def _row(protocol: str, method: str, name: str, numbers: Tensor, *, compared: bool) -> ClassScore:
    share, *rest = (float(value) if value.isfinite() else None for value in numbers)
    before, after, delta, low, high = rest
    if not compared:
        after = delta = None
    return ClassScore(protocol, method, name, share or 0.0, before, after, delta, low, high)


def _overlaps(counts: Tensor, *, matched: bool) -> Tensor:
    """Return of each image, seed and class the pixels in both, in the truth and in the prediction, (n, S, C, 3).

    Args:
        counts: Counts (n, S, C, C).
        matched: Whether predicted classes are first matched to the true ones, over all images of a seed.
    """
    if matched:
        seeds = [one[..., matching(one.sum(dim=0))] for one in counts.unbind(dim=1)]
        counts = torch.stack(seeds, dim=1)
    parts = counts.diagonal(dim1=-2, dim2=-1), counts.sum(dim=-1), counts.sum(dim=-2)
    return torch.stack(parts, dim=-1).double()


def _iou(overlaps: Tensor) -> Tensor:
    """Return the mean over the seeds of the IoU, (..., C), of overlaps (..., S, C, 3); NaN where a class does not occur."""
    both, truth, predicted = overlaps.unbind(dim=-1)
    union = truth + predicted - both
    return torch.where(union > 0, both / union.clamp_min(1), torch.nan).nanmean(dim=-2)


def class_table(scores: Sequence[ClassScore]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows of text of the classes of one protocol, as a reader wants them."""
    compared = any(score.after is not None for score in scores)
    names = ("before", "after", "delta") if compared else ("before",)
    rows = []
    for score in scores:
        values = [decimal(getattr(score, name), signed=name == "delta") for name in names]
        ends = [decimal(end, signed=compared) for end in (score.ci_low, score.ci_high)]
        interval = f"[{ends[0]}, {ends[1]}]" if all(ends) else ""
        rows.append((score.name, decimal(score.share), *values, interval))
    return ("class", "% of pixels", *(names if compared else ("IoU",)), INTERVAL), rows


def write_class_scores(path: Path, scores: Sequence[ClassScore]) -> None:
    """Write scores of classes as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for score in scores:
            writer.writerow(
                decimal(value) if not isinstance(value, str) else value for value in asdict(score).values()
            )
