"""Fully unsupervised segmentation: clusters of foreground tokens that keep together in images become segments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from torch import Tensor

from paka.clustering import kmeans
from paka.communities import co_occurrence, infomap, links, louvain
from paka.features import DenseFeatures
from paka.protocols import Outcome, Profile
from paka.protocols.foreground import LABELLED, OUTSIDE, Foreground, foreground, own_tokens, reduced
from paka.protocols.overclustering import named_segmentation

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
        ValueError: A setting is out of range, or Infomap is not installed.

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
        if self.method == "infomap" and find_spec("infomap") is None:
            message = (
                "expected the package infomap for communities.method=infomap, got none: install it with "
                "pip install infomap if its licence, GPL, suits you, or set communities.method=louvain"
            )
            raise ValueError(message)


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
    segments, as many as there are classes if that can be. What is no foreground is one segment more. Classes are
    matched to segments by the sum of IoU; segments that are left over become the first class.

    What was published differs in this: training and validation images are clustered together, the background is a
    cluster that may be joined to others, and neighbours are looked for in maps of 100 x 100 in place of tokens.

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
    segments = _communities(maps, modules, settings, seed)[maps.clamp_min(0)]
    one_to_one = replace(profile, cluster_naming="hungarian")
    outcome = named_segmentation(segments, int(segments.max()) + 1, query, one_to_one)
    own = {"k": settings.clusters, "note": _note(profile, extract=extract)}
    return replace(outcome, stated={**outcome.stated, **own})


def _note(profile: Profile, *, extract: bool) -> str:
    """Return what a reader of the score has to know."""
    facts = ["segments matched one to one"]
    if not extract:
        facts.append("no background extracted")
    elif profile.of(Foreground).labelled_threshold:
        facts.append(LABELLED)
    if profile.of(Communities).method != "louvain":
        facts.append(f"communities by {profile.of(Communities).method}")
    return "; ".join(facts)


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
    assigned = kmeans(
        tokens, count, iterations=profile.kmeans_iterations, restarts=profile.kmeans_restarts, seed=seed
    )
    maps[inside] = assigned.cpu()
    return maps


def _communities(maps: Tensor, modules: int, settings: Communities, seed: int) -> Tensor:
    """Return the community of each cluster and, one of its own, of the background, (K + 1,) int64.

    A cluster beside the background has it among its neighbours, so that clusters of different objects do not seem to
    belong together because they touch once; but it is linked to none.
    """
    count = settings.clusters
    probabilities = co_occurrence(maps, count + 1, settings.distances)
    weights = links(probabilities[:count, :count], settings.threshold)
    if settings.method == "infomap":
        found = infomap(weights, seed=seed, modules=modules, markov_time=settings.markov_time)
    else:
        found = louvain(weights, seed=seed, modules=modules)
    return torch.cat([found, found.max()[None] + 1])
