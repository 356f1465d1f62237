"""k-NN segmentation of patches: a patch takes the label map that the training patches nearest to it agree on.

Source: the evaluation of CAPI (Darcet et al., 2025, arXiv 2502.08769) and the code of its authors, which searches
ADE20K in bfloat16; here distances are those of float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.progress import tracked
from paka.protocols import Outcome, Profile, class_counts, segmentation
from paka.protocols.classification import held_out
from paka.protocols.linear_classification import Standard
from paka.protocols.patches import (
    IMAGES,
    LabelledPatches,
    enlarged,
    label_maps_at,
    labelled_patches,
    majority,
    patch_classes,
    standard_of_images,
)
from paka.search import euclidean_offsets, nearest
from paka.sources import VOID

DISTANCES = ("cosine", "L2")
"""Distances by which patches may be near."""

QUERIES = 512
"""Patches whose neighbours' label maps are held at a time."""


@dataclass(frozen=True)
class KnnSegmentation:
    """What a k-NN segmentation chooses from, on a held-out tenth of the training images.

    Attributes:
        neighbours: Numbers of neighbours k.
        distances: `cosine`, `L2`, or both.

    Raises:
        ValueError: There is nothing to choose from, k is below 1, or a distance has another name.
    """

    neighbours: Sequence[int] = (1, 3, 10, 30)
    distances: Sequence[str] = DISTANCES

    def __post_init__(self) -> None:
        """Refuse what cannot be searched with."""
        if not self.neighbours or min(self.neighbours) < 1:
            raise ValueError(
                f"expected numbers of neighbours of at least 1, got {list(self.neighbours)}: name one"
            )
        if not self.distances or {*self.distances} - {*DISTANCES}:
            message = (
                f"expected distances out of {', '.join(DISTANCES)}, got {list(self.distances)}: name one"
            )
            raise ValueError(message)


class Choice(NamedTuple):
    """A number of neighbours k and the distance that they are near by."""

    k: int
    distance: str


@dataclass(frozen=True)
class PatchIndex:
    """Labelled training patches that are searched by one distance.

    Attributes:
        features: Where they come from.
        standard: How tokens are standardised.
        classes: What most of each patch of the features shows, (n, h * w) uint8.
        patches: The patches, of norm 1 for `cosine`.
        distance: By which they are near.
        void: Whether void pixels vote.
    """

    features: DenseFeatures
    standard: Standard
    classes: Tensor
    patches: LabelledPatches
    distance: str
    void: bool


def knn_segmentation(train: DenseFeatures, query: DenseFeatures, profile: Profile, *, seed: int) -> Outcome:
    """Segment the query images pixel by pixel: each shows what most of the k nearest training patches show there.

    Tokens are standardised by the nine tenths of the training images that are fitted first. k and distance are those of
    the best mIoU on the held-out tenth; then all training images are searched.

    Args:
        train: Whose patches vote, each with its label map.
        query: What is segmented.
        profile: Reads the settings of kind `KnnSegmentation`, `patch_void` and how mIoU is defined.
        seed: Seed of the tenth.

    Raises:
        ValueError: There are fewer than 2 training images, or fewer labelled patches than neighbours.
        MemoryError: The patches do not fit.
    """
    settings, void = profile.of(KnnSegmentation), profile.patch_void == "vote"
    classes = patch_classes(train, void=void)
    fit, held = held_out(len(train), seed)
    standard = standard_of_images(train, fit)

    def index(images: Tensor, distance: str) -> PatchIndex:
        return build_index(train, images, classes, standard, distance, void=void)

    scores: dict[Choice, float] = {}
    for distance in settings.distances:
        counts = _counts(index(fit, distance), held, settings.neighbours)
        scores |= {Choice(k, distance): float(profile.iou.of(found)) for k, found in counts.items()}
    grid = [Choice(*pair) for pair in product(settings.neighbours, settings.distances)]
    best = max(grid, key=scores.__getitem__)
    final = index(torch.arange(len(train)), best.distance)
    images = torch.arange(len(query))
    maps = (found[best.k] for _, found in predictions(final, query, images, [best.k]))
    stated = {
        **{"k": best.k, "memory": len(final.patches.tokens)},
        **{"note": f"{best.distance}, by pixel", "upsampling": "none"},
    }
    return segmentation(maps, query, profile, stated, void=void)


def build_index(
    train: DenseFeatures, images: Tensor, classes: Tensor, standard: Standard, distance: str, *, void: bool
) -> PatchIndex:
    """Return the labelled patches of some images, ready to be searched.

    Args:
        train: Labelled features.
        images: Which images, (n,) int64.
        classes: From `paka.protocols.patches.patch_classes`.
        standard: How tokens are standardised.
        distance: `cosine` or `L2`.
        void: Whether void pixels vote.
    """
    patches = labelled_patches(train, images, classes, standard)
    if distance == "cosine":
        for part in patches.tokens.split(IMAGES * classes.shape[1]):
            part.copy_(F.normalize(part.float(), dim=1))
    return PatchIndex(train, standard, classes, patches, distance, void)


def predictions(
    index: PatchIndex, query: DenseFeatures, images: Tensor, neighbours: Sequence[int]
) -> Iterator[tuple[Tensor, dict[int, Tensor]]]:
    """Yield some images at a time: their numbers, (b,), and for each k their predictions, (b, H, W) uint8.

    Args:
        index: Training patches.
        query: What is segmented.
        images: Which of its images, (n,) int64.
        neighbours: Numbers of neighbours k.

    Raises:
        ValueError: There are fewer patches than neighbours.
    """
    workspace = query.workspace
    keys = workspace.near(index.patches.tokens)
    offsets = euclidean_offsets(keys) if index.distance == "L2" else None
    parts = images.split(IMAGES)
    for part in tracked(parts, len(parts)):
        queries = index.standard(query.tokens[part].flatten(0, 2)).to(workspace.device)
        if index.distance == "cosine":
            queries = F.normalize(queries, dim=1)
        faster = workspace.bfloat16 and offsets is None
        found = nearest(queries, keys, max(neighbours), offsets=offsets, bfloat16=faster).indices.cpu()
        votes = [label_votes(index, places, neighbours) for places in found.split(QUERIES)]
        maps = {k: torch.cat([vote[k] for vote in votes]) for k in neighbours}
        yield part, {k: enlarged(values.unflatten(0, (len(part), -1)), query) for k, values in maps.items()}


def label_votes(index: PatchIndex, found: Tensor, neighbours: Sequence[int]) -> dict[int, Tensor]:
    """Return for each k what most of the k nearest patches show at each pixel, (q, p * p) uint8.

    Args:
        index: Training patches.
        found: Their places in the index, the nearest first, (q, max k) int64.
        neighbours: Numbers of neighbours k.
    """
    places = index.patches.places[found]
    maps = label_maps_at(index.features, places)
    if not index.void:
        maps = torch.where(maps == VOID, index.classes.flatten()[places][..., None], maps)
    return {k: majority(maps[:, :k], dim=1, void=index.void) for k in neighbours}


def _counts(index: PatchIndex, held: Tensor, neighbours: Sequence[int]) -> dict[int, Tensor]:
    """Return the counts of the held-out images for each k, pooled."""
    train = index.features
    totals = dict.fromkeys(neighbours, torch.zeros((), dtype=torch.int64))
    for images, found in predictions(index, train, held, neighbours):
        for k, maps in found.items():
            counts = class_counts(maps, train.labels[images], train.num_classes, void=index.void)
            totals[k] = totals[k] + counts.sum(dim=0)
    return totals
