"""Over-clustering: how clusters are named."""

from __future__ import annotations

import torch

from paka.protocols.overclustering import cluster_votes, name_clusters


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
