"""In-context segmentation: label each patch by its nearest neighbours in a memory of labelled patches.

The Hummingbird protocol (Balazevic et al., 2023, arXiv 2306.01667).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols import Profile, Segmentation, label_size, segmentation, upsampled_argmax
from paka.search import nearest
from paka.sources import VOID

IMAGES = 16
"""Images worked on at a time, so that what is held beside features and memory does not grow with the data."""


@dataclass(frozen=True)
class Memory:
    """Labelled patches of the training images.

    Attributes:
        keys: Tokens of norm 1, (M, D).
        values: What the neighbours of a patch are asked for, (M, C): here its class shares among labelled pixels.
    """

    keys: Tensor
    values: Tensor


def in_context(
    train: DenseFeatures, query: DenseFeatures, profile: Profile, *, seed: int, fraction: float = 1.0
) -> Segmentation:
    """Segment the query images by a softmax-weighted vote of each patch's k nearest memory patches.

    Args:
        train: Where the memory is taken from.
        query: What is segmented.
        profile: Reads `memory`, `memory_void`, `k` and `temperature`.
        seed: Seed of the images and patches that are kept.
        fraction: Share of the training images that enter the memory, chosen by the seed.

    Raises:
        ValueError: The memory has no room for a patch of each training image, or holds fewer than k patches.
    """
    train = share_of_images(train, fraction, passes=profile.memory_passes, seed=seed)
    if profile.memory_void == "first":
        train = replace(train, labels=train.labels.masked_fill(train.labels == VOID, 0))
    memory = build_memory(train, size=profile.memory, seed=seed)
    check_memory(memory, profile)
    size = label_size(query)
    prediction = torch.cat(
        [upsampled_argmax(vote_maps(part, memory, profile), size) for part in query.tokens.split(IMAGES)]
    )
    return segmentation(prediction, query, profile)


def share_of_images(train: DenseFeatures, fraction: float, *, passes: int, seed: int) -> DenseFeatures:
    """Return the features of a random share of the images, at least one, all passes of each.

    Args:
        train: Features of n images, the passes one after another.
        fraction: Share to keep, above 0.
        passes: Times each image is there.
        seed: Seed of the choice.
    """
    if fraction >= 1:
        return train
    n = len(train) // passes
    count = max(round(fraction * n), 1)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:count].sort().values
    return train.images((chosen + n * torch.arange(passes)[:, None]).flatten())


def check_memory(memory: Memory, profile: Profile) -> None:
    """Raise unless there are k neighbours to be found.

    Raises:
        ValueError: The memory holds fewer than k patches.
    """
    if len(memory.keys) < profile.k:
        message = (
            f"expected a memory of at least k={profile.k} patches, got {len(memory.keys)}: lower profile.k"
        )
        raise ValueError(message)


def vote_maps(tokens: Tensor, memory: Memory, profile: Profile) -> Tensor:
    """Turn tokens (n, h, w, D) into maps of the memory's values, (n, C, h, w)."""
    queries = F.normalize(tokens.flatten(0, 2).float(), dim=1)
    votes = vote(queries, memory, k=profile.k, temperature=profile.temperature)
    return votes.view(*tokens.shape[:3], -1).permute(0, 3, 1, 2)


def build_memory(train: DenseFeatures, *, size: int, seed: int) -> Memory:
    """Keep an equal number of patches per training image, those of the image's rare classes first.

    A patch's rank is the sum, over the classes it shows, of the number of the image's patches that show the
    class, times a uniform random number; the lowest ranks are kept. Patches without a labelled pixel never are.

    Args:
        train: Training features.
        size: Patches to keep at most.
        seed: Seed of the random numbers.

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
    draws = torch.rand(n, h * w, generator=torch.Generator().manual_seed(seed))
    keep = min(size // n, h * w)
    parts = [
        _rarest(replace(train, tokens=tokens, labels=labels), draw, keep)
        for tokens, labels, draw in zip(
            *(side.split(IMAGES) for side in (train.tokens, train.labels, draws)), strict=True
        )
    ]
    return Memory(torch.cat([part.keys for part in parts]), torch.cat([part.values for part in parts]))


def _rarest(train: DenseFeatures, draws: Tensor, keep: int) -> Memory:
    """Keep the `keep` labelled patches of lowest rank per image; `draws` are the random numbers, (n, h * w)."""
    shares = label_shares(train)
    n, patches = draws.shape
    shows = shares > 0
    frequency = shows.sum(dim=1, keepdim=True)
    labelled = shows.any(dim=2)
    rank = torch.where(labelled, (shows * frequency).sum(dim=2) * draws, torch.inf)
    chosen = rank.topk(keep, largest=False).indices.sort(dim=1).values
    flat = (chosen + patches * torch.arange(n)[:, None])[labelled.gather(1, chosen)]
    keys = F.normalize(train.tokens.flatten(0, 2)[flat].float(), dim=1)
    return Memory(keys, shares.flatten(0, 1)[flat])


def label_shares(features: DenseFeatures) -> Tensor:
    """Return each patch's class shares among its labelled pixels, (n, h * w, C); zeros where all are void."""
    n, h, w, _ = features.tokens.shape
    height, width = label_size(features)
    blocks = features.labels.view(n, h, height // h, w, width // w).transpose(2, 3).reshape(n, h * w, -1)
    counts = torch.stack([(blocks == c).sum(dim=2) for c in range(features.num_classes)], dim=2)
    labelled = (blocks != VOID).sum(dim=2, keepdim=True)
    return counts / labelled.clamp_min(1)


def vote(tokens: Tensor, memory: Memory, *, k: int, temperature: float, rows: int = 512) -> Tensor:
    """Average the values of each token's k nearest keys, weighted by a softmax of their cosines.

    Args:
        tokens: Queries of norm 1, (Q, D).
        memory: Keys and values.
        k: Neighbours.
        temperature: Of the softmax.
        rows: Queries whose neighbours' values are held at a time.

    Returns:
        (Q, C), rows sum to 1.
    """
    found = nearest(tokens, memory.keys, k)
    weights = (found.scores / temperature).softmax(dim=1)
    votes = [
        torch.einsum("qk,qkc->qc", part, memory.values[places])
        for part, places in zip(weights.split(rows), found.indices.split(rows), strict=True)
    ]
    return torch.cat(votes)
