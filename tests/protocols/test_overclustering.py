"""Over-clustering: how clusters are named."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from paka.protocols.overclustering import cluster_votes, match_clusters, name_clusters


def test_clusters_take_the_class_of_most_labelled_pixels() -> None:
    clusters = torch.tensor([[[0, 0, 0, 0, 0], [1, 1, 1, 2, 2]]])
    labels = torch.tensor([[[1, 1, 2, 255, 255], [2, 0, 2, 255, 255]]], dtype=torch.uint8)
    named = name_clusters(cluster_votes(clusters, labels, 3, 3))[clusters]
    assert named.tolist() == [[[1, 1, 1, 1, 1], [2, 2, 2, 0, 0]]]
    assert named.dtype == torch.uint8


def test_void_does_not_vote_on_names() -> None:
    # Counted as class 255 of 256, void would outvote the one labelled pixel.
    labels = torch.tensor([[[3, 255, 255, 255]]], dtype=torch.uint8)
    votes = cluster_votes(torch.zeros(1, 1, 4, dtype=torch.int64), labels, 1, 256)
    assert name_clusters(votes).tolist() == [3]


@pytest.mark.parametrize(("count", "classes"), [(3, 5), (6, 4), (4, 4)])
def test_one_to_one_names_are_the_best_of_all_and_clusters_left_over_get_0(count: int, classes: int) -> None:
    """Clusters and classes of unequal sizes, so that the most shared pixels are not the largest IoU."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        clusters, labels = ((names * rng.random((2, 6, 10)) ** 2).astype(int) for names in (count, classes))
        labels[rng.random(labels.shape) < 0.2] = 255
        iou = np.zeros((count, classes))
        for cluster, name in np.ndindex(count, classes):
            found, true = (clusters == cluster) & (labels != 255), labels == name
            iou[cluster, name] = (found & true).sum() / (found | true).sum()
        names = match_clusters(
            cluster_votes(
                torch.from_numpy(clusters), torch.from_numpy(labels.astype(np.uint8)), count, classes
            )
        )
        pairs = best_pairs(iou)
        assert sorted(pairs) == [*zip(*linear_sum_assignment(iou, maximize=True), strict=True)]
        assert names.tolist() == [dict(pairs).get(cluster, 0) for cluster in range(count)]
        assert names.dtype == torch.uint8


def best_pairs(worth: np.ndarray) -> list[tuple[int, int]]:
    """The rows and columns, one to one, that are worth most together, out of all that there are."""
    if len(worth) > worth.shape[1]:
        return [(row, column) for column, row in best_pairs(worth.T)]
    rows = range(len(worth))
    best = max(
        permutations(range(worth.shape[1]), len(worth)), key=lambda columns: worth[rows, columns].sum()
    )
    return [*zip(rows, best, strict=True)]
