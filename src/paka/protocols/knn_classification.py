"""Weighted k-nearest-neighbour classification of an image by its global token."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from paka.protocols import Outcome
from paka.protocols.classification import check_truth, outcome, values
from paka.protocols.in_context import Memory, vote

NEIGHBOURS = (10, 20, 100, 200)
"""Numbers of neighbours that accuracies are published for."""

TEMPERATURE = 0.07
"""Temperature that they are published at."""


def knn(
    train: Tensor,
    train_labels: Tensor,
    query: Tensor,
    classes: int,
    k: int,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Return the class that the k nearest training images vote for, weighted by exp(cosine / temperature).

    Args:
        train: Global tokens of n images, (n, D).
        train_labels: Their classes, (n,) int64.
        query: Global tokens of m images, (m, D).
        classes: Number of classes.
        k: Neighbours, at most n.
        temperature: Of the weights, above 0.

    Returns:
        (m,) int64.

    Raises:
        ValueError: k is not in [1, n], the temperature is not above 0, or the labels do not fit.

    Source: Wu et al. 2018 (arXiv 1805.01978); Caron et al. 2021 (arXiv 2104.14294).
    """
    return knn_scores(train, train_labels, query, classes, k, temperature).argmax(dim=1)


def knn_scores(
    train: Tensor, truth: Tensor, query: Tensor, classes: int, k: int, temperature: float = TEMPERATURE
) -> Tensor:
    """Return the share of the weighted votes that each class or tag gets, (m, classes) float32 in [0, 1].

    Args:
        train: Global tokens, (n, D).
        truth: Labels (n,) int64 or tags (n, classes) bool.
        query: Global tokens, (m, D).
        classes: Number of classes, or of tags.
        k: Neighbours, at most n.
        temperature: Of the weights, above 0.

    Raises:
        ValueError: As for `knn`.
    """
    check_truth(truth, len(train), classes)
    if not 1 <= k <= len(train):
        message = f"expected k from 1 to the number of training images, {len(train)}, got {k}: lower k"
        raise ValueError(message)
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, got {temperature}: the field's is {TEMPERATURE}")
    keys, tokens = (F.normalize(side.float(), dim=1) for side in (train, query))
    return vote(tokens, Memory(keys, values(truth, classes)), k=k, temperature=temperature)


def knn_classification(
    train: Tensor,
    truth: Tensor,
    query: Tensor,
    query_truth: Tensor,
    *,
    classes: int,
    k: int,
    temperature: float = TEMPERATURE,
) -> Outcome:
    """Score the votes for the query images; see `knn_scores`.

    Raises:
        ValueError: As for `knn`, or the query's truth does not fit.
    """
    check_truth(query_truth, len(query), classes)
    scores = knn_scores(train, truth, query, classes, k, temperature)
    return outcome(scores, query_truth, {"k": k, "temperature": temperature})
