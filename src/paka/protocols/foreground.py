"""Foreground without labels: clusters of tokens that the class token attends to (cluster-based foreground extraction)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from paka.clustering import kmeans, reduce
from paka.features import DenseFeatures
from paka.protocols import Outcome, Profile, counted, label_size
from paka.protocols.overclustering import enlarged
from paka.sources import VOID
from paka.statistics import Metric, share

IMAGES = 16
"""Images worked on at a time at the size of their labels."""

OUTSIDE = -1
"""What stands in maps of clusters for tokens that are not the image's own."""

LABELLED = "foreground threshold chosen by labels"
"""Note of scores whose foreground is not found without labels."""


@dataclass(frozen=True)
class Foreground:
    """How foreground is told from background.

    Attributes:
        attention_mass: Share of the class token's attention that the masks make up, of which clusters are told to be
            foreground: 0.65 in the code of the source, 0.6 and 0.7 in papers.
        blur_sigma: Standard deviation of the Gaussian that attention is blurred with before, in tokens.
        blur_radius: How far it reaches, in tokens.
        smallest: Tokens of the smallest connected part of a mask that is kept.
        clusters: Clusters that all tokens are divided into.
        labelled_threshold: Whether the precision from which on a cluster is foreground is chosen by the labels of the
            training images, as published, which is no longer without labels; else it is Otsu's.
        cuts: Shares of the clusters that may then be background, least and most.

    Raises:
        ValueError: A setting is out of range.

    Source: Ziegler and Asano, 2022 (arXiv 2204.13101).
    """

    attention_mass: float = 0.65
    blur_sigma: float = 0.6
    blur_radius: int = 3
    smallest: int = 3
    clusters: int = 200
    labelled_threshold: bool = False
    cuts: tuple[float, float] = (0.55, 0.75)

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to tell apart."""
        if not 0 < self.attention_mass < 1 or self.blur_sigma < 0 or self.blur_radius < 0:
            message = f"expected attention_mass in (0, 1) and no negative blur, got {self}: correct them"
            raise ValueError(message)
        if self.smallest < 1 or self.clusters < 2:
            raise ValueError(f"expected parts of 1 token and 2 clusters at least, got {self}: raise them")
        least, most = self.cuts
        if not 0 <= least < most <= 1:
            raise ValueError(f"expected cuts from a share to a larger one in [0, 1], got {self.cuts}")


def foreground_extraction(
    train: DenseFeatures | None, query: DenseFeatures, profile: Profile, *, seed: int
) -> Outcome:
    """Score the foreground of the query images by its Jaccard index, averaged over the images.

    Args:
        train: Labelled images that the threshold is chosen by, if the settings say so; else not used.
        query: Images whose first class is their background.
        profile: Reads `pca`, `kmeans_iterations`, `kmeans_restarts`, and the settings of kind `Foreground`.
        seed: Seed of the clusters' initial centres.

    Raises:
        ValueError: As for `foreground`.
    """
    found = foreground(reduced(query, profile), train, query, profile, seed=seed)
    size = label_size(query)
    maps = (enlarged(part, size).to(torch.uint8) for part in found.split(IMAGES))
    counts, pictures = counted(
        maps, query.shown, lambda part, rows: jaccard_counts(part > 0, query.labels[rows])
    )
    settings = profile.of(Foreground)
    note = LABELLED if settings.labelled_threshold else ""
    return Outcome(
        counts, (JACCARD,), pictures, {"k": settings.clusters, "note": note, "upsampling": "nearest"}
    )


def foreground(
    tokens: Tensor, train: DenseFeatures | None, query: DenseFeatures, profile: Profile, *, seed: int
) -> Tensor:
    """Return which tokens of the query images are foreground, (n, h, w) bool.

    The class token's attention gives a mask of each image; tokens of all images are clustered by their angles; a cluster
    is foreground if its tokens mostly lie in the masks.

    Args:
        tokens: The query images' own tokens, reduced, (M, d); see `reduced`.
        train: See `foreground_extraction`.
        query: Their attention.
        profile: See `foreground_extraction`.
        seed: Seed of the clusters' initial centres.

    Raises:
        ValueError: There is no attention, no labelled image to choose a threshold by, or fewer tokens than clusters.
    """
    settings = profile.of(Foreground)
    maps, precision = _clusters(tokens, query, profile, seed=seed)
    if settings.labelled_threshold:
        threshold = _threshold_of(train, profile, seed=seed)
    else:
        threshold = otsu(precision, torch.bincount(maps[maps != OUTSIDE], minlength=settings.clusters))
    chosen = precision >= threshold
    return chosen[maps.clamp_min(0)] & (maps != OUTSIDE)


def reduced(features: DenseFeatures, profile: Profile) -> Tensor:
    """Return the images' own tokens, standardised and on their first principal axes, (M, min(pca, D)) float32."""
    own = None if features.valid is None else features.valid.flatten()
    return reduce(features.tokens.flatten(0, 2), profile.pca, own).to(features.workspace.device)


def mapped(values: Tensor, features: DenseFeatures) -> Tensor:
    """Return what belongs to the images' own tokens, (M,) int64, as maps (n, h, w), `OUTSIDE` elsewhere."""
    maps = torch.full(features.tokens.shape[:3], OUTSIDE)
    maps[own_tokens(features)] = values.cpu()
    return maps


def own_tokens(features: DenseFeatures) -> Tensor:
    """Return which tokens are the images' own, (n, h, w) bool."""
    own = features.valid
    return torch.ones(features.tokens.shape[:3], dtype=torch.bool) if own is None else own


def _clusters(
    tokens: Tensor, features: DenseFeatures, profile: Profile, *, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the maps of clusters, (n, h, w) int64, and how precisely each tells the attention's masks, (K,) float64."""
    settings = profile.of(Foreground)
    if not features.attention.numel():
        raise ValueError("expected the attention of a class token, got none: choose an encoder that has one")
    if len(tokens) < settings.clusters:
        message = (
            f"expected at least {settings.clusters} tokens to tell foreground by, got {len(tokens)}: "
            "lower profile.settings.foreground.clusters"
        )
        raise ValueError(message)
    assigned = kmeans(
        F.normalize(tokens, dim=1),
        settings.clusters,
        iterations=profile.kmeans_iterations,
        restarts=profile.kmeans_restarts,
        seed=seed,
        spherical=True,
    )
    maps = mapped(assigned, features)
    masks = attention_masks(features.attention, own_tokens(features), settings)
    return maps, cluster_precision(maps, masks, settings.clusters)


def attention_masks(attention: Tensor, own: Tensor, settings: Foreground) -> Tensor:
    """Return the tokens with the most attention in each image, (n, h, w) bool.

    Attention is blurred, the fewest tokens that make up the mass are kept, and small parts are dropped; tokens that touch
    at a corner are connected.

    Args:
        attention: Attention of the class token, (n, h, w) float32.
        own: Which tokens are the image's own, (n, h, w) bool.
        settings: Reads `attention_mass`, `blur_sigma`, `blur_radius` and `smallest`.
    """
    sigma, radius = (0, *2 * (settings.blur_sigma,)), (0, *2 * (settings.blur_radius,))
    blurred = ndimage.gaussian_filter(attention.double().numpy(), sigma, radius=radius, mode="mirror")
    values, order = (torch.from_numpy(blurred) * own).flatten(1).sort(dim=1)
    running = values.cumsum(dim=1)
    # In ascending order, so that the tokens before the first kept one make up no more than the rest.
    kept = running > (1 - settings.attention_mass) * running[:, -1:]
    masks = torch.zeros_like(kept).scatter_(1, order, kept).view_as(own)
    within_an_image = np.zeros((3, 3, 3), bool)
    within_an_image[1] = True
    parts, _ = ndimage.label(masks.numpy(), within_an_image)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # what is in no part
    return torch.from_numpy((sizes >= settings.smallest)[parts])


def cluster_precision(maps: Tensor, masks: Tensor, clusters: int) -> Tensor:
    """Return the share of each cluster that lies in the masks, averaged over the images that show it, (K,) float64.

    Args:
        maps: Cluster of each token, (n, h, w) int64, below 0 for none.
        masks: (n, h, w) bool.
        clusters: Number of clusters K; those that are nowhere get 0.
    """
    size, inside = _by_image(maps, clusters), _by_image(maps.masked_fill(~masks, OUTSIDE), clusters)
    shares = inside / size.clamp_min(1)
    return shares.sum(dim=0) / (size > 0).sum(dim=0).clamp_min(1)


def _by_image(maps: Tensor, clusters: int) -> Tensor:
    """Count tokens, or pixels, by image and cluster, (n, K) float64, of maps (n, H, W) int64 below 0 for none."""
    cells = maps + clusters * torch.arange(len(maps))[:, None, None]
    counts = torch.bincount(cells[maps >= 0], minlength=len(maps) * clusters)
    return counts.view(len(maps), clusters).double()


def otsu(values: Tensor, weights: Tensor) -> float:
    """Return the value from which on the upper group begins, of two with the largest variance between them.

    Args:
        values: (K,) float64.
        weights: How much each counts, (K,), at least 0.

    Returns:
        One of the values; infinity where all that count are the same, so that there is no upper group.

    Source: Otsu, 1979 (doi 10.1109/TSMC.1979.4310076).
    """
    order = values.argsort()
    order = order[weights[order] > 0]
    values, weights = values[order].double(), weights[order].double()
    if not len(values) or values[0] == values[-1]:
        return inf
    below, moment = weights.cumsum(dim=0), (weights * values).cumsum(dim=0)
    between = (moment[-1] * below - moment * below[-1]).square() / (below * (below[-1] - below))
    steps = values[1:] > values[:-1]  # equal values are not parted
    return float(values[1:][torch.where(steps, between[:-1], -1.0).argmax()])


def _threshold_of(train: DenseFeatures | None, profile: Profile, *, seed: int) -> float:
    """Return the threshold that is best by the labels of the training images."""
    if train is None:
        message = (
            "expected labelled training images for foreground.labelled_threshold, got none: "
            "set profile.settings.foreground.labelled_threshold=false"
        )
        raise ValueError(message)
    maps, precision = _clusters(reduced(train, profile), train, profile, seed=seed)
    return labelled_threshold(maps, precision, train.labels, profile.of(Foreground).cuts)


def labelled_threshold(maps: Tensor, precision: Tensor, labels: Tensor, cuts: tuple[float, float]) -> float:
    """Return the precision from which on clusters make the best foreground by labels, to the nearest 0.05.

    Args:
        maps: Cluster of each token, (n, h, w) int64, below 0 for none.
        precision: Of each cluster, (K,) float64.
        labels: Class ids, (n, H, W) uint8 with 0 for the background and 255 for void, which is left out.
        cuts: Shares of the clusters that may be background, least and most.

    Source: Ziegler and Asano, 2022 (arXiv 2204.13101), as their code does it, but for void, which it takes for
    foreground.
    """
    clusters, order = len(precision), precision.argsort()
    least, most = (int(share * clusters) for share in cuts)
    first = torch.arange(least, max(most, least + 1))
    indices = torch.zeros(len(first), dtype=torch.float64)
    for part, truth in zip(maps.split(IMAGES), labels.split(IMAGES), strict=True):
        places = enlarged(part, (truth.shape[1], truth.shape[2])).masked_fill(truth == VOID, OUTSIDE)
        sizes = _by_image(places, clusters), _by_image(places.masked_fill(truth == 0, OUTSIDE), clusters)
        guess, hits = (size[:, order].flip(1).cumsum(dim=1).flip(1)[:, first] for size in sizes)
        true = ((truth != 0) & (truth != VOID)).flatten(1).sum(dim=1, keepdim=True)
        indices += (hits / (guess + true - hits).clamp_min(1)).sum(dim=0)
    best = float(precision[order][first[indices.argmax()]])
    return min(round(20 * best), 19) / 20


def jaccard_counts(found: Tensor, labels: Tensor) -> Tensor:
    """Return what the mean Jaccard index is computed from, (n, 3) float64.

    Args:
        found: Pixels taken for foreground, (n, H, W) bool.
        labels: Class ids, (n, H, W) uint8 with 0 for the background and 255 for void, which is left out.

    Returns:
        For each image its Jaccard index; 1 if it has foreground, found or true, else 0 for both; its true pixels.
    """
    true, guess = (labels != 0) & (labels != VOID), found & (labels != VOID)
    both, either = ((true & guess), (true | guess))
    sums = torch.stack([part.flatten(1).sum(dim=1).double() for part in (both, either, true)], dim=1)
    return torch.stack([sums[:, 0] / sums[:, 1].clamp_min(1), (sums[:, 1] > 0).double(), sums[:, 2]], dim=1)


def _mean_jaccard(counts: Tensor) -> Tensor:
    return share(counts[..., :2])


def _true_pixels(counts: Tensor) -> Tensor:
    return counts[..., 2]


JACCARD = Metric("Jaccard", _mean_jaccard, _true_pixels)
"""The mean over the images of the Jaccard index of foreground, of summed counts; see `jaccard_counts`."""
