"""Labelled patches: standardised tokens of the training images with the class that most of each patch shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols import label_size
from paka.protocols.linear_classification import Standard, token_standard
from paka.sources import VOID

IMAGES = 64
"""Images worked on at a time, so that what is held beside features and patches does not grow with the data."""


@dataclass(frozen=True)
class LabelledPatches:
    """Standardised patches of some images that have a class.

    Attributes:
        tokens: (M, D), where the workspace has room.
        classes: What most of each patch shows, (M,) uint8.
        places: Numbers of the patches among all of the features, (M,) int64.
    """

    tokens: Tensor
    classes: Tensor
    places: Tensor


def majority(labels: Tensor, dim: int = -1, *, void: bool) -> Tensor:
    """Return the class that occurs most often along an axis, the first of equally frequent ones.

    Args:
        labels: Class ids with 255 for void, uint8.
        dim: The axis, which goes.
        void: Whether void counts as a class, which comes before the others, as the id 0 of ADE20K does.

    Returns:
        uint8; 255 where void is the most frequent or nothing else occurs.
    """
    most = (labels == VOID).sum(dim=dim, dtype=torch.int32) * int(void)
    found = torch.full_like(most, VOID, dtype=torch.uint8)
    occurring = torch.bincount(labels.flatten(), minlength=VOID + 1)[:VOID].nonzero()[:, 0]
    for name in occurring.tolist():
        votes = (labels == name).sum(dim=dim, dtype=torch.int32)
        found = torch.where(votes > most, name, found)
        most = torch.maximum(votes, most)
    return found


def label_maps(features: DenseFeatures, images: Tensor) -> Tensor:
    """Return the labels of the pixels of each patch of some images, (n,) int64, as (n, h * w, p * p) uint8."""
    rows, columns = features.tokens.shape[1:3]
    blocks = _blocks(features)[images].transpose(2, 3)
    return blocks.reshape(len(images), rows * columns, -1)


def label_maps_at(features: DenseFeatures, places: Tensor) -> Tensor:
    """Return the labels of the pixels of single patches, (..., p * p) uint8, by their numbers (...) int64."""
    rows, columns = features.tokens.shape[1:3]
    images, patches = places // (rows * columns), places % (rows * columns)
    return _blocks(features)[images, patches // columns, :, patches % columns].flatten(-2)


def _blocks(features: DenseFeatures) -> Tensor:
    """View the labels as (n, h, p, w, p)."""
    rows, columns = features.tokens.shape[1:3]
    height, width = label_size(features)
    return features.labels.view(-1, rows, height // rows, columns, width // columns)


def patch_classes(features: DenseFeatures, *, void: bool) -> Tensor:
    """Return the class that most of each patch shows, (n, h * w) uint8; 255 for void, see `majority`."""
    images = torch.arange(len(features)).split(IMAGES)
    return torch.cat([majority(label_maps(features, part), void=void) for part in images])


def standard_of_images(features: DenseFeatures, images: Tensor) -> Standard:
    """Return mean and deviation per channel of the patches of some images, without those beyond an image's border."""
    valid = None if features.valid is None else features.valid.flatten(1)
    return token_standard(features.tokens.flatten(1, 2), valid, images)


def labelled_patches(
    features: DenseFeatures, images: Tensor, classes: Tensor, standard: Standard
) -> LabelledPatches:
    """Gather the patches of some images that have a class.

    Args:
        features: Labelled features.
        images: Which images, (n,) int64.
        classes: From `patch_classes`, of all images.
        standard: How tokens are standardised.

    Raises:
        ValueError: No patch has a class.
        MemoryError: They do not fit.
    """
    patches = classes.shape[1]
    has = classes[images] != VOID
    places = (images[:, None] * patches + torch.arange(patches))[has]
    if not len(places):
        raise ValueError("expected patches with a class to learn from, got none: choose images with masks")
    what = f"{len(places)} labelled patches"
    tokens = features.workspace.empty(len(places), features.tokens.shape[3], what=what)
    start = 0
    for part, kept in zip(images.split(IMAGES), has.split(IMAGES), strict=True):
        rows = standard(features.tokens[part].flatten(1, 2)[kept])
        tokens[start : start + len(rows)] = rows
        start += len(rows)
    return LabelledPatches(tokens, classes.flatten()[places], places)


def enlarged(maps: Tensor, features: DenseFeatures) -> Tensor:
    """Return labels of the pixels of patches as maps at the size of the labels, by nearest neighbour where they differ.

    Args:
        maps: (b, h * w, p * p) uint8, or (b, h * w, 1) for one class per patch.
        features: Whose labels the maps are compared with.

    Returns:
        (b, H, W) uint8.
    """
    rows, columns = features.tokens.shape[1:3]
    side = round(maps.shape[2] ** 0.5)
    placed = (
        maps.view(-1, rows, columns, side, side).transpose(2, 3).reshape(-1, 1, rows * side, columns * side)
    )
    return F.interpolate(placed, size=label_size(features), mode="nearest-exact")[:, 0]
