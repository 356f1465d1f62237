"""In-context segmentation: label each patch by its nearest neighbours in a memory of labelled patches.

The Hummingbird protocol (Balazevic et al., 2023, arXiv 2306.01667).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.progress import tracked
from paka.protocols import Outcome, Profile, label_size, segmentation, upsampled_argmax
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
) -> Outcome:
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
    chosen = share_of_images(len(train), fraction, passes=profile.memory_passes, seed=seed)
    memory = build_memory(train, chosen, profile, seed=seed)
    check_memory(memory, profile)
    size = label_size(query)
    maps = (upsampled_argmax(votes, size) for votes in vote_maps(query, memory, profile))
    if profile.memory_void != "class":
        return segmentation(maps, query, profile, stated(memory, profile))
    void = query.num_classes
    voided = (part.masked_fill(part == void, VOID) for part in maps)
    return segmentation(voided, query, profile, stated(memory, profile), void=True)


def stated(memory: Memory, profile: Profile) -> dict[str, float]:
    """Return what a score by neighbours depends on beside the profile: how many patches there really were."""
    return {"memory": len(memory.keys), "k": profile.k, "temperature": profile.temperature}


def share_of_images(images: int, fraction: float, *, passes: int, seed: int) -> Tensor:
    """Return the numbers of a random share of the images, at least one, all passes of each, (m,) int64.

    Args:
        images: Number of images, the passes one after another.
        fraction: Share to keep, above 0.
        passes: Times each image is there.
        seed: Seed of the choice.
    """
    if fraction >= 1:
        return torch.arange(images)
    n = images // passes
    count = max(round(fraction * n), 1)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:count].sort().values
    return (chosen + n * torch.arange(passes)[:, None]).flatten()


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


def vote_maps(query: DenseFeatures, memory: Memory, profile: Profile) -> Iterator[Tensor]:
    """Turn the tokens of n images into maps of the memory's values, (b, C, h, w) each, some images at a time."""
    device = query.workspace.device
    near = Memory(query.workspace.near(memory.keys), query.workspace.near(memory.values))
    parts = query.tokens.split(IMAGES)
    for part in tracked(parts, len(parts)):
        queries = F.normalize(part.flatten(0, 2).to(device).float(), dim=1)
        votes = vote(
            queries, near, k=profile.k, temperature=profile.temperature, bfloat16=query.workspace.bfloat16
        )
        yield votes.view(*part.shape[:3], -1).permute(0, 3, 1, 2)


def build_memory(train: DenseFeatures, chosen: Tensor, profile: Profile, *, seed: int) -> Memory:
    """Keep an equal number of patches per training image, those of the image's rare classes first.

    A patch's rank is the sum, over the classes it shows, of the number of the image's patches that show the
    class, times a uniform random number; the lowest ranks are kept. Patches without a labelled pixel never are.
    Features are read some images at a time, and the memory lies where the workspace has room.

    Args:
        train: Training features.
        chosen: Which images enter it, (n,) int64.
        profile: Reads `memory`, the patches to keep at most, and `memory_void`.
        seed: Seed of the random numbers.

    Raises:
        ValueError: There are more training images than `memory`.
        MemoryError: It does not fit.
    """
    patches = train.tokens.shape[1] * train.tokens.shape[2]
    keep = min(patches_per_image(len(chosen), profile.memory), patches)
    draws = torch.rand(len(chosen), patches, generator=torch.Generator().manual_seed(seed))
    classes = train.num_classes + (profile.memory_void == "class")
    memory = empty_memory(train, len(chosen) * keep, classes)
    count = 0
    for images, draw in zip(chosen.split(IMAGES), draws.split(IMAGES), strict=True):
        shares = label_shares(train, images, void=profile.memory_void)
        kept, flat = _rarest(shares, draw, keep)
        rows = slice(count, count + len(flat))
        memory.keys[rows] = F.normalize(train.tokens[images].flatten(0, 2)[flat].float(), dim=1)
        memory.values[rows] = kept
        count = rows.stop
    return Memory(memory.keys[:count], memory.values[:count])


def empty_memory(train: DenseFeatures, size: int, values: int) -> Memory:
    """Return room for a memory of `size` patches with that many values each, where the workspace has it."""
    what = f"a memory of {size} patches"
    dim = train.tokens.shape[3]
    return Memory(train.workspace.empty(size, dim, what=what), train.workspace.empty(size, values, what=what))


def patches_per_image(images: int, size: int) -> int:
    """Return how many patches of each image a memory of `size` has room for.

    Raises:
        ValueError: There are more images than that.
    """
    if size < images:
        message = (
            f"expected room for a patch of each of the {images} training images, got profile.memory={size}:"
            " raise it or lower profile.train_images"
        )
        raise ValueError(message)
    return size // images


def _rarest(shares: Tensor, draws: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Return class shares, (m, C), and places, (m,), of the `keep` labelled patches of lowest rank per image.

    Args:
        shares: Class shares of the patches, (n, h * w, C).
        draws: The random numbers, (n, h * w).
        keep: Patches per image.
    """
    n, patches = draws.shape
    shows = shares > 0
    frequency = shows.sum(dim=1, keepdim=True)
    labelled = shows.any(dim=2)
    rank = torch.where(labelled, (shows * frequency).sum(dim=2) * draws, torch.inf)
    chosen = rank.topk(keep, largest=False).indices.sort(dim=1).values
    flat = (chosen + patches * torch.arange(n)[:, None])[labelled.gather(1, chosen)]
    return shares.flatten(0, 1)[flat], flat


def label_shares(features: DenseFeatures, images: Tensor, *, void: str = "skip") -> Tensor:
    """Return the class shares among the labelled pixels of each patch, (n, h * w, C), or (n, h * w, C + 1).

    They are zeros where all pixels are void, unless void counts.

    Args:
        features: Labelled features.
        images: Numbers of the images, (n,) int64.
        void: `skip` leaves void out, `first` takes it for the first class, `class` for one more, the last.
    """
    h, w = features.tokens.shape[1:3]
    height, width = label_size(features)
    labels = features.labels[images]
    classes = features.num_classes
    if void != "skip":
        labels = labels.masked_fill(labels == VOID, 0 if void == "first" else classes)
        classes += void == "class"
    blocks = labels.view(-1, h, height // h, w, width // w).transpose(2, 3).reshape(len(images), h * w, -1)
    counts = torch.stack([(blocks == c).sum(dim=2) for c in range(classes)], dim=2)
    labelled = (blocks != VOID).sum(dim=2, keepdim=True)
    return counts / labelled.clamp_min(1)


def vote(
    tokens: Tensor, memory: Memory, *, k: int, temperature: float, bfloat16: bool = False, rows: int = 512
) -> Tensor:
    """Average the values of each token's k nearest keys, weighted by a softmax of their cosines.

    Args:
        tokens: Queries of norm 1, (Q, D).
        memory: Keys and values.
        k: Neighbours.
        temperature: Of the softmax.
        bfloat16: See `paka.search.nearest`.
        rows: Queries whose neighbours' values are held at a time.

    Returns:
        (Q, C), rows sum to 1.
    """
    found = nearest(tokens, memory.keys, k, bfloat16=bfloat16)
    weights = (found.scores / temperature).softmax(dim=1)
    votes = [
        torch.einsum("qk,qkc->qc", part, memory.values[places.to(memory.values.device)].to(part))
        for part, places in zip(weights.split(rows), found.indices.split(rows), strict=True)
    ]
    return torch.cat(votes)
