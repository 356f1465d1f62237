"""Over-clustering: cluster the tokens of the scored images, then name each cluster after its majority class."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.progress import tracked
from paka.protocols import Outcome, Profile, label_size, segmentation
from paka.sources import VOID

IMAGES = 16
"""Images whose clusters are enlarged at a time."""

CHUNK = 65536
"""Tokens that are widened at a time."""


def overclustering(
    train: DenseFeatures | None, query: DenseFeatures, profile: Profile, *, seed: int
) -> Outcome:
    """Cluster the query tokens into K clusters and map each to the class it shows most often.

    Tokens are standardised and reduced by PCA first; cluster maps are upsampled by nearest neighbour
    (Ziegler and Asano, 2022, arXiv 2204.13101; K above the number of classes, many to one).

    Args:
        train: Not used: no label but those of the naming enters.
        query: What is clustered and scored.
        profile: Reads `clusters`, `cluster_naming`, `pca`, `kmeans_iterations` and `kmeans_restarts`.
        seed: Seed of the initial centres.

    Raises:
        ValueError: There are fewer tokens than clusters.
    """
    del train
    count = profile.number_of_clusters(query.num_classes)
    own = None if query.valid is None else query.valid.flatten()
    tokens = reduce(query.tokens.flatten(0, 2), profile.pca, own).to(query.workspace.device)
    assigned = kmeans(
        tokens, count, iterations=profile.kmeans_iterations, restarts=profile.kmeans_restarts, seed=seed
    ).cpu()
    maps = torch.zeros(query.tokens.shape[:3], dtype=torch.int64)
    maps.view(-1)[slice(None) if own is None else own] = assigned
    return named_segmentation(maps, count, query, profile)


def named_segmentation(maps: Tensor, count: int, query: DenseFeatures, profile: Profile) -> Outcome:
    """Return what clusters are worth once each is named after a class as the profile says.

    Args:
        maps: Cluster of each token, (n, h, w) int64 in [0, count).
        count: Number of clusters.
        query: The labels that clusters are named by and scored with.
        profile: Reads `cluster_naming`.
    """
    size = label_size(query)
    votes = torch.zeros(count, query.num_classes, dtype=torch.int64)
    for part, labels in zip(maps.split(IMAGES), query.labels.split(IMAGES), strict=True):
        votes += cluster_votes(enlarged(part, size), labels, count, query.num_classes)
    names = name_clusters(votes) if profile.cluster_naming == "majority" else match_clusters(votes)
    named = (names[enlarged(part, size)] for part in maps.split(IMAGES))
    return segmentation(named, query, profile, {"k": count})


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (n, h, w) int64 at the size of the labels, by nearest neighbour."""
    # Single precision holds numbers of clusters, below 2^24, exactly.
    return F.interpolate(maps[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()


def name_clusters(votes: Tensor) -> Tensor:
    """Name each cluster after the class that most of its labelled pixels show, (K,) uint8, of votes (K, C)."""
    return votes.argmax(dim=1).to(torch.uint8)


def match_clusters(votes: Tensor) -> Tensor:
    """Give each class the one cluster that makes the sum of IoU largest, (K,) uint8; clusters left over get 0.

    Args:
        votes: Labelled pixels by cluster and class, (K, C); K and C may differ.
    """
    counts = votes.double()
    union = counts.sum(dim=1, keepdim=True) + counts.sum(dim=0, keepdim=True) - counts
    rows, columns = linear_sum_assignment((counts / union.clamp_min(1)).numpy(), maximize=True)
    names = torch.zeros(len(votes), dtype=torch.uint8)
    names[torch.from_numpy(rows)] = torch.from_numpy(columns).to(torch.uint8)
    return names


def cluster_votes(clusters: Tensor, labels: Tensor, count: int, num_classes: int) -> Tensor:
    """Count labelled pixels by cluster and class, (count, num_classes) int64, of two maps of one shape."""
    labelled = labels != VOID
    cells = clusters[labelled] * num_classes + labels[labelled].long()
    return torch.bincount(cells, minlength=count * num_classes).view(count, num_classes)


def reduce(tokens: Tensor, dimensions: int, own: Tensor | None = None) -> Tensor:
    """Standardise tokens and project them on their first principal axes, (M, min(dimensions, D)) float32.

    The largest component of each axis is positive. Tokens that are all the same become zeros. Tokens are read in parts,
    three times: what is held beside the result does not grow with their number.

    Args:
        tokens: (N, D) float, perhaps mapped from a file.
        dimensions: Principal axes to keep.
        own: Which tokens count, M of them, (N,) bool; None for all.
    """
    mean, deviation = moments(tokens, own)
    scatter = sum(
        (part.double().T @ part.double() for part in _standard(tokens, own, mean, deviation)), torch.zeros(())
    )
    axes: Tensor = torch.linalg.eigh(scatter).eigenvectors
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    basis = (axes * largest.sign()).flip(1)[:, :dimensions].float()
    return torch.cat([part @ basis for part in _standard(tokens, own, mean, deviation)])


def moments(tokens: Tensor, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of tokens, (D,) float32 each, reading them in parts.

    Args:
        tokens: (N, D) float.
        own: Which of them count, (N,) bool; None for all.

    Source: Chan, Golub and LeVeque 1983, for moments of parts.
    """
    count, mean, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for part in _parts(tokens, own):
        variance, own_mean = torch.var_mean(part.double(), dim=0, correction=0)
        apart, both = own_mean - mean, count + len(part)
        squares = squares + variance * len(part) + apart.square() * count * len(part) / both
        mean, count = mean + apart * len(part) / both, both
    return mean.float(), (squares / max(count - 1, 1)).sqrt().float()


def _standard(tokens: Tensor, own: Tensor | None, mean: Tensor, deviation: Tensor) -> Iterator[Tensor]:
    """Yield the tokens that count with mean 0 and deviation 1, some at a time."""
    smallest = (1e-6 * deviation.max()).clamp_min(torch.finfo(deviation.dtype).tiny)
    scale = torch.maximum(deviation, smallest)
    for part in _parts(tokens, own):
        yield (part - mean) / scale


def _parts(tokens: Tensor, own: Tensor | None) -> Iterator[Tensor]:
    for start in range(0, len(tokens), CHUNK):
        rows = slice(start, start + CHUNK)
        part = tokens[rows].float()
        part = part if own is None else part[own[rows]]
        if len(part):
            yield part


def kmeans(
    tokens: Tensor, clusters: int, *, iterations: int, restarts: int, seed: int, spherical: bool = False
) -> Tensor:
    """Return the cluster of each token, of the restart with the least inertia.

    Lloyd's algorithm from k-means++ centres (Arthur and Vassilvitskii, 2007), in their variant that tries 2 + log K
    tokens for each; a cluster that runs empty is moved to the token farthest from its centre. Deterministic for a
    seed and a number of threads.

    Args:
        tokens: (M, D) float32.
        clusters: Number of clusters K.
        iterations: Lloyd iterations at most.
        restarts: Initialisations.
        seed: Seed of the initial centres.
        spherical: Whether centres have norm 1, so that tokens of norm 1 are clustered by their angles (Dhillon and
            Modha, 2001).

    Returns:
        (M,) int64 in [0, K).

    Raises:
        ValueError: There are fewer tokens than clusters.
    """
    if len(tokens) < clusters:
        message = f"expected at least {clusters} tokens to cluster, got {len(tokens)}: lower profile.clusters"
        raise ValueError(message)
    generator = torch.Generator().manual_seed(seed)
    trials = 2 + int(math.log(clusters))
    starts = (_plus_plus(tokens, clusters, generator, trials) for _ in range(restarts))
    results = [_lloyd(tokens, start, iterations, spherical=spherical) for start in starts]
    return min(results, key=lambda result: result[1])[0]


def _plus_plus(tokens: Tensor, clusters: int, generator: torch.Generator, trials: int) -> Tensor:
    """Draw centres one by one, each with probability proportional to its squared distance to the others.

    Of `trials` that are drawn each time, the one counts that leaves the least distance.
    """
    first = int(torch.randint(len(tokens), (1,), generator=generator))
    chosen, norms = [first], tokens.square().sum(dim=1)
    nearest = _distances(tokens, norms, chosen)[:, 0]
    for _ in range(1, clusters):
        # Searching the running sum has no limit on the number of tokens, unlike torch.multinomial.
        running = nearest.double().cumsum(dim=0)
        drawn = torch.rand(trials, generator=generator, dtype=torch.float64).to(running.device) * running[-1]
        tried = torch.searchsorted(running, drawn, right=True).clamp_max(len(tokens) - 1).tolist()
        left = torch.minimum(nearest[:, None], _distances(tokens, norms, tried))
        best = int(left.double().sum(dim=0).argmin())
        chosen.append(tried[best])
        nearest = left[:, best]
    return tokens[torch.tensor(chosen)]


def _distances(tokens: Tensor, norms: Tensor, places: list[int]) -> Tensor:
    """Return the squared distances of tokens (M, D) to some of them, (M, c), given the squared norms of all, (M,)."""
    centres = tokens[torch.tensor(places, device=tokens.device)]
    products = torch.addmm(centres.square().sum(dim=1), tokens, centres.T, alpha=-2.0)
    return (products + norms[:, None]).clamp_min(0.0)


def _lloyd(tokens: Tensor, centres: Tensor, iterations: int, *, spherical: bool) -> tuple[Tensor, float]:
    norms = tokens.square().sum(dim=1)
    assigned, distance = _assign(tokens, norms, centres)
    for _ in tracked(range(iterations), iterations):
        centres = _means(tokens, assigned, distance, len(centres))
        if spherical:
            centres = F.normalize(centres, dim=1)
        previous = assigned
        assigned, distance = _assign(tokens, norms, centres)
        if torch.equal(previous, assigned):
            break
    return assigned, float(distance.double().sum())


def _assign(tokens: Tensor, norms: Tensor, centres: Tensor, chunk: int = 16384) -> tuple[Tensor, Tensor]:
    """Return the nearest centre and the squared distance to it, (M,) each."""
    offset = centres.square().sum(dim=1)
    nearest = [torch.addmm(offset, part, centres.T, alpha=-2.0).min(dim=1) for part in tokens.split(chunk)]
    assigned = torch.cat([part.indices for part in nearest])
    distance = torch.cat([part.values for part in nearest]) + norms
    return assigned, distance.clamp_min(0.0)


def _means(tokens: Tensor, assigned: Tensor, distance: Tensor, clusters: int) -> Tensor:
    count = torch.bincount(assigned, minlength=clusters)
    sums = tokens.new_zeros(clusters, tokens.shape[1]).index_add_(0, assigned, tokens)
    means = sums / count.clamp_min(1)[:, None]
    empty = (count == 0).nonzero()[:, 0]
    if len(empty):
        means[empty] = tokens[distance.topk(len(empty)).indices]
    return means
