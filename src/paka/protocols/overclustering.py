"""Over-clustering: cluster the tokens of the scored images, then name each cluster after its majority class."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from paka.clustering import kmeans, reduce
from paka.features import DenseFeatures
from paka.protocols import Outcome, Profile, label_size, segmentation
from paka.sources import VOID

IMAGES = 16
"""Images whose clusters are enlarged at a time."""


def overclustering(
    train: DenseFeatures | None,
    query: DenseFeatures,
    profile: Profile,
    *,
    seed: int,
    clusters: int | None = None,
) -> Outcome:
    """Cluster the query tokens into K clusters and map each to the class it shows most often.

    Tokens are standardised and reduced by PCA first; cluster maps are upsampled by nearest neighbour
    (Ziegler and Asano, 2022, arXiv 2204.13101; K above the number of classes, many to one).

    Args:
        train: Not used: no label but those of the naming enters.
        query: What is clustered and scored.
        profile: Reads `clusters`, `cluster_naming`, `pca`, `kmeans_iterations` and `kmeans_restarts`.
        seed: Seed of the initial centres.
        clusters: Number of clusters K; None for the profile's.

    Raises:
        ValueError: There are fewer tokens than clusters.
    """
    del train
    count = clusters or profile.number_of_clusters(query.num_classes)
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
    return segmentation(named, query, profile, {"k": count, "upsampling": "nearest"})


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
