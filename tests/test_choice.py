"""Choosing a checkpoint without labels: planted structure is found, and rankings are compared."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from paka.choice import IMAGES, estimate, evenly, sample, write
from paka.features import DenseFeatures


def checkpoint(noise: float, *, images: int = 16, kinds: int = 6) -> DenseFeatures:
    """Tokens of 8 x 8 patches about six directions, the farther from them the more noise there is."""
    generator = torch.Generator().manual_seed(0)
    names = torch.randint(0, kinds, (images, 8, 8), generator=generator)
    drawn = torch.randn(images, 8, 8, 24, generator=generator)
    return DenseFeatures(5 * F.one_hot(names, 24).float() + noise * drawn, torch.zeros(images, 0, 0), 0)


NOISES = {"clean": 0.3, "worse": 1.0, "worst": 4.0}


def test_the_cleaner_the_structure_the_higher_the_estimates() -> None:
    found = estimate([(name, checkpoint(noise)) for name, noise in NOISES.items()], 3, seed=0)
    assert found.names == tuple(NOISES)
    assert found.best("stability") == "clean"
    assert found.stability[0] > found.stability[1] > found.stability[2]
    agreement = found.agreement({"clean": 3.0, "worse": 2.0, "worst": 1.0})
    assert agreement["stability"].spearman == pytest.approx(1.0)
    assert agreement["stability"].regret == 0.0
    relevance = [one.relevance for one in found.structures]
    assert relevance == sorted(relevance, reverse=True)


def test_the_regret_is_what_the_choice_costs() -> None:
    found = estimate([(name, checkpoint(noise)) for name, noise in NOISES.items()], 3, seed=0)
    agreement = found.agreement({"clean": 1.0, "worse": 2.5, "worst": 2.0})
    assert agreement["stability"].regret == pytest.approx(1.5)


def test_one_checkpoint_is_no_choice() -> None:
    with pytest.raises(ValueError, match="at least two checkpoints"):
        estimate([("only", checkpoint(1.0))], 1, seed=0)


def test_images_that_do_not_fill_the_frame_are_cut_to_what_all_have() -> None:
    features = checkpoint(1.0, images=3)
    valid = torch.zeros(3, 8, 8, dtype=torch.bool)
    valid[0, :6], valid[1, :, :5], valid[2] = True, True, True
    found = sample(replace(features, valid=valid))
    torch.testing.assert_close(found, features.tokens[:, :6, :5].flatten(1, 2))
    assert sample(features).shape == (3, 64, 24)


def test_images_are_spread_evenly_and_no_more_than_needed() -> None:
    assert evenly(5).tolist() == [0, 1, 2, 3, 4]
    many = evenly(10_000)
    assert (len(many), many[0], many[-1]) == (IMAGES, 0, 9_999)


def test_estimates_are_written_as_they_are(tmp_path) -> None:
    found = estimate([(name, checkpoint(noise)) for name, noise in NOISES.items()], 3, seed=0)
    with write(tmp_path / "choice.csv", found).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["checkpoint"] for row in rows] == list(NOISES)
    assert [float(row["dse"]) for row in rows] == pytest.approx(found.dse)
