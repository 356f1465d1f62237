"""Retrieval of patches: which of an image to look for, and what is nearest to them among other images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.precision import in_float32

PURE = 0.75
"""Share of a patch's labelled pixels from which on it shows one class."""

IMAGES = 16
"""Images worked on at a time."""


class Patch(NamedTuple):
    """A patch of one of n images.

    Attributes:
        image: Number of the image.
        place: Number of the patch in its image, row by row.
        label: The class that most of its labelled pixels show; None if none is labelled.
    """

    image: int
    place: int
    label: int | None


def patch_of(share: Tensor, image: int, place: int) -> Patch:
    """Return a patch with its class, given its class shares, (C,)."""
    return Patch(image, place, int(share.argmax()) if bool(share.any()) else None)


def rarest_patches(shares: Tensor, frequency: Tensor, *, seed: int) -> list[Patch]:
    """Return one patch of each image, of the image's rarest class: nobody chose it for how it comes out.

    Classes of earlier images are passed over where an image has others. Which patch of the class it is, is drawn.
    Images without a patch that shows one class have none.

    Args:
        shares: Class shares among the labelled pixels of each patch, (n, h * w, C).
        frequency: How frequent the classes are, (C,).
        seed: Seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    found: list[Patch] = []
    for image, of_image in enumerate(shares):
        pure = of_image >= PURE
        there = pure.any(dim=0).nonzero()[:, 0].tolist()
        taken = {patch.label for patch in found}
        if not there:
            continue
        label = min(
            [one for one in there if one not in taken] or there, key=lambda one: float(frequency[one])
        )
        places = pure[:, label].nonzero()[:, 0]
        drawn = int(torch.randint(len(places), (1,), generator=generator))
        found.append(Patch(image, int(places[drawn]), label))
    return found


@in_float32
def nearest_patches(queries: Tensor, tokens: Tensor, k: int, *, valid: Tensor | None = None) -> Tensor:
    """Return the most similar patch of each of the k images that have the most similar ones, by cosine.

    One patch of an image stands for all, since its neighbours look alike.

    Args:
        queries: (Q, D).
        tokens: (n, h, w, D), perhaps mapped from a file.
        k: Patches for each query, at most n.
        valid: Which patches count, (n, h, w) bool; None for all.

    Returns:
        Numbers of image and patch, (Q, k, 2) int64, the most similar first.

    Raises:
        ValueError: There are fewer than k images.
    """
    if not 1 <= k <= len(tokens):
        raise ValueError(f"expected k from 1 to the number of images, {len(tokens)}, got {k}: lower k")
    wanted = F.normalize(queries.float(), dim=1)
    best = [
        _best(wanted, tokens[i : i + IMAGES], None if valid is None else valid[i : i + IMAGES])
        for i in range(0, len(tokens), IMAGES)
    ]
    scores, places = (torch.cat(parts, dim=1) for parts in zip(*best, strict=True))
    images = scores.topk(k, dim=1).indices
    return torch.stack([images, places.gather(1, images)], dim=2)


def _best(queries: Tensor, tokens: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return cosine and place of the most similar patch of b images, (Q, b) each."""
    keys = F.normalize(tokens.flatten(1, 2).to(queries), dim=2)
    scores = torch.einsum("qd,bpd->qbp", queries, keys)
    if valid is not None:
        scores = scores.masked_fill(~valid.flatten(1).to(scores.device), -torch.inf)
    found = scores.max(dim=2)
    return found.values, found.indices


@in_float32
def sorted_kernel(tokens: Tensor, labels: Tensor) -> Tensor:
    """Return the cosines of tokens (N, D), (N, N), sorted by their labels (N,), in the order of tokens within each."""
    order = labels.argsort(stable=True)
    unit = F.normalize(tokens.float(), dim=1)[order]
    return unit @ unit.T


def contrast(kernel: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean similarity of tokens of one class, and of tokens of different classes.

    Args:
        kernel: Similarities, (N, N).
        labels: Classes of the tokens, (N,).

    Returns:
        Means over the pairs of different tokens; NaN where there are none.
    """
    same = labels[:, None] == labels[None]
    others = ~torch.eye(len(labels), dtype=torch.bool)
    return float(kernel[same & others].mean()), float(kernel[~same].mean())
