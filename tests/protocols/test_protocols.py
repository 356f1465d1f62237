"""Each protocol is itself tested: oracle features reach the ceiling, noise stays at chance, shuffling collapses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols import Profile, Segmentation
from paka.protocols.in_context import Memory, build_memory, in_context, label_shares, vote
from paka.protocols.linear import linear, train_probe
from paka.protocols.overclustering import kmeans, overclustering, reduce
from paka.statistics import mean_iou

CLASSES = 5
PROTOCOLS = {"in_context": in_context, "linear": linear, "overclustering": overclustering}
PROFILE = Profile(
    name="test",
    grid=[6, 6],
    train_images=None,
    val_images=None,
    test_images=None,
    memory=10_000,
    k=10,
    temperature=0.02,
    clusters=12,
    pca=8,
    kmeans_iterations=30,
    kmeans_restarts=2,
    linear_lr=0.5,
    linear_momentum=0.9,
    linear_weight_decay=1e-4,
    linear_epochs=15,
    linear_batch=4,
    linear_resolution=24,
    bootstrap=100,
)


def features(kind: str, *, images: int = 24, seed: int = 0) -> DenseFeatures:
    """Two vertical stuff regions per image, on the patch grid; tokens are one-hot labels or noise."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randint(0, CLASSES, (images, 1, 2), generator=generator)
    token_labels = sides.repeat_interleave(3, dim=2).expand(images, 6, 6)
    labels = token_labels.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2).to(torch.uint8)
    noise = torch.randn(images, 6, 6, 12, generator=generator)
    oracle = F.one_hot(token_labels, 12).float() + 0.01 * noise
    return DenseFeatures(oracle if kind == "oracle" else noise, labels, CLASSES)


def score(segmentation: Segmentation) -> float:
    return float(mean_iou(segmentation.confusion.sum(dim=0)))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_oracle_features_reach_the_ceiling(name: str) -> None:
    train, query = features("oracle"), features("oracle", images=12, seed=1)
    # Where two regions meet, bilinear upsampling moves the border of soft maps by less than a pixel.
    assert score(PROTOCOLS[name](train, query, PROFILE, seed=0)) > 0.99


@pytest.mark.parametrize("name", PROTOCOLS)
def test_noise_stays_at_chance(name: str) -> None:
    train, query = features("noise"), features("noise", images=12, seed=1)
    assert score(PROTOCOLS[name](train, query, PROFILE, seed=0)) < 1.4 / CLASSES


@pytest.mark.parametrize("name", ["in_context", "linear"])
def test_shuffled_training_labels_collapse(name: str) -> None:
    train, query = features("oracle"), features("oracle", images=12, seed=1)
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(2))
    shuffled = dataclasses.replace(train, labels=train.labels[order])
    assert score(PROTOCOLS[name](shuffled, query, PROFILE, seed=0)) < 0.5


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_seed_reproduces(name: str) -> None:
    train, query = features("noise"), features("noise", images=6, seed=1)
    first, second = (PROTOCOLS[name](train, query, PROFILE, seed=4) for _ in range(2))
    assert torch.equal(first.prediction, second.prediction)


def test_in_context_equals_a_plain_float64_reference() -> None:
    train, query = features("noise", images=5), features("noise", images=3, seed=1)
    keys = train.tokens.double().reshape(-1, 12).numpy()
    values = label_shares(train).double().reshape(-1, CLASSES).numpy()
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    votes = []
    for token in query.tokens.double().reshape(-1, 12).numpy():
        cosine = keys @ (token / np.linalg.norm(token))
        nearest = np.argsort(-cosine)[:10]
        weights = np.exp(cosine[nearest] / 0.02)
        votes.append(weights @ values[nearest] / weights.sum())
    reference = torch.tensor(np.array(votes)).view(3, 6, 6, CLASSES).permute(0, 3, 1, 2)
    expected = F.interpolate(reference, size=(24, 24), mode="bilinear").argmax(dim=1)
    found = in_context(train, query, PROFILE, seed=0).prediction
    assert (found == expected).float().mean() > 0.999


def test_the_search_does_not_depend_on_its_chunks() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(300, 16, generator=generator), dim=1)
    memory = Memory(keys, torch.rand(300, 3, generator=generator))
    tokens = F.normalize(torch.randn(70, 16, generator=generator), dim=1)
    whole = vote(tokens, memory, k=9, temperature=0.1)
    torch.testing.assert_close(vote(tokens, memory, k=9, temperature=0.1, queries=13, keys=7), whole)


def test_in_context_ignores_the_scale_of_tokens() -> None:
    train, query = features("noise"), features("noise", images=4, seed=1)
    scaled = [dataclasses.replace(side, tokens=1000.0 * side.tokens) for side in (train, query)]
    assert torch.equal(
        in_context(train, query, PROFILE, seed=0).prediction, in_context(*scaled, PROFILE, seed=0).prediction
    )


def test_the_memory_prefers_rare_classes_and_skips_void() -> None:
    labels = torch.zeros(1, 24, 24, dtype=torch.uint8)
    labels[:, :4, :4] = 1
    labels[:, -4:] = 255
    train = DenseFeatures(torch.randn(1, 6, 6, 12), labels, 2)
    kept = [build_memory(train, size=5, seed=seed).values[:, 1].sum() for seed in range(40)]
    assert sum(float(share) for share in kept) > 30, "the one rare patch is nearly always kept"
    assert len(build_memory(train, size=36, seed=0).keys) == 30
    torch.testing.assert_close(label_shares(train)[0, -1], torch.zeros(2))


def test_a_small_memory_is_refused() -> None:
    train, query = features("noise", images=2), features("noise", images=2, seed=1)
    small = dataclasses.replace(PROFILE, memory=10)
    with pytest.raises(ValueError, match=r"at most profile.memory, got k=11 and memory=10"):
        dataclasses.replace(small, k=11)
    with pytest.raises(ValueError, match="expected a memory of at least k=80 patches, got 72"):
        in_context(train, query, dataclasses.replace(PROFILE, k=80), seed=0)


def test_upsampling_logits_equals_upsampling_features() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 7, 5, 4, generator=generator, dtype=torch.float64)
    probe = torch.nn.Conv2d(7, 3, 1).double()
    after = F.interpolate(probe(tokens), size=(20, 16), mode="bilinear")
    before = probe(F.interpolate(tokens, size=(20, 16), mode="bilinear"))
    torch.testing.assert_close(after, before)


def test_the_probe_does_not_learn_from_void() -> None:
    train = features("oracle")
    void = dataclasses.replace(train, labels=torch.full_like(train.labels, 255))
    slow = dataclasses.replace(PROFILE, linear_weight_decay=0.0)
    probe = train_probe(void, slow, seed=0)
    assert probe.bias is not None
    assert not probe.weight.isfinite().all() or probe.bias.abs().max() == 0


def test_kmeans_finds_planted_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    planted = torch.randint(0, 6, (600,), generator=generator)
    centres = 10.0 * torch.randn(6, 3, generator=generator)
    tokens = centres[planted] + 0.1 * torch.randn(600, 3, generator=generator)
    found = kmeans(tokens, 6, iterations=50, restarts=3, seed=0)
    pairs = {(int(a), int(b)) for a, b in zip(planted, found, strict=True)}
    assert len(pairs) == 6
    with pytest.raises(ValueError, match="at least 700 tokens to cluster, got 600"):
        kmeans(tokens, 700, iterations=1, restarts=1, seed=0)


def test_reduction_keeps_standardised_distances_when_nothing_is_dropped() -> None:
    tokens = torch.randn(50, 6) * torch.tensor([1.0, 10.0, 0.1, 5.0, 2.0, 1.0])
    standard = (tokens - tokens.mean(0)) / tokens.std(0)
    reduced = reduce(tokens, 6)
    torch.testing.assert_close(reduced @ reduced.T, standard @ standard.T, atol=1e-4, rtol=1e-4)
