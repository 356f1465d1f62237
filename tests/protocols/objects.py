"""Synthetic images of objects in front of a background, for the protocols that tell one from the other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures

CLASSES = 5
"""The background and four kinds of objects."""

PARTS = 3
"""Kinds of tokens that each class is made of: clusters that only their places in images tell to belong together."""

GRID = 12
"""Rows and columns of tokens."""


def features(kind: str, *, images: int = 48, seed: int = 0) -> DenseFeatures:
    """One object of 5 to 7 tokens' side in each image; tokens are one-hot parts of its class or noise.

    The class token attends to the objects, and a little to a quarter of all other tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = _objects(images, generator)
    parts = torch.randint(0, PARTS, classes.shape, generator=generator)
    noise = torch.randn(*classes.shape, CLASSES * PARTS + 3, generator=generator)
    oracle = F.one_hot(classes * PARTS + parts, CLASSES * PARTS + 3).float() + 0.01 * noise
    return DenseFeatures(
        oracle if kind == "oracle" else noise,
        classes.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2).to(torch.uint8),
        CLASSES,
        attention=_attention(classes > 0, generator),
    )


def _objects(images: int, generator: torch.Generator) -> Tensor:
    classes = torch.zeros(images, GRID, GRID, dtype=torch.int64)
    for image in classes:
        side = int(torch.randint(5, 8, (1,), generator=generator))
        top, left = torch.randint(0, GRID - side + 1, (2,), generator=generator).tolist()
        image[top : top + side, left : left + side] = torch.randint(1, CLASSES, (1,), generator=generator)
    return classes


def _attention(objects: Tensor, generator: torch.Generator) -> Tensor:
    stray = torch.rand(objects.shape, generator=generator) < 0.25
    weights = (0.05 + objects + 0.3 * stray) * (0.5 + torch.rand(objects.shape, generator=generator))
    return weights / weights.sum(dim=(1, 2), keepdim=True)
