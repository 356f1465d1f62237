"""In-context depth: the depth of each patch by its nearest neighbours in a memory of patches of known depth.

The Hummingbird protocol (Balazevic et al., 2023, arXiv 2306.01667), with pixels of unknown depth left out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols import Outcome, Profile, label_size
from paka.protocols.depth_errors import depth_estimate
from paka.protocols.in_context import (
    IMAGES,
    Memory,
    check_memory,
    empty_memory,
    patches_per_image,
    stated,
    vote_maps,
)


def in_context_depth(train: DenseFeatures, query: DenseFeatures, profile: Profile, *, seed: int) -> Outcome:
    """Estimate the depth of the query images as the softmax-weighted mean of each patch's k nearest memory patches.

    Args:
        train: Where the memory is taken from.
        query: What is estimated.
        profile: Reads `memory`, `k`, `temperature` and `depth_mean`.
        seed: Seed of the patches that are kept.

    Raises:
        ValueError: The memory has no room for a patch of each training image, or holds fewer than k patches.
    """
    memory = build_memory(train, profile, seed=seed)
    check_memory(memory, profile)
    size = label_size(query)
    maps = (
        F.interpolate(votes, size=size, mode="bilinear", align_corners=False).squeeze(1)
        for votes in vote_maps(query, memory, profile)
    )
    return depth_estimate(maps, query, profile, stated=stated(memory, profile))


def build_memory(train: DenseFeatures, profile: Profile, *, seed: int) -> Memory:
    """Keep an equal number of random patches per training image, with the mean of their known depths in metres.

    Args:
        train: Training features.
        profile: Reads `memory`, the patches to keep at most.
        seed: Seed of the choice.

    Raises:
        ValueError: There are more training images than `memory`.
        MemoryError: It does not fit.
    """
    n, h, w, _ = train.tokens.shape
    keep = min(patches_per_image(n, profile.memory), h * w)
    draws = torch.rand(n, h * w, generator=torch.Generator().manual_seed(seed))
    memory, count = empty_memory(train, n * keep, 1), 0
    for images, draw in zip(torch.arange(n).split(IMAGES), draws.split(IMAGES), strict=True):
        depth, known = patch_depths(train, images)
        chosen = draw.masked_fill(~known, torch.inf).topk(keep, largest=False).indices.sort(dim=1).values
        flat = (chosen + h * w * torch.arange(len(images))[:, None])[known.gather(1, chosen)]
        rows = slice(count, count + len(flat))
        memory.keys[rows] = F.normalize(train.tokens[images].flatten(0, 2)[flat].float(), dim=1)
        memory.values[rows] = depth.flatten()[flat][:, None]
        count = rows.stop
    return Memory(memory.keys[:count], memory.values[:count])


def patch_depths(features: DenseFeatures, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean known depth of each patch of n images in metres, and whether it has any, (n, h * w) each."""
    h, w = features.tokens.shape[1:3]
    height, width = label_size(features)
    blocks = features.depth[images].view(-1, h, height // h, w, width // w).transpose(2, 3)
    pixels = blocks.reshape(len(images), h * w, -1)
    known = (pixels > 0).sum(dim=2)
    return pixels.sum(dim=2) / known.clamp_min(1), known > 0
