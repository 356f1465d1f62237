"""Choosing checkpoints without labels: structure of dense tokens, stability of clusters, and how well such estimates rank.

DSE, the Dense representation Structure Estimator, is `M_inter - M_intra + lambda M_dim`. Its paper and the code its
authors released differ: the paper has no scale in the distances, squares them, and divides the nuclear norm of a
cluster of N_j tokens by N_j - 1; the code brings the distances to units of the mean distance to the mean token, does
not square them, and divides by sqrt(max(N_j - 1, D)); it also averages radii of clusters of one image and of several,
and takes lambda as 1, for its user to replace. Here the terms are the code's, which do not depend on the scale of
the tokens, and lambda is the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import kendalltau, spearmanr
from torch import Tensor
from torch.nn import functional as F

from paka.clustering import kmeans
from paka.diagnostics import effective_rank
from paka.precision import in_float32

ITERATIONS = 20
"""Lloyd iterations at most, as in the code of DSE."""


@dataclass(frozen=True)
class StructureSettings:
    """What DSE is computed of.

    Attributes:
        image_clusters: Clusters of the tokens of one image.
        group_clusters: Clusters of the tokens of a group of images.
        group: Images in a group.
        draws: Times that one token of each image is drawn for the effective dimensionality, at most one per patch.

    Raises:
        ValueError: A number is out of range.
    """

    image_clusters: int = 3
    group_clusters: int = 24
    group: int = 8
    draws: int = 16

    def __post_init__(self) -> None:
        """Refuse what has no clusters to compare."""
        if min(self.image_clusters, self.group, self.draws) < 1 or self.group_clusters < 2:
            message = (
                f"expected clusters, groups and draws of at least 1, and 2 clusters of a group, got {self}"
            )
            raise ValueError(message)


@dataclass(frozen=True)
class Structure:
    """The terms of DSE of one checkpoint.

    Attributes:
        inter: Mean distance of a token to the nearest centre of another cluster, in mean distances to the mean token.
        intra: Mean radius of clusters of one image and of a group of images, likewise.
        dimensionality: Effective rank of tokens of different images, as a share of the largest possible, in (0, 1].
    """

    inter: float
    intra: float
    dimensionality: float

    @property
    def relevance(self) -> float:
        """`inter - intra`: how far clusters stand apart for their size."""
        return self.inter - self.intra


@in_float32
def structure(tokens: Tensor, *, seed: int, settings: StructureSettings | None = None) -> Structure:
    """Return the terms of DSE of the patch tokens of n images, brought to norm 1.

    The images, their order and the seed should be the same for all checkpoints that are compared. Departing from the
    authors' code, k-means starts from k-means++ centres with squared distances and moves clusters that run empty, and
    the last group of fewer images is left out unless it is the only one.

    Args:
        tokens: (n, N, D).
        seed: Seed of the initial centres and of the drawn tokens.
        settings: Of what; None for the values its authors run it with.

    Raises:
        ValueError: Images have fewer patches than clusters, or a group has.

    Source: Dai et al. 2025 (arXiv 2510.17299), and the code of its authors; see the module for both.
    """
    settings = settings or StructureSettings()
    units = F.normalize(tokens, dim=2)
    images, patches, dim = units.shape
    group = min(settings.group, images)
    if patches < settings.image_clusters or group * patches < settings.group_clusters:
        message = f"expected at least {settings.image_clusters} patches an image and {settings.group_clusters} a group, got {patches} and {group * patches}: lower the clusters"
        raise ValueError(message)
    deviation = torch.linalg.vector_norm(units - units.mean(dim=(0, 1)), dim=2).mean()
    scale = float(deviation.clamp_min(torch.finfo(units.dtype).eps))
    single = [_radius(image, _clusters(image, settings.image_clusters, seed)) for image in units]
    pooled = [units[i : i + group].reshape(-1, dim) for i in range(0, images - group + 1, group)]
    named = [_clusters(part, settings.group_clusters, seed) for part in pooled]
    inter = _mean([_separation(part, names) for part, names in zip(pooled, named, strict=True)])
    several = _mean([_radius(part, names) for part, names in zip(pooled, named, strict=True)])
    return Structure(
        inter / scale, (_mean(single) + several) / 2 / scale, _dimensionality(units, settings.draws, seed)
    )


def dse(checkpoints: Sequence[Structure]) -> Tensor:
    """Return DSE of each checkpoint of a run: `inter - intra + lambda * dimensionality`; the higher, the better.

    Lambda is the standard deviation of the relevance over that of the dimensionality, over these checkpoints, so that
    both move DSE as much. It is therefore no number of one checkpoint, and not comparable across runs.

    Args:
        checkpoints: The terms of each, at least two.

    Returns:
        (len(checkpoints),) float64.

    Raises:
        ValueError: There are fewer than two checkpoints.

    Source: Dai et al. 2025 (arXiv 2510.17299).
    """
    if len(checkpoints) < 2:
        message = f"expected at least two checkpoints to compare, got {len(checkpoints)}: keep more of them"
        raise ValueError(message)
    relevance = torch.tensor([one.relevance for one in checkpoints], dtype=torch.float64)
    dimensionality = torch.tensor([one.dimensionality for one in checkpoints], dtype=torch.float64)
    spread = dimensionality.std()
    weight = torch.where(spread > 0, relevance.std() / spread, 0)
    return relevance + weight * dimensionality


def _clusters(tokens: Tensor, count: int, seed: int) -> Tensor:
    return kmeans(tokens, count, iterations=ITERATIONS, restarts=1, seed=seed)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _radius(tokens: Tensor, names: Tensor) -> float:
    """Return the mean nuclear norm of the centred clusters of two tokens and more, over sqrt(max(N_j - 1, D))."""
    radii = []
    for name in names.unique():
        members = tokens[names == name]
        if len(members) > 1:
            size = max(len(members) - 1, tokens.shape[1]) ** 0.5
            radii.append(float(torch.linalg.svdvals(members - members.mean(dim=0)).sum()) / size)
    return _mean(radii) if radii else 0.0


def _separation(tokens: Tensor, names: Tensor) -> float:
    """Return the mean distance of tokens (M, D) to the nearest centre of another cluster; 0 if there is one only."""
    centres = _centres(tokens, names)
    kinds, place = names.unique(return_inverse=True)
    if len(kinds) < 2:
        return 0.0
    distance = torch.cdist(tokens, centres[kinds]).scatter(1, place[:, None], torch.inf)
    return float(distance.min(dim=1).values.mean())


def _centres(tokens: Tensor, names: Tensor) -> Tensor:
    """Return the mean token of each cluster, (K, D), zeros for one without tokens."""
    count = torch.bincount(names)
    sums = torch.zeros(len(count), tokens.shape[1]).index_add_(0, names, tokens)
    return sums / count.clamp_min(1)[:, None]


def _dimensionality(units: Tensor, draws: int, seed: int) -> float:
    """Return the mean effective rank of sets of one token of each image, over min(n, D)."""
    images, patches, dim = units.shape
    generator = torch.Generator().manual_seed(seed)
    # Like shuffling the tokens of each image and taking the first, the second ...: no token is drawn twice.
    order = torch.rand(images, patches, generator=generator).argsort(dim=1)[:, :draws]
    ranks = [float(effective_rank(units[torch.arange(images), column])) for column in order.T]
    return _mean(ranks) / min(images, dim)


def cluster_stability(tokens: Tensor, clusters: int, seeds: Sequence[int], *, halves: bool = False) -> float:
    """Return how much clusterings agree: the mean adjusted Rand index of pairs of them.

    Args:
        tokens: Patch tokens, (n, N, D); clustered as they are.
        clusters: Number of clusters.
        seeds: With `halves`, one split for each; without, at least two, all pairs of which are compared.
        halves: False to cluster all tokens with each seed; True to cluster two random halves of the images for each
            seed, and give all tokens to the nearest centre of either.

    Returns:
        1 for clusterings that are the same, about 0 for chance; at least -0.5.

    Raises:
        ValueError: There are too few seeds or images, or fewer tokens than clusters.

    Source: Ben-Hur et al. 2002, for stability; Hubert and Arabie 1985, for the index.
    """
    if len(seeds) < (1 if halves else 2) or (halves and len(tokens) < 2):
        message = f"expected two seeds, or one and two images for halves, got {len(seeds)} and {len(tokens)}"
        raise ValueError(message)
    flat = tokens.flatten(0, 1).float()
    if halves:
        pairs = [_halves(tokens.float(), flat, clusters, seed) for seed in seeds]
    else:
        pairs = [*combinations([_clusters(flat, clusters, seed) for seed in seeds], 2)]
    return _mean([adjusted_rand_index(first, second) for first, second in pairs])


def _halves(tokens: Tensor, flat: Tensor, clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
    parts = [tokens[half].flatten(0, 1) for half in order.tensor_split(2)]
    centres = [_centres(part, _clusters(part, clusters, seed)) for part in parts]
    first, second = (torch.cdist(flat, means).argmin(dim=1) for means in centres)
    return first, second


def adjusted_rand_index(first: Tensor, second: Tensor) -> float:
    """Return the adjusted Rand index of two clusterings (M,) int64: 1 for the same, 0 expected by chance.

    Source: Hubert and Arabie 1985.
    """
    width = int(second.max()) + 1
    table = torch.bincount(first * width + second, minlength=(int(first.max()) + 1) * width).view(-1, width)
    both, rows, columns, all_ = (
        float((counts.double() * (counts.double() - 1) / 2).sum())
        for counts in (table, table.sum(dim=1), table.sum(dim=0), table.sum())
    )
    chance, most = rows * columns / max(all_, 1.0), (rows + columns) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)


class RankAgreement(NamedTuple):
    """How well estimates rank checkpoints.

    Attributes:
        spearman: Spearman's rho in [-1, 1]; NaN if either side is constant.
        kendall: Kendall's tau-b in [-1, 1]; likewise.
        regret: Best score minus the score of the checkpoint with the best estimate, in the unit of the scores.
    """

    spearman: float
    kendall: float
    regret: float


def rank_agreement(estimates: Sequence[float], scores: Sequence[float]) -> RankAgreement:
    """Return how well label-free estimates ranked checkpoints that were also scored with labels.

    Args:
        estimates: One for each checkpoint; the higher, the better it is held to be.
        scores: What labels said, in the same order.

    Raises:
        ValueError: There are fewer than three checkpoints, the lengths differ, or a number is not finite.
    """
    pair = np.asarray(estimates, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if pair[0].shape != pair[1].shape or pair[0].ndim != 1 or len(pair[0]) < 3:
        message = f"expected one estimate and one score of at least 3 checkpoints, got {pair[0].shape} and {pair[1].shape}"
        raise ValueError(message)
    if not all(np.isfinite(side).all() for side in pair):
        raise ValueError("expected finite estimates and scores: leave checkpoints without either out")
    regret = float(pair[1].max() - pair[1][pair[0].argmax()])
    if any(np.ptp(side) == 0 for side in pair):
        return RankAgreement(float("nan"), float("nan"), regret)
    return RankAgreement(float(spearmanr(*pair).statistic), float(kendalltau(*pair).statistic), regret)
