"""Pictures of what protocols predicted: segmentations, depth, single classes and what they are taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from paka.benchmark import Benchmark
from paka.colours import Pixels
from paka.document import Figure
from paka.features import read_depths, read_masks
from paka.figures.depth import depth_figure
from paka.figures.matrices import confusion_figure
from paka.figures.scores import Bar, classes_figure
from paka.figures.segmentation import segmentation_figure
from paka.frames import Frame
from paka.per_class import ClassScore, class_table
from paka.protocols import shown
from paka.result import Result
from paka.scores import decimal, spoken
from paka.sources import VOID
from paka.statistics import matched

MOST_BARS = 40
"""Most classes with a bar each; of more, those that rose and those that fell most have one."""


@dataclass(frozen=True)
class OutcomePictures:
    """What can be shown of predictions.

    Attributes:
        benchmark: The labelled images.
        frame: The grid of tokens that they are brought to.
        images: The images that are shown, those of `shown`, (n, H, W, 3) uint8, without what no image fills of the frame.
    """

    benchmark: Benchmark
    frame: Frame
    images: Pixels

    @property
    def chosen(self) -> list[int]:
        """Numbers of the images that are shown."""
        return shown(len(self.benchmark.images("query")))

    def counts_classes(self, result: Result) -> bool:
        """Return whether a protocol counted the pixels of the benchmark's classes."""
        classes = len(self.benchmark.query.classes)
        return result.metrics[0].name == "mIoU" and result.counts.shape[2:] == (classes, classes)

    def shows(self, result: Result) -> bool:
        """Return whether the predictions for the images that are shown were kept."""
        return all(n in result.pictures for n in self.chosen)

    def predicts_depth(self, result: Result) -> bool:
        """Return whether a protocol predicted the depth of pixels."""
        kept = self.benchmark.query.has_depth and self.shows(result)
        return kept and result.pictures[self.chosen[0]].is_floating_point()

    def segmentation(self, path: Path, protocol: str, results: Mapping[str, Result]) -> Figure:
        """Draw true and predicted classes; `results` by title are one, or two that are compared."""
        source = self.benchmark.images("query")
        segmentation_figure(
            path,
            self.images,
            truth=self._cropped(read_masks(source, self.chosen, self.frame).numpy()),
            predictions={title: self._predicted(result) for title, result in results.items()},
            classes=source.classes,
            colours=source.palette,
            notes={title: self._notes(result) for title, result in results.items()},
        )
        compared = len(results) > 1
        ends = (
            "The last column compares: green where only the prediction after is right, orange where only that before "
            "is, dark where both are wrong."
            if compared
            else "The last column is dark where the prediction is wrong."
        )
        what = f"{spoken(protocol)}: true and predicted classes of {len(self.chosen)} evenly spaced images"
        return Figure(
            path,
            f"{what}. {ends} mIoU is that of the single image.",
            f"Rows of images, each with its true classes, {_listed(results)} and where they are right",
        )

    def depth(self, path: Path, protocol: str, results: Mapping[str, Result]) -> Figure:
        """Draw true and estimated depth; `results` by title are one, or two that are compared."""
        source = self.benchmark.images("query")
        depth_figure(
            path,
            self.images,
            truth=self._cropped(read_depths(source, self.chosen, self.frame).numpy()),
            predictions={title: self._predicted(result) for title, result in results.items()},
            notes={title: self._notes(result) for title, result in results.items()},
        )
        compared = len(results) > 1
        ends = (
            "The last column is green where the estimate after is closer to the truth, orange where that before is."
            if compared
            else "The last column is the error."
        )
        what = f"{spoken(protocol)}: true and estimated depth of {len(self.chosen)} evenly spaced images"
        return Figure(
            path,
            f"{what}; grey where it is not known. {ends}",
            f"Rows of images, each with its true depth, {_listed(results)} and how far they are off",
        )

    def classes(self, path: Path, protocol: str, scores: Sequence[ClassScore]) -> Figure:
        """Draw a bar for each class."""
        compared = any(score.after is not None for score in scores)
        chosen = most_changed(scores) if compared else sorted(scores, key=_before)[-MOST_BARS:]
        ordered = sorted(chosen, key=_before, reverse=True)
        classes_figure(path, [bar(score) for score in ordered])
        left = len(scores) - len(chosen)
        some = f" {left} of {len(scores)} classes are left out: those that changed least." if left else ""
        interval = "of the difference, drawn at the end of the bar after" if compared else "of the score"
        return Figure(
            path,
            f"{spoken(protocol)}: IoU of each class{' before and after' if compared else ''}, sorted. "
            f"Lines are 95 % intervals {interval}.{some}",
            "Bars of the IoU of each class; the table below has the numbers",
        )

    def confusion(self, path: Path, protocol: str, result: Result, side: str) -> Figure:
        """Draw which classes are taken for which, of all images and seeds."""
        counts = result.counts.sum(dim=0)
        counts = (matched(counts) if self.benchmark.profile.matching else counts).sum(dim=0)
        confusion_figure(path, counts.numpy(), self.benchmark.query.classes)
        when = f" {side.lower()}" if side != "Prediction" else ""
        return Figure(
            path,
            f"{spoken(protocol)}{when}: what the pixels of each class are predicted as, in percent of the class, over "
            "all scored images. The diagonal is right.",
            "Matrix of true against predicted classes",
        )

    def _predicted(self, result: Result) -> NDArray[Any]:
        """Return what was predicted for the images that are shown, (n, H, W)."""
        source = self.benchmark.images("query")
        maps = [in_frame(result.pictures[n], source.image(n).shape[:2], self.frame) for n in self.chosen]
        return self._cropped(np.stack(maps))

    def _cropped(self, maps: NDArray[Any]) -> NDArray[Any]:
        return maps[:, : self.images.shape[1], : self.images.shape[2]]

    def _notes(self, result: Result) -> list[str]:
        """Return the first metric of each single image that is shown, in words."""
        outcome = result.outcomes[0]
        metric = outcome.metrics[0]
        values = [metric.scale * metric.once(outcome.counts[n : n + 1]) for n in self.chosen]
        digits = 1 if metric.unit == "%" else 2
        return [f"{metric.name} {decimal(value, digits=digits)} {metric.unit}".rstrip() for value in values]


def most_changed(scores: Sequence[ClassScore]) -> list[ClassScore]:
    """Return the classes that have a bar: all, or half as many as have room that rose most, and that fell most."""
    if len(scores) <= MOST_BARS:
        return [*scores]
    ordered = sorted(scores, key=lambda score: score.delta or 0.0)
    return [*ordered[: MOST_BARS // 2], *ordered[-MOST_BARS // 2 :]]


def bar(score: ClassScore) -> Bar:
    """Return the bar of a class, with the numbers of the table in words."""
    header, (row,) = class_table([score])
    texts = dict(zip(header, row, strict=True))
    text = f"{texts.get('delta', texts.get('IoU', ''))} {texts['95 % interval']}".rstrip()
    low, high = (np.nan if end is None else end for end in (score.ci_low, score.ci_high))
    shift = 0.0 if score.after is None else score.before or 0.0
    return Bar(score.name, score.before or 0.0, score.after, shift + low, shift + high, text)


def in_frame(prediction: Tensor, size: tuple[int, ...], frame: Frame) -> NDArray[np.generic]:
    """Return what was predicted for an image at the size of the frame, by nearest neighbour.

    Args:
        prediction: Class ids (H, W) uint8 or depth (H, W) float32: of the image itself, or of the whole frame at any size.
        size: Height and width of the image.
        frame: Where it lies; what is around it is void, or 0 for depth.
    """
    place, void = (frame.depth, 0) if prediction.is_floating_point() else (frame.mask, VOID)
    if tuple(prediction.shape) == tuple(size) != frame.size:
        return place(prediction.numpy())
    enlarged = F.interpolate(prediction[None, None], size=frame.size, mode="nearest-exact")[0, 0].numpy()
    rows, columns = frame.fit(*size)
    enlarged[rows * frame.patch :], enlarged[:, columns * frame.patch :] = void, void
    return enlarged


def _listed(results: Mapping[str, Result]) -> str:
    return " and ".join(
        f"the prediction {title.lower()}" if len(results) > 1 else "the prediction" for title in results
    )


def _before(score: ClassScore) -> float:
    return score.before or 0.0
