from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from paka.figures.features import features_figure

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
TOKENS = RNG.normal(size=(2, 4, 6, 8))


def test_features_beside_images(tmp_path):
    features_figure(tmp_path / "figures" / "features.png", IMAGES, {"Before": TOKENS, "After": TOKENS})
    pixels = imread(tmp_path / "figures" / "features.png")
    assert pixels.shape[2] == 3, "no alpha channel"
    assert 800 < pixels.shape[1] < 1000
    assert pixels.shape[0] > 2 * 288 * 32 / 48
    np.testing.assert_array_equal(pixels[0], 1)
    # Equal features are equal pictures, one tile and one gap apart.
    np.testing.assert_array_equal(pixels[100, 306:594], pixels[100, 600:888])


def test_one_encoder_alone_has_a_column_of_its_own(tmp_path):
    features_figure(tmp_path / "f.png", IMAGES, {"Tokens": TOKENS})
    assert imread(tmp_path / "f.png").shape[1] < 650


def test_without_a_joint_basis_a_rotation_does_not_show(tmp_path):
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    sides = {"Before": TOKENS, "After": TOKENS @ rotation}
    shown = {}
    for joint in (True, False):
        features_figure(tmp_path / f"{joint}.png", IMAGES, sides, joint=joint)
        pixels = imread(tmp_path / f"{joint}.png")
        # Directions are known up to sign, which turns a colour into its complement.
        before, after = pixels[50:230, 306:594] - 0.5, pixels[50:230, 600:888] - 0.5
        shown[joint] = np.abs(np.abs(before) - np.abs(after)).mean()
    assert shown[False] < 0.05 < shown[True]


def test_features_must_be_of_the_images(tmp_path):
    with pytest.raises(ValueError, match="before holds 3 maps for 2 images"):
        features_figure(tmp_path / "f.png", IMAGES, {"Before": RNG.normal(size=(3, 4, 6, 8))})
