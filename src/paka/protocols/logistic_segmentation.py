"""Logistic segmentation of patches: multinomial logistic regression from a token to the class that most of it shows.

Source: the evaluation of CAPI (Darcet et al., 2025, arXiv 2502.08769) and the code of its authors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paka.features import DenseFeatures
from paka.progress import tracked
from paka.protocols import Outcome, Profile, class_counts, segmentation
from paka.protocols.classification import held_out
from paka.protocols.linear_classification import LogisticRegression, Standard, least_loss
from paka.protocols.patches import (
    IMAGES,
    LabelledPatches,
    enlarged,
    labelled_patches,
    patch_classes,
    standard_of_images,
)

PATCHES = 65_536
"""Patches on the device at a time."""


@dataclass(frozen=True)
class LogisticSegmentation:
    """How logistic regression is fitted to patches.

    Attributes:
        powers: Smallest and largest power of ten of the inverse L2 strength C.
        strengths: How many values of C are tried, their powers evenly spaced.
        iterations: L-BFGS iterations at most.

    Raises:
        ValueError: A setting is out of range.
    """

    powers: tuple[float, float] = (-6.0, 5.0)
    strengths: int = 8
    iterations: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be fitted."""
        if min(self.strengths, self.iterations) < 1 or not self.powers[0] <= self.powers[1]:
            message = (
                f"expected a strength, an iteration and ascending powers at least, got {self}: correct them"
            )
            raise ValueError(message)

    @property
    def grid(self) -> list[float]:
        """The values of C, in ascending order."""
        powers = torch.linspace(*self.powers, self.strengths, dtype=torch.float64)
        return (10.0**powers).tolist()


def logistic_segmentation(
    train: DenseFeatures, query: DenseFeatures, profile: Profile, *, seed: int
) -> Outcome:
    """Fit logistic regression to the training patches and give each query patch the class that it predicts, all over.

    Tokens are standardised by the nine tenths of the training images that are fitted first. C is that of the best mIoU on
    the held-out tenth, and all training images are fitted with it.

    Args:
        train: What is fitted.
        query: What is segmented.
        profile: Reads the settings of kind `LogisticSegmentation`, `patch_void` and how mIoU is defined.
        seed: Seed of the tenth.

    Raises:
        ValueError: There are fewer than 2 training images, or no patch has a class.
        MemoryError: The patches do not fit.
    """
    settings = profile.of(LogisticSegmentation)
    classes = patch_classes(train, void=profile.patch_void == "vote")
    fit, held = held_out(len(train), seed)
    standard = standard_of_images(train, fit)

    def probes(images: Tensor, grid: Sequence[float]) -> Iterator[LogisticRegression]:
        patches = labelled_patches(train, images, classes, standard)
        return (fit_patches(patches, train, standard, inverse, settings.iterations) for inverse in grid)

    tried = tracked(probes(fit, settings.grid), len(settings.grid) + 1)
    scores = [float(profile.iou.of(_counts(probe, train, held))) for probe in tried]
    best = settings.grid[scores.index(max(scores))]
    (probe,) = probes(torch.arange(len(train)), [best])
    maps = (found for _, found in predictions(probe, query, torch.arange(len(query))))
    return segmentation(maps, query, profile, {"note": f"C = {best:.3g}", "upsampling": "nearest"})


def fit_patches(
    patches: LabelledPatches, train: DenseFeatures, standard: Standard, inverse: float, iterations: int
) -> LogisticRegression:
    """Fit logistic regression to patches, some of them on the device at a time.

    Args:
        patches: Standardised patches.
        train: Where they come from.
        standard: How they were standardised.
        inverse: Inverse strength C: half the squared norm of the weights counts as much as the losses of C patches.
        iterations: L-BFGS iterations at most.
    """
    workspace = train.workspace
    tokens = workspace.near(patches.tokens)
    batches = list(zip(tokens.split(PATCHES), patches.classes.long().split(PATCHES), strict=True))
    weight, bias = least_loss(
        batches,
        train.num_classes,
        1 / (inverse * len(tokens)),
        device=workspace.device,
        iterations=iterations,
    )
    return LogisticRegression(standard, weight.cpu(), bias.cpu())


def predictions(
    probe: LogisticRegression, query: DenseFeatures, images: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some images at a time: their numbers, (b,), and their predictions, (b, H, W) uint8."""
    for part in images.split(IMAGES):
        names = probe(query.tokens[part].flatten(0, 2)).argmax(dim=1).to(torch.uint8)
        yield part, enlarged(names.view(len(part), -1, 1), query)


def _counts(probe: LogisticRegression, train: DenseFeatures, held: Tensor) -> Tensor:
    """Return the counts of the held-out images, pooled."""
    counts = [
        class_counts(maps, train.labels[images], train.num_classes).sum(dim=0)
        for images, maps in predictions(probe, train, held)
    ]
    return torch.stack(counts).sum(dim=0)
