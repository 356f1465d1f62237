"""What holds for every protocol: oracle features reach the ceiling, noise is at chance, shuffling collapses."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from tests.protocols.synthetic import CLASSES, PROFILE, features, score

from paka.protocols.in_context import in_context
from paka.protocols.knn_segmentation import knn_segmentation
from paka.protocols.linear import linear
from paka.protocols.logistic_segmentation import logistic_segmentation
from paka.protocols.overclustering import overclustering

PROTOCOLS = {
    "in_context": in_context,
    "in_context_1_8": partial(in_context, fraction=1 / 8),
    "linear": linear,
    "overclustering": overclustering,
    "knn_segmentation": knn_segmentation,
    "logistic_segmentation": logistic_segmentation,
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_oracle_features_reach_the_ceiling(name: str) -> None:
    train, query = features("oracle", images=64), features("oracle", images=12, seed=1)
    # Where two regions meet, bilinear upsampling moves the border of soft maps by less than a pixel.
    assert score(PROTOCOLS[name](train, query, PROFILE, seed=0)) > 0.99


@pytest.mark.parametrize("name", PROTOCOLS)
def test_noise_stays_at_chance(name: str) -> None:
    train, query = features("noise", images=48), features("noise", images=48, seed=1)
    assert score(PROTOCOLS[name](train, query, PROFILE, seed=0)) < 1 / CLASSES


@pytest.mark.parametrize("name", PROTOCOLS)
def test_shuffled_labels_collapse(name: str) -> None:
    train, query = features("oracle", images=96), features("oracle", images=48, seed=1)
    side = query if name == "overclustering" else train  # which reads no other labels
    found = []
    for seed in range(3):  # one shuffle may map a class or two to themselves
        order = torch.randperm(len(side.labels), generator=torch.Generator().manual_seed(seed))
        shuffled = dataclasses.replace(side, labels=side.labels[order])
        pair = (train, shuffled) if side is query else (shuffled, query)
        found.append(score(PROTOCOLS[name](*pair, PROFILE, seed=seed)))
    assert sum(found) / len(found) < 0.3


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_seed_reproduces(name: str) -> None:
    train, query = features("noise"), features("noise", images=6, seed=1)
    first, second = (PROTOCOLS[name](train, query, PROFILE, seed=4) for _ in range(2))
    assert torch.equal(first.counts, second.counts)
    assert all(torch.equal(first.pictures[n], second.pictures[n]) for n in range(6))


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_collapsed_features_score_low_instead_of_failing(name: str, value: float) -> None:
    pair = [features("oracle"), features("oracle", images=12, seed=1)]
    collapsed = [dataclasses.replace(side, tokens=torch.full_like(side.tokens, value)) for side in pair]
    assert score(PROTOCOLS[name](*collapsed, PROFILE, seed=0)) < 1 / CLASSES


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_void_query_has_no_score(name: str) -> None:
    train, query = features("oracle"), features("oracle", images=3, seed=1)
    void = dataclasses.replace(query, labels=torch.full_like(query.labels, 255))
    assert PROTOCOLS[name](train, void, PROFILE, seed=0).counts.sum() == 0


@pytest.mark.parametrize("name", PROTOCOLS)
def test_images_without_a_label_and_classes_that_nobody_shows_change_nothing(name: str) -> None:
    sides = [features("oracle", images=64), features("oracle", images=12, seed=1)]
    for side in sides:
        side.labels[::2] = 255
    more = [dataclasses.replace(side, num_classes=CLASSES + 2) for side in sides]
    outcome = PROTOCOLS[name](*more, PROFILE, seed=0)
    assert score(outcome) > 0.99
    assert outcome.counts[::2].sum() == 0
    assert outcome.counts.sum() == 6 * 24 * 24


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("grid", [6], "profile.grid to be two numbers of tokens"),
        ("grid", [6, 0], r"of at least 1, got \[6, 0\]: change profile.grid"),
        ("test_images", 0, "profile.test_images to be at least 1, or null for all images, got 0"),
        ("memory", 0, "profile.memory to be at least 1, got 0"),
        ("k", 10_001, "profile.k to be at most profile.memory=10000, got 10001"),
        ("temperature", 0.0, "profile.temperature to be finite and above 0, got 0.0"),
        ("temperature", float("nan"), "profile.temperature to be finite and above 0, got nan"),
        ("kmeans_restarts", 0, "profile.kmeans_restarts to be at least 1, got 0"),
        ("linear_lr", float("inf"), "profile.linear_lr to be finite and above 0, got inf"),
        ("linear_momentum", 1.0, r"profile.linear_momentum to be in \[0, 1\), got 1.0"),
        ("linear_weight_decay", -1e-4, "profile.linear_weight_decay to be finite and at least 0"),
        ("bootstrap", 0, "profile.bootstrap to be at least 1, got 0"),
    ],
)
def test_a_profile_refuses_settings_out_of_range(setting: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PROFILE, **{setting: value})
