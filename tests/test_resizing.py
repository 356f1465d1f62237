"""Resizing: each filter against an independent one, and what all filters have in common."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from tests.doubles import NoiseImages, tiny_encoder
from torch.nn import functional as F

from paka.features import extract
from paka.frames import Frame
from paka.resizing import INTERPOLATIONS, resize

IMAGE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8), (0, 0), 1.0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(24, 24), (100, 120), (30, 150)])
def test_the_named_filters_are_antialiased(interpolation: str, size: tuple[int, int]) -> None:
    pixels = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].double()
    wanted = F.interpolate(pixels, size=size, mode=interpolation, antialias=True, align_corners=False)
    found = resize(IMAGE, size, interpolation).astype(float)
    # Pillow rounds to whole values after the rows and again after the columns.
    assert np.abs(found - wanted[0].clamp(0, 255).permute(1, 2, 0).numpy()).max() < 1.5


def test_what_shrinks_is_averaged_over_its_area() -> None:
    means = IMAGE.reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    assert np.abs(resize(IMAGE, (16, 24)).astype(float) - means).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_centres_stay_in_place(interpolation) -> None:
    ramp = np.broadcast_to(np.arange(0, 160, dtype=np.uint8)[None, :, None], (20, 160, 3))
    found = resize(ramp, (10, 40), interpolation)[:, 2:-2, 0].astype(float)
    assert np.abs(found - (4 * np.arange(2, 38) + 1.5)).max() <= 0.5 + 1e-6


def test_filters_differ_and_others_are_refused() -> None:
    found = [resize(IMAGE, (24, 24), name) for name in INTERPOLATIONS]
    assert all(not np.array_equal(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    with pytest.raises(ValueError, match="one of area, bilinear, bicubic, got 'lanczos'"):
        resize(IMAGE, (24, 24), "lanczos")  # type: ignore[arg-type]


def test_features_are_those_of_the_filter() -> None:
    encoder = tiny_encoder()
    found = [
        extract(encoder, NoiseImages(), frame=Frame(3, 4, 8, "stretch", name), indices=[0]).tokens
        for name in INTERPOLATIONS
    ]
    assert not torch.allclose(found[0], found[2], atol=1e-3)
    assert not torch.allclose(found[1], found[2], atol=1e-3)
