"""Communities of clusters: which clusters lie beside each other in maps of tokens, and which of them belong together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import networkx as nx
import torch
from networkx.algorithms.community import louvain_communities
from torch import Tensor

from paka.progress import tracked

CELLS = 2**22
"""Counts that are held at a time: of one image there are as many as pairs of clusters."""

OCTAVES = 8.0
"""Resolutions of modularity lie within 2 to the power of plus and minus this."""

HALVINGS = 12
"""Times that range is halved in search of the number of communities that is preferred, at most."""


def co_occurrence(maps: Tensor, clusters: int, distances: Sequence[int] = (1, 2)) -> Tensor:
    """Return how likely a neighbour of cluster i that is of another cluster is of cluster j, P(j | i).

    Neighbours are looked up in 8 directions. Each image's counts, without those within a cluster, are divided by their
    sum over j, and averaged over the images where i has neighbours: an image counts as much as any other, however
    large i is in it.

    Args:
        maps: Cluster of each token, (n, h, w) int64 in [0, clusters); tokens below 0 are no one's neighbours.
        clusters: Number of clusters K.
        distances: How far neighbours are, in tokens. Steps along a diagonal are rounded to whole rows and columns, as
            usual for co-occurrence: at distance 2, to one of each.

    Returns:
        (K, K) float64; row i sums to 1, or is 0 where cluster i has no neighbours.

    Raises:
        ValueError: A cluster's number is K or more.

    Source: Ziegler and Asano, 2022 (arXiv 2204.13101), community detection.
    """
    if maps.numel() and int(maps.max()) >= clusters:
        raise ValueError(f"expected numbers of clusters below {clusters}, got {int(maps.max())}")
    shares = torch.zeros(clusters, clusters, dtype=torch.float64)
    images = torch.zeros(clusters, dtype=torch.float64)
    parts = maps.split(max(CELLS // clusters**2, 1))
    for part in tracked(parts, len(parts)):
        counts = _neighbours(part, clusters, distances).double()
        totals = counts.sum(dim=2)
        shares += (counts / totals.clamp_min(1)[:, :, None]).sum(dim=0)
        images += (totals > 0).sum(dim=0)
    return shares / images.clamp_min(1)[:, None]


def _neighbours(maps: Tensor, clusters: int, distances: Sequence[int]) -> Tensor:
    """Count pairs of neighbours of two different clusters in each image, (n, K, K) int64, symmetric."""
    counts = torch.zeros(len(maps), clusters, clusters, dtype=torch.int64)
    image = torch.arange(len(maps))[:, None, None].expand_as(maps)
    for down, right in _steps(distances):
        one, other = _shifted(maps, down, right)
        counted = (one >= 0) & (other >= 0)
        cells = (_shifted(image, down, right)[0] * clusters + one) * clusters + other
        counts += torch.bincount(cells[counted], minlength=counts.numel()).view_as(counts)
    counts.diagonal(dim1=1, dim2=2).zero_()
    return counts + counts.transpose(1, 2)


def _steps(distances: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield rows and columns to go, in four of the eight directions; the others are these seen from the other side."""
    for distance, quarter in product(distances, range(4)):
        angle = quarter * math.pi / 4
        yield round(distance * math.sin(angle)), round(distance * math.cos(angle))


def _shifted(maps: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of (n, h, w) that have a neighbour `down` rows and `right` columns on, and the neighbours."""
    h, w = maps.shape[1:]
    left, far = max(-right, 0), max(right, 0)
    rows, columns = max(h - down, 0), max(w - abs(right), 0)
    one = maps[:, :rows, left : left + columns]
    other = maps[:, down : down + rows, far : far + columns]
    return one, other


def links(probabilities: Tensor, threshold: float) -> Tensor:
    """Return the weights of the links between clusters, (K, K), symmetric: 0 where there is none.

    Two clusters are linked if each is likely beside the other; the weight is the lower of the two probabilities.

    Args:
        probabilities: P(j | i), (K, K).
        threshold: What both probabilities reach at least, above 0.
    """
    weights = torch.minimum(probabilities, probabilities.T)
    return torch.where(weights >= threshold, weights, 0.0)


def louvain(weights: Tensor, *, seed: int, modules: int) -> Tensor:
    """Return the community of each cluster, (K,) int64, by the Louvain method of maximal modularity.

    Clusters without links are communities of their own. The resolution is searched for that divides the others into
    the number of communities that is preferred, or the nearest to it.

    Args:
        weights: Weights of the links, (K, K), symmetric.
        seed: Seed of the order in which clusters are tried.
        modules: Number of communities that is preferred.

    Source: Blondel et al., 2008 (arXiv 0803.0476).
    """
    graph = nx.from_numpy_array(weights.cpu().numpy())
    alone = int((weights.sum(dim=0) == 0).sum())
    low, high = -OCTAVES, OCTAVES
    found = []
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        groups = louvain_communities(graph, resolution=2.0**middle, seed=seed)
        excess = len(groups) - alone - modules
        found.append((abs(excess), groups))
        if excess == 0:
            break
        low, high = (middle, high) if excess < 0 else (low, middle)
    _, nearest = min(found, key=lambda pair: pair[0])
    return _numbered(nearest, len(weights))


def infomap(weights: Tensor, *, seed: int, modules: int, markov_time: float) -> Tensor:
    """Return the community of each cluster, (K,) int64, by Infomap: those that describe a random walk best.

    Clusters without links are communities of their own.

    Args:
        weights: Weights of the links, (K, K), symmetric.
        seed: Seed of the search.
        modules: Number of communities that is preferred.
        markov_time: Steps of the walk between two looks at it; longer makes larger communities.

    Raises:
        ModuleNotFoundError: The package `infomap` is missing.

    Source: Rosvall and Bergstrom, 2008 (arXiv 0707.0609).
    """
    from infomap import run  # GPL: only those who ask for it install it

    ends = weights.triu().nonzero()
    edges = [(i, j, float(weights[i, j])) for i, j in ends.tolist()]
    options = {"two_level": True, "markov_time": markov_time, "preferred_number_of_modules": modules}
    # Its seeds start at 1, and it refuses a network without links.
    found = dict(run(edges, options={**options, "seed": seed + 1}).modules()) if edges else {}
    alone = ({cluster} for cluster in range(len(weights)) if cluster not in found)
    together = ({c for c, m in found.items() if m == module} for module in {*found.values()})
    return _numbered([*together, *alone], len(weights))


def _numbered(groups: Iterable[set[int]], clusters: int) -> Tensor:
    """Return the number of each cluster's group, (K,) int64, in the order of their first members."""
    numbers = torch.zeros(clusters, dtype=torch.int64)
    for number, members in enumerate(sorted(groups, key=min)):
        numbers[sorted(members)] = number
    return numbers
