"""The linear depth probe: oracle, noise and shuffled tokens, its formula and its loss."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.protocols.synthetic import PROFILE, predicted
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols import Outcome
from paka.protocols.depth_errors import POOLED
from paka.protocols.linear_depth import (
    DepthProbe,
    LinearDepth,
    linear_depth,
    log_loss,
    predict_depth,
    train_depth_probe,
)

BRIEF = LinearDepth(bins=32, steps=300, warmup_steps=30, batch=8, lr=3e-2, variance_from=10)


def rooms(kind: str, *, images: int = 24, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth depth from 1 to 9 m on a 24 x 24 map, a tenth of it unknown; its patches' means, or noise, as tokens."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 1.0 + 8.0 * torch.rand(images, 1, 3, 3, generator=generator)
    depth = F.interpolate(coarse, size=(24, 24), mode="bilinear")[:, 0]
    noise = torch.randn(images, 8, 8, 6, generator=generator)
    # A bin's weight is an affine function of the channels, cut off below: tents around the bins show the depth.
    means = F.avg_pool2d(depth[:, None], 3)[:, 0]
    tents = (1.0 - (means[..., None] - torch.linspace(1.0, 9.0, 6)).abs() / 1.6).clamp_min(0)
    known = torch.rand(depth.shape, generator=generator) < 0.9
    tokens = {"oracle": tents, "noise": noise}[kind]
    return tokens, torch.where(known, depth, 0.0)


def estimate(
    train: tuple[torch.Tensor, torch.Tensor],
    query: tuple[torch.Tensor, torch.Tensor],
    settings: LinearDepth = BRIEF,
) -> Outcome:
    """Run the protocol with settings of its own, on tokens and depth."""
    masks = torch.zeros(0, 0, 0, dtype=torch.uint8)
    sides = [DenseFeatures(tokens, masks, 0, depth) for tokens, depth in (train, query)]
    profile = dataclasses.replace(PROFILE, settings={"linear_depth": settings})
    return linear_depth(sides[0], sides[1], profile, seed=0)


def scores(errors: Outcome) -> tuple[float, float, float]:
    rmse, relative, close = (float(metric.of(errors.counts.sum(dim=0))) for metric in POOLED)
    return rmse, relative, close


def chance(depth: torch.Tensor) -> float:
    return float(depth[depth > 0].std())


def test_an_oracle_is_near_the_ceiling() -> None:
    errors = estimate(rooms("oracle"), rooms("oracle", images=12, seed=1))
    rmse, relative, close = scores(errors)
    assert rmse < 0.4
    assert relative < 0.07
    assert close > 0.98


def test_noise_is_at_chance() -> None:
    query = rooms("noise", images=12, seed=1)
    rmse, _, close = scores(estimate(rooms("noise"), query))
    assert rmse > 0.95 * chance(query[1])
    assert close < 0.6


def test_shuffled_tokens_collapse() -> None:
    tokens, depth = rooms("oracle", images=12, seed=1)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    shuffled = tokens.flatten(1, 2)[:, order].view_as(tokens)
    rmse, _, _ = scores(estimate(rooms("oracle"), (shuffled, depth)))
    assert rmse > 0.95 * chance(depth)


def test_a_seed_gives_the_same_probe_and_another_one_another() -> None:
    brief = dataclasses.replace(BRIEF, steps=5, warmup_steps=1)
    first, again, other = (
        train_depth_probe(*rooms("oracle"), brief, seed=s).to_bins.weight for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_unknown_and_too_distant_depth_teach_nothing() -> None:
    brief = dataclasses.replace(BRIEF, steps=5, warmup_steps=1)
    tokens, depth = rooms("oracle")
    far = torch.where(depth == 0, 1e6, depth)
    near = train_depth_probe(tokens, depth, brief, seed=0)
    assert torch.equal(near.to_bins.weight, train_depth_probe(tokens, far, brief, seed=0).to_bins.weight)


def test_images_without_known_depth_do_not_spoil_the_probe() -> None:
    tokens, depth = rooms("oracle")
    depth[::3] = 0.0
    single = dataclasses.replace(BRIEF, batch=1, lr=1e-2)
    assert scores(estimate((tokens, depth), rooms("oracle", seed=1), single))[2] > 0.8


def test_depth_is_the_expectation_over_the_bins() -> None:
    probe = DepthProbe(6, bins=7, nearest=0.5, farthest=9.5).eval()
    probe.to_bins.weight.data.normal_(generator=torch.Generator().manual_seed(2))
    tokens, _ = rooms("noise", images=3)
    logits = tokens.double().numpy() @ probe.to_bins.weight[:, :, 0, 0].detach().double().numpy().T
    weights = np.maximum(logits / np.sqrt(1 + 1e-5), 0) + 0.1
    expected = (weights * np.linspace(0.5, 9.5, 7)).sum(axis=-1) / weights.sum(axis=-1)
    np.testing.assert_allclose(
        torch.cat([*predict_depth(probe, tokens, (8, 8), batch=2)]), expected, rtol=1e-5
    )


def test_predictions_have_the_size_of_the_depth_and_stay_within_the_bins() -> None:
    probe = DepthProbe(6, bins=7, nearest=0.5, farthest=9.5).eval()
    found = torch.cat([*predict_depth(probe, 1e4 * rooms("noise", images=3)[0], (30, 20))])
    assert found.shape == (3, 30, 20)
    assert found.min() >= 0.5
    assert found.max() <= 9.5


@pytest.mark.parametrize("variance", [True, False])
def test_the_loss_equals_numpy(variance: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    guess, depth = (0.1 + 9 * torch.rand(2, 5, 6, generator=generator) for _ in range(2))
    used = torch.rand(2, 5, 6, generator=generator) < 0.6
    pairs = [side[used].double().numpy() + 1e-3 for side in (guess, depth)]
    error = np.log(pairs[0]) - np.log(pairs[1])
    expected = np.sqrt(variance * error.var() + 0.15 * error.mean() ** 2)
    assert float(log_loss(guess, depth, used, variance=variance)) == pytest.approx(expected, rel=1e-5)


def test_a_common_factor_costs_the_root_of_its_share_only() -> None:
    depth = 100.0 + torch.rand(2, 5, 6)
    loss = log_loss(3.0 * depth, depth, depth > 0)
    assert float(loss) == pytest.approx(0.15**0.5 * np.log(3.0), rel=1e-4)


def test_the_loss_of_nothing_and_of_no_error_has_a_finite_gradient() -> None:
    for used in (torch.zeros(1, 4, 4, dtype=torch.bool), torch.ones(1, 4, 4, dtype=torch.bool)):
        guess = torch.ones(1, 4, 4, requires_grad=True)
        log_loss(guess, torch.ones(1, 4, 4), used).backward()
        assert guess.grad is not None
        assert guess.grad.eq(0).all()


def test_the_eigen_crop_is_scored_if_asked_for() -> None:
    train, query = rooms("oracle"), rooms("oracle", images=4, seed=1)
    brief = dataclasses.replace(BRIEF, steps=2, warmup_steps=1)
    whole = estimate(train, query, brief)
    part = estimate(train, query, dataclasses.replace(brief, eigen_crop=True))
    assert torch.equal(predicted(whole), predicted(part))
    assert (part.counts[:, 0] < whole.counts[:, 0]).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bins": 1}, "2 bins"),
        ({"warmup_steps": 300}, "lower warmup_steps"),
        ({"nearest": 10.0}, "nearest < farthest"),
        ({"lr": 0.0}, "above 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(BRIEF, **changes)


def test_what_cannot_be_trained_on_is_refused() -> None:
    tokens, depth = rooms("oracle", images=3)
    with pytest.raises(ValueError, match="known depth"):
        train_depth_probe(tokens, torch.zeros_like(depth), BRIEF, seed=0)
    with pytest.raises(ValueError, match="for the same images"):
        estimate((tokens, depth), (tokens[:2], depth))
