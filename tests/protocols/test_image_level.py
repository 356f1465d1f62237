"""k-NN, linear and attentive probes: what holds for all, then each against its equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Reference
from tests.protocols.images import CLASSES, as_patches, labelled, tagged
from torch import Tensor, nn
from torch.nn import functional as F

from paka.protocols import Outcome
from paka.protocols.attentive_probe import (
    AttentiveProbe,
    AttentiveSettings,
    attentive_classification,
    predict,
    token_standard,
    train_attentive,
)
from paka.protocols.knn_classification import knn, knn_classification, knn_scores
from paka.protocols.linear_classification import (
    Standard,
    choose_strength,
    fit_logistic,
    linear_classification,
    standard_of,
)

SHORT = AttentiveSettings(epochs=20, batch=16, rates=(3e-3, 1e-2))


def by_knn(train: Tensor, truth: Tensor, query: Tensor, query_truth: Tensor) -> Outcome:
    return knn_classification(train, truth, query, query_truth, classes=CLASSES, k=10)


def by_line(train: Tensor, truth: Tensor, query: Tensor, query_truth: Tensor) -> Outcome:
    return linear_classification(train, truth, query, query_truth, classes=CLASSES, seed=0)


def by_attention(train: Tensor, truth: Tensor, query: Tensor, query_truth: Tensor) -> Outcome:
    sides = as_patches(train), truth, as_patches(query, seed=1), query_truth
    return attentive_classification(*sides, classes=CLASSES, seed=0, settings=SHORT)


PROBES = pytest.mark.parametrize("probe", [by_knn, by_line, by_attention])


@PROBES
def test_oracle_features_reach_the_ceiling(probe) -> None:
    assert probe(*labelled("oracle"), *labelled("oracle", 80, seed=1)).score > 0.97
    assert probe(*tagged("oracle"), *tagged("oracle", 80, seed=1)).score > 0.93


@PROBES
def test_noise_stays_at_chance(probe) -> None:
    assert abs(probe(*labelled("noise"), *labelled("noise", 400, seed=1)).score - 1 / CLASSES) < 0.08
    assert abs(probe(*tagged("noise"), *tagged("noise", 400, seed=1)).score - 0.3) < 0.08


@PROBES
def test_shuffled_labels_collapse(probe) -> None:
    for sides, chance in ((labelled, 1 / CLASSES), (tagged, 0.3)):
        (train, truth), query = sides("oracle"), sides("oracle", 80, seed=1)
        orders = [
            torch.randperm(len(truth), generator=torch.Generator().manual_seed(seed)) for seed in range(2)
        ]
        found = [probe(train, truth[order], *query).score for order in orders]
        assert np.mean(found) < chance + 0.2


@PROBES
def test_the_truth_of_the_query_only_scores(probe) -> None:
    train, (query, truth) = labelled("oracle"), labelled("oracle", 80, seed=1)
    found = [probe(*train, query, answer) for answer in (truth, (truth + 1) % CLASSES)]
    hits = [one.counts[:, 0] for one in found]
    assert not (hits[0] & hits[1]).any(), "an image cannot be of two classes"
    assert found[1].score < 0.1


@PROBES
def test_collapsed_features_score_low_instead_of_failing(probe) -> None:
    (train, truth), (query, answers) = labelled("oracle"), labelled("oracle", 80, seed=1)
    for value in (0.0, 0.1):
        sides = torch.full_like(train, value), truth, torch.full_like(query, value), answers
        assert probe(*sides).score < 0.6 if probe is by_attention else probe(*sides).score < 0.35


@PROBES
def test_half_precision_is_read(probe) -> None:
    (train, truth), (query, answers) = labelled("oracle"), labelled("oracle", 80, seed=1)
    assert probe(train.half(), truth, query.half(), answers).score > 0.97


@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_equals_brute_force_in_float64(k: int) -> None:
    (train, labels), (query, _) = labelled("noise", 90), labelled("noise", 40, seed=1)
    a, b = (
        side.double().numpy() / np.linalg.norm(side.double().numpy(), axis=1, keepdims=True)
        for side in (query, train)
    )
    votes = np.zeros((40, CLASSES))
    for i, cosines in enumerate(a @ b.T):
        for j in np.argsort(-cosines)[:k]:
            votes[i, labels[j]] += np.exp(cosines[j] / 0.07)
    assert np.array_equal(knn(train, labels, query, CLASSES, k).numpy(), votes.argmax(axis=1))
    expected = votes / votes.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(knn_scores(train, labels, query, CLASSES, k).numpy(), expected, atol=1e-5)
    tags = F.one_hot(labels, CLASSES).bool()
    torch.testing.assert_close(
        knn_scores(train, tags, query, CLASSES, k), knn_scores(train, labels, query, CLASSES, k)
    )
    assert torch.equal(knn(9 * train, labels, 0.1 * query, CLASSES, k), knn(train, labels, query, CLASSES, k))


@pytest.mark.parametrize(("k", "temperature"), [(0, 0.07), (151, 0.07), (5, 0.0)])
def test_neighbours_that_are_not_there_are_refused(k: int, temperature: float) -> None:
    train, labels = labelled("noise")
    with pytest.raises(ValueError, match=r"expected (k from 1|a temperature)"):
        knn(train, labels, train, CLASSES, k, temperature)


def overlapping(images: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (n, 12) in units of their own, and labels that they tell apart in part."""
    features, labels = labelled("oracle", images, seed=seed)
    noise = torch.randn(images, 12, generator=torch.Generator().manual_seed(seed + 50))
    return (features + 0.6 * noise) * torch.logspace(-2, 2, 12) + 3, labels


@pytest.mark.parametrize("strength", [1e-3, 1e-2, 1.0])
def test_logistic_regression_equals_scikit_learns(strength: float) -> None:
    (train, labels), (query, _) = overlapping(200), overlapping(60, seed=1)
    probe = fit_logistic(train, labels, CLASSES, strength)
    inverse = 1 / (strength * len(train))
    reference = Reference(C=inverse, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    reference.fit(probe.standard(train).double().numpy(), labels.numpy())
    expected = reference.predict_log_proba(probe.standard(query).double().numpy())
    np.testing.assert_allclose(probe(query).log_softmax(dim=1).numpy(), expected, atol=5e-3)

    tags = torch.stack([labels < 2, labels % 2 == 0], dim=1)
    both = fit_logistic(train, tags, 2, strength)
    for tag in range(2):
        reference.fit(probe.standard(train).double().numpy(), tags[:, tag].numpy())
        expected = reference.decision_function(probe.standard(query).double().numpy())
        np.testing.assert_allclose(both(query)[:, tag].numpy(), expected, atol=5e-3)


def test_features_are_standardised_where_they_vary() -> None:
    features, _ = overlapping(100)
    features[:, 4] = 0.1
    found = standard_of(features)(features)
    varying = [i for i in range(12) if i != 4]
    torch.testing.assert_close(found[:, varying].std(dim=0, correction=0), torch.ones(11), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(12), atol=1e-4, rtol=0)
    assert found[:, 4].abs().max() < 1e-6


def test_the_strength_follows_the_held_out_images() -> None:
    assert choose_strength(*labelled("noise"), classes=CLASSES, seed=0) >= 1
    assert choose_strength(*labelled("oracle"), classes=CLASSES, seed=0) < 1e-2
    with pytest.raises(ValueError, match="L2 strengths above 0"):
        choose_strength(*labelled("noise"), classes=CLASSES, seed=0, strengths=[0.0])


@pytest.mark.parametrize("heads", [1, 3])
def test_the_probe_equals_multi_head_attention(heads: int) -> None:
    standard = Standard(torch.zeros(12), torch.ones(12))
    probe = AttentiveProbe(12, CLASSES, heads, standard, seed=0)
    nn.init.normal_(probe.value_bias, generator=torch.Generator().manual_seed(1))
    attention = nn.MultiheadAttention(12, heads, batch_first=True)
    with torch.no_grad():
        identity = torch.eye(12)
        stacked = torch.cat([identity, probe.key.flatten(0, 1), probe.value.flatten(0, 1)])
        attention.in_proj_weight.copy_(stacked)
        attention.in_proj_bias.copy_(torch.cat([torch.zeros(24), probe.value_bias]))
        attention.out_proj.weight.copy_(identity)
        attention.out_proj.bias.zero_()
    tokens = torch.randn(7, 9, 12, generator=torch.Generator().manual_seed(2))
    valid = torch.rand(7, 9, generator=torch.Generator().manual_seed(3)) < 0.6
    valid[:, 0] = True
    query = probe.query.flatten().expand(7, 1, 12)
    gathered, _ = attention(query, tokens, tokens, key_padding_mask=~valid)
    expected = gathered[:, 0] @ probe.weight.T + probe.bias
    torch.testing.assert_close(probe(tokens, valid), expected, atol=1e-5, rtol=1e-5)


def test_attention_finds_the_one_token_that_a_mean_drowns() -> None:
    train, query = labelled("oracle", 300), labelled("oracle", 80, seed=1)
    tokens = [as_patches(side[0], 12, seed=seed, loud=1.0) for seed, side in enumerate((train, query))]
    attentive = attentive_classification(
        tokens[0], train[1], tokens[1], query[1], classes=CLASSES, seed=0, settings=SHORT
    )
    mean = by_line(tokens[0].mean(dim=1), train[1], tokens[1].mean(dim=1), query[1])
    assert attentive.score > mean.score + 0.15


def test_tokens_that_do_not_count_change_nothing() -> None:
    tokens, labels = as_patches(labelled("oracle", 60)[0]), labelled("oracle", 60)[1]
    valid = torch.ones(60, 8, dtype=torch.bool)
    valid[:, 6:] = False
    padded = torch.cat([tokens, torch.full((60, 2, 13), 50.0)], dim=1)
    settings = AttentiveSettings(epochs=2, batch=16)
    first = train_attentive(tokens, labels, classes=CLASSES, seed=0, settings=settings, rate=1e-2)
    second = train_attentive(padded, labels, valid, classes=CLASSES, seed=0, settings=settings, rate=1e-2)
    torch.testing.assert_close(predict(first, tokens), predict(second, padded, valid), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(token_standard(padded, valid).mean, tokens.flatten(0, 1).mean(dim=0))
    torch.testing.assert_close(
        token_standard(tokens).deviation, tokens.flatten(0, 1).std(dim=0, correction=0), atol=1e-5, rtol=1e-5
    )


def test_a_seed_reproduces_and_another_differs() -> None:
    tokens, labels = as_patches(labelled("oracle", 60)[0]), labelled("oracle", 60)[1]
    settings = AttentiveSettings(epochs=2, batch=16)
    found = [
        predict(
            train_attentive(tokens, labels, classes=CLASSES, seed=s, settings=settings, rate=1e-2), tokens
        )
        for s in (0, 0, 1)
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_probe_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="divide the 12 channels, got 5"):
        AttentiveProbe(12, 3, 5, Standard(torch.zeros(12), torch.ones(12)), seed=0)
    with pytest.raises(ValueError, match="at least 1"):
        AttentiveSettings(epochs=0)
    with pytest.raises(ValueError, match="learning rates above 0"):
        AttentiveSettings(rates=())
