"""In-context depth: the depth of each patch by its nearest neighbours in a memory of patches of known depth.

The Hummingbird protocol (Balazevic et al., 2023, arXiv 2306.01667), with pixels of unknown depth left out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols import Profile, label_size
from paka.protocols.depth_errors import DepthEstimate, depth_estimate
from paka.protocols.in_context import IMAGES, Memory, check_memory, vote_maps


def in_context_depth(
    train: DenseFeatures, query: DenseFeatures, profile: Profile, *, seed: int
) -> DepthEstimate:
    """Estimate the depth of the query images as the softmax-weighted mean of each patch's k nearest memory patches.

    Args:
        train: Where the memory is taken from.
        query: What is estimated.
        profile: Reads `memory`, `k`, `temperature` and `depth_mean`.
        seed: Seed of the patches that are kept.

    Raises:
        ValueError: The memory has no room for a patch of each training image, or holds fewer than k patches.
    """
    memory = build_memory(train, size=profile.memory, seed=seed)
    check_memory(memory, profile)
    size = label_size(query)
    prediction = torch.cat(
        [
            F.interpolate(vote_maps(part, memory, profile), size=size, mode="bilinear", align_corners=False)
            for part in query.tokens.split(IMAGES)
        ]
    ).squeeze(1)
    return depth_estimate(prediction, query.depth, profile)


def build_memory(train: DenseFeatures, *, size: int, seed: int) -> Memory:
    """Keep an equal number of random patches per training image, with the mean of their known depths in metres.

    Args:
        train: Training features.
        size: Patches to keep at most.
        seed: Seed of the choice.

    Raises:
        ValueError: There are more training images than `size`.
    """
    n, h, w, _ = train.tokens.shape
    if size < n:
        message = (
            f"expected room for a patch of each of the {n} training images, got profile.memory={size}:"
            " raise it or lower profile.train_images"
        )
        raise ValueError(message)
    depth, known = patch_depths(train)
    draws = torch.rand(n, h * w, generator=torch.Generator().manual_seed(seed)).masked_fill(~known, torch.inf)
    chosen = draws.topk(min(size // n, h * w), largest=False).indices.sort(dim=1).values
    flat = (chosen + h * w * torch.arange(n)[:, None])[known.gather(1, chosen)]
    keys = F.normalize(train.tokens.flatten(0, 2)[flat].float(), dim=1)
    return Memory(keys, depth.flatten()[flat][:, None])


def patch_depths(features: DenseFeatures) -> tuple[Tensor, Tensor]:
    """Return each patch's mean known depth in metres and whether it has any, (n, h * w) float32 and bool."""
    n, h, w, _ = features.tokens.shape
    height, width = label_size(features)
    blocks = features.depth.view(n, h, height // h, w, width // w).transpose(2, 3).reshape(n, h * w, -1)
    pixels = (blocks > 0).sum(dim=2)
    return blocks.sum(dim=2) / pixels.clamp_min(1), pixels > 0
