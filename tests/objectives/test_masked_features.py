"""Histograms of oriented gradients against closed forms, and the objective that predicts them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.doubles import correspondences
from torch import Tensor

from paka.encoder import Tokens
from paka.objectives import Correspondences
from paka.objectives.masked_features import ORIENTATIONS, WIDTHS, MaskedFeatures, oriented_gradients

SIDE, PATCH, GRID = 64, 8, 8
CHANNELS = ORIENTATIONS + 1


def wave(angle: float, period: float = 32.0) -> Tensor:
    """A grating whose gradients point at `angle`, (1, 3, SIDE, SIDE) uint8."""
    y, x = np.mgrid[:SIDE, :SIDE]
    tones = 128 + 100 * np.sin(2 * np.pi / period * (x * np.cos(angle) + y * np.sin(angle)))
    return torch.from_numpy(tones.round().astype(np.uint8)).expand(1, 3, SIDE, SIDE)


def noise(images: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (images, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def showing(tokens: Tensor | None, clean: Tensor) -> Correspondences:
    globals_ = None if tokens is None else Tokens(tokens, tokens[:, 0, :0])
    return correspondences(0, images=len(clean), student_globals=globals_, clean=clean)


@pytest.mark.parametrize("bin_", range(ORIENTATIONS))
def test_a_grating_falls_into_the_bin_of_its_angle(bin_: int) -> None:
    features = oriented_gradients(wave(math.pi * bin_ / ORIENTATIONS), PATCH)
    inside = features[0, 2:-2, 2:-2].unflatten(-1, (len(WIDTHS), CHANNELS))
    shares = inside[..., :-1] / inside[..., -1:]
    assert (shares.argmax(dim=-1) == bin_).all()
    assert (shares[..., bin_] > 0.85).all()


def test_between_two_bins_a_grating_falls_into_both() -> None:
    features = oriented_gradients(wave(math.pi * 2.5 / ORIENTATIONS), PATCH)
    finest = features[0, 2:-2, 2:-2, :ORIENTATIONS]
    torch.testing.assert_close(finest[..., 2], finest[..., 3], atol=0.02, rtol=0)


def test_bins_add_up_to_the_magnitude_and_all_to_unit_length() -> None:
    features = oriented_gradients(noise(), PATCH)
    assert features.shape == (2, GRID, GRID, len(WIDTHS) * CHANNELS)
    parts = features.unflatten(-1, (len(WIDTHS), CHANNELS))
    torch.testing.assert_close(parts[..., :-1].sum(dim=-1), parts[..., -1])
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2, GRID, GRID))


def test_contrast_brightness_and_a_half_turn_do_not_count() -> None:
    picture = wave(0.4)
    faint = (picture.float() * 0.5 + 60).round().to(torch.uint8)
    torch.testing.assert_close(
        oriented_gradients(faint, PATCH), oriented_gradients(picture, PATCH), atol=0.02, rtol=0
    )
    turned = oriented_gradients(noise().flip(2, 3), PATCH).flip(1, 2)
    torch.testing.assert_close(turned, oriented_gradients(noise(), PATCH), atol=1e-5, rtol=0)


def test_a_flat_picture_has_no_gradients_and_stays_finite() -> None:
    flat = torch.full((1, 3, SIDE, SIDE), 77, dtype=torch.uint8)
    assert oriented_gradients(flat, PATCH).abs().max() < 1e-3


def test_the_loss_is_one_for_a_constant_guess_and_zero_for_the_truth() -> None:
    clean = torch.cat([noise(), wave(0.3), wave(1.2)])
    target = oriented_gradients(clean, PATCH)
    objective = MaskedFeatures(target.shape[-1])
    torch.nn.init.zeros_(objective.predictor.bias)
    torch.nn.init.eye_(objective.predictor.weight)
    deviation, mean = torch.std_mean(target, dim=(0, 1, 2))
    constant, _ = objective(showing(torch.zeros_like(target), clean))
    truth, _ = objective(showing((target - mean) / deviation, clean))
    assert constant.item() == pytest.approx(1, abs=0.02)
    assert truth.item() < 1e-3


def test_without_globals_it_says_what_to_set() -> None:
    with pytest.raises(ValueError, match="set augmentation=masked"):
        MaskedFeatures(16)(showing(None, noise()))
