"""Clustering of many tokens: their moments and principal axes, read in parts, and k-means."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.progress import tracked

CHUNK = 65536
"""Tokens that are widened at a time."""


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
    count = len(tokens) if own is None else int(own.sum())
    reduced = basis.new_empty(count, basis.shape[1])
    start = 0
    for part in _standard(tokens, own, mean, deviation):
        torch.mm(part, basis, out=reduced[start : start + len(part)])
        start += len(part)
    return reduced


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
    assigned = torch.empty(len(tokens), dtype=torch.int64, device=tokens.device)
    distance = torch.empty_like(norms)
    # Written over part after part: between blocks that come and go, small results would break the heap into pieces.
    products = tokens.new_empty(min(chunk, len(tokens)), len(centres))
    for start in range(0, len(tokens), chunk):
        rows = slice(start, start + chunk)
        part = tokens[rows]
        found = torch.addmm(offset, part, centres.T, alpha=-2.0, out=products[: len(part)])
        torch.min(found, dim=1, out=(distance[rows], assigned[rows]))
    return assigned, distance.add_(norms).clamp_min_(0.0)


def _means(tokens: Tensor, assigned: Tensor, distance: Tensor, clusters: int) -> Tensor:
    count = torch.bincount(assigned, minlength=clusters)
    sums = tokens.new_zeros(clusters, tokens.shape[1]).index_add_(0, assigned, tokens)
    means = sums / count.clamp_min(1)[:, None]
    empty = (count == 0).nonzero()[:, 0]
    if len(empty):
        means[empty] = tokens[distance.topk(len(empty)).indices]
    return means
