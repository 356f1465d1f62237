"""In-context depth: counts in closed form, the ceiling with oracle features, chance with noise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.protocols.synthetic import PROFILE
from tests.protocols.test_linear_depth import chance, rooms, scores

from paka.features import DenseFeatures
from paka.protocols.depth_errors import POOLED
from paka.protocols.in_context_depth import build_memory, in_context_depth, patch_depths

NONE = torch.zeros(24, 0, 0, dtype=torch.uint8)


def planes(kind: str, *, seed: int = 0) -> DenseFeatures:
    """24 images of 24 x 24 pixels with a depth of 1 to 10 m per patch, a tenth of the pixels unknown."""
    generator = torch.Generator().manual_seed(seed)
    patches = 1 + 9 * torch.rand(24, 6, 6, generator=generator)
    depth = patches.repeat_interleave(4, 1).repeat_interleave(4, 2)
    depth = depth.masked_fill(torch.rand(depth.shape, generator=generator) < 0.1, 0.0)
    angle = patches / 10 * torch.pi
    oracle = torch.stack([angle.cos(), angle.sin()], dim=-1)
    noise = torch.randn(24, 6, 6, 2, generator=generator)
    return DenseFeatures(oracle if kind == "oracle" else noise, NONE, 0, depth)


def delta1(kind: str) -> float:
    estimate = in_context_depth(planes(kind), planes(kind, seed=1), PROFILE, seed=0)
    return float(POOLED[2].of(estimate.counts.sum(dim=0)))


def test_oracle_features_reach_the_ceiling_and_noise_is_at_chance() -> None:
    # Upsampling between patches of unrelated depth costs the oracle most of what it loses.
    assert delta1("oracle") > 0.55
    depths = np.random.default_rng(0).uniform(1, 10, 10_000)
    chance = np.mean(np.maximum(depths.mean() / depths, depths / depths.mean()) < 1.25)
    assert delta1("noise") == pytest.approx(chance, abs=0.05)


def test_smooth_depth_is_found_and_that_of_other_images_is_not() -> None:
    (tokens, depth), query = rooms("oracle"), rooms("oracle", images=12, seed=1)
    order = torch.randperm(len(depth), generator=torch.Generator().manual_seed(0))
    own, others = (
        scores(
            in_context_depth(
                DenseFeatures(tokens, NONE, 0, known),
                DenseFeatures(query[0], NONE, 0, query[1]),
                PROFILE,
                seed=0,
            )
        )
        for known in (depth, depth[order])
    )
    assert own[2] > 0.98
    assert others[0] > 0.9 * chance(query[1])


def test_a_memory_too_small_is_refused() -> None:
    train, query = planes("oracle"), planes("oracle", seed=1)
    train.depth[:, :12] = 0.0
    known = 24 * 18
    in_context_depth(train, query, dataclasses.replace(PROFILE, k=known), seed=0)
    with pytest.raises(
        ValueError, match=f"expected a memory of at least k={known + 1} patches, got {known}: lower"
    ):
        in_context_depth(train, query, dataclasses.replace(PROFILE, k=known + 1), seed=0)


def test_the_depth_of_a_patch_is_the_mean_of_what_is_known() -> None:
    depth = torch.zeros(1, 4, 4)
    depth[0, 0, 0], depth[0, 1, 1] = 2.0, 4.0
    features = DenseFeatures(torch.zeros(1, 2, 2, 3), torch.zeros(1, 0, 0, dtype=torch.uint8), 0, depth)
    depths, known = patch_depths(features, torch.arange(1))
    assert depths.tolist() == [[3.0, 0.0, 0.0, 0.0]]
    assert known.tolist() == [[True, False, False, False]]


def test_the_memory_holds_patches_of_known_depth_alone() -> None:
    train = planes("oracle")
    train.depth[:, :12] = 0.0
    memory = build_memory(train, dataclasses.replace(PROFILE, memory=24 * 30, k=1), seed=0)
    assert len(memory.keys) == 24 * 18
    assert (memory.values > 0).all()
    assert build_memory(train, dataclasses.replace(PROFILE, memory=24 * 2, k=1), seed=0).values.shape == (
        48,
        1,
    )
    with pytest.raises(ValueError, match=r"room for a patch of each of the 24 training images"):
        build_memory(train, dataclasses.replace(PROFILE, memory=23, k=1), seed=0)
