"""Fully unsupervised segmentation: clusters of foreground tokens that keep together in images become segments."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from paka.communities import co_occurrence, infomap, links, louvain
from paka.features import DenseFeatures
from paka.protocols import Outcome, Profile
from paka.protocols.foreground import OUTSIDE, foreground, own_tokens, reduced
from paka.protocols.overclustering import kmeans, named_segmentation

METHODS = ("louvain", "infomap")
"""How communities may be found."""


@dataclass(frozen=True)
class Communities:
    """How clusters become segments.

    The defaults are NeCo's (arXiv 2408.11054), which were searched for with the labels of training images, except for
    the method.

    Attributes:
        clusters: Clusters of the tokens that are divided into segments.
        distances: How far tokens are that count as neighbours, in tokens.
        threshold: Probability of lying beside each other from which on two clusters are linked.
        method: How communities of linked clusters are found: `louvain`; or `infomap`, which was published, and whose
            package has to be installed.
        markov_time: Of Infomap; longer makes larger communities.

    Raises:
        ValueError: A setting is out of range.

    Source: Ziegler and Asano, 2022 (arXiv 2204.13101).
    """

    clusters: int = 189
    distances: tuple[int, ...] = (1, 2)
    threshold: float = 0.07
    method: str = "louvain"
    markov_time: float = 1.2

    def __post_init__(self) -> None:
        """Refuse what links nothing."""
        if self.clusters < 1 or min(self.distances, default=0) < 1:
            raise ValueError(f"expected clusters and distances of at least 1, got {self}: raise them")
        if not 0 < self.threshold <= 1 or not self.markov_time > 0:
            raise ValueError(
                f"expected a threshold in (0, 1] and a markov_time above 0, got {self}: correct them"
            )
        if self.method not in METHODS:
            raise ValueError(f"expected method to be one of {', '.join(METHODS)}, got {self.method}")


def unsupervised(
    train: DenseFeatures | None,
    query: DenseFeatures,
    profile: Profile,
    *,
    seed: int,
    extract: bool = True,
) -> Outcome:
    """Segment the query images without labels, then give each class the one segment that fits it best.

    Foreground is extracted, its tokens are clustered, and clusters that often lie beside each other are joined to
    segments, as many as there are classes if that can be. What is no foreground is one cluster more. Classes are
    matched to segments by the sum of IoU; segments that are left over become the first class.

    Where published, train and validation images are clustered together; here, the scored images alone.

    Args:
        train: See `paka.protocols.foreground.foreground`.
        query: What is segmented and scored.
        profile: Reads `pca`, `kmeans_iterations`, `kmeans_restarts`, and the settings of kind `Communities` and, for
            foreground, `paka.protocols.foreground.Foreground`.
        seed: Seed of the clusters and of the communities.
        extract: Whether there is foreground to extract; else all tokens are clustered.

    Raises:
        ValueError: There are fewer tokens than clusters, or foreground cannot be extracted.
    """
    settings = profile.of(Communities)
    tokens = reduced(query, profile)
    inside = own_tokens(query)
    if extract:
        found = foreground(tokens, train, query, profile, seed=seed)
        tokens, inside = tokens[found[inside]], found
    maps = _clustered(tokens, inside, query, profile, seed=seed)
    modules = query.num_classes - int(extract)
    found = _communities(
        co_occurrence(maps, settings.clusters + 1, settings.distances), modules, settings, seed
    )
    segments = found[maps.clamp_min(0)]
    one_to_one = replace(profile, cluster_naming="hungarian")
    outcome = named_segmentation(segments, int(found.max()) + 1, query, one_to_one)
    note = "segments matched one to one" + ("" if extract else ", no background extracted")
    return replace(outcome, stated={"k": settings.clusters, "note": note})


def _clustered(
    tokens: Tensor, inside: Tensor, query: DenseFeatures, profile: Profile, *, seed: int
) -> Tensor:
    """Return the cluster of each token, (n, h, w) int64: K where it is not inside, `OUTSIDE` beyond the image."""
    count = profile.of(Communities).clusters
    maps = torch.full(inside.shape, count).masked_fill(~own_tokens(query), OUTSIDE)
    if not len(tokens):  # nothing stands out: all is background
        return maps
    if len(tokens) < count:
        message = (
            f"expected at least {count} tokens to divide into segments, got {len(tokens)}: "
            "lower profile.settings.communities.clusters"
        )
        raise ValueError(message)
    maps[inside] = kmeans(
        tokens, count, iterations=profile.kmeans_iterations, restarts=profile.kmeans_restarts, seed=seed
    )
    return maps


def _communities(probabilities: Tensor, modules: int, settings: Communities, seed: int) -> Tensor:
    """Return the community of each cluster, (K,) int64."""
    weights = links(probabilities, settings.threshold)
    if settings.method == "infomap":
        return infomap(weights, seed=seed, modules=modules, markov_time=settings.markov_time)
    return louvain(weights, seed=seed, modules=modules)
