from __future__ import annotations

import numpy as np
import pytest

from paka.colours import palette, pca_basis, pca_rgb


def tokens(seed: int, channels: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = np.geomspace(4, 0.1, channels)
    return (rng.normal(size=(3, 4, 5, channels)) * spread + 7.0).astype(np.float32)


def linear_rgb(colours: np.ndarray) -> np.ndarray:
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def test_equal_features_get_equal_colours():
    before, after = pca_rgb(tokens(0), tokens(0))
    np.testing.assert_array_equal(before, after)


def test_colours_are_in_range_and_deterministic():
    first, again = pca_rgb(tokens(0), tokens(1)), pca_rgb(tokens(0), tokens(1))
    for colours, repeated in zip(first, again, strict=True):
        assert colours.shape == (3, 4, 5, 3)
        assert colours.min() >= 0
        assert colours.max() <= 1
        np.testing.assert_array_equal(colours, repeated)


def test_the_range_is_joint_and_spans_the_percentiles():
    both = np.stack(pca_rgb(tokens(0), tokens(1)))
    np.testing.assert_allclose((both == 0).mean(axis=(0, 1, 2, 3)), 0.02, atol=0.01)
    np.testing.assert_allclose((both == 1).mean(axis=(0, 1, 2, 3)), 0.02, atol=0.01)


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0.0), (1e3, 0.0), (1.0, 50.0), (20.0, -3.0)])
def test_scale_and_offset_of_one_side_do_not_matter(scale, offset):
    before, after = tokens(0).astype(np.float64), tokens(1).astype(np.float64)
    expected = pca_rgb(before, after)
    np.testing.assert_allclose(pca_rgb(before, after * scale + offset), expected, atol=1e-7)


def test_a_rotation_of_both_sides_keeps_the_components_up_to_sign():
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0]
    before, after = tokens(0).astype(np.float64), tokens(1).astype(np.float64)
    basis, side, _ = pca_basis(before, after)
    turned, turned_side, _ = pca_basis(before @ rotation, after @ rotation)
    np.testing.assert_allclose(np.abs(turned_side @ turned), np.abs(side @ basis), atol=1e-9)


def test_a_rotation_of_one_side_changes_the_colours():
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0]
    before, after = pca_rgb(tokens(0), tokens(0) @ rotation)
    assert np.abs(before - after).mean() > 0.1


def test_basis_is_that_of_the_singular_value_decomposition():
    basis, before, after = pca_basis(tokens(0), tokens(1))
    rows = np.concatenate([before.reshape(-1, 12), after.reshape(-1, 12)])
    expected = np.linalg.svd(rows)[2][:3].T
    np.testing.assert_allclose(np.abs(basis), np.abs(expected), atol=1e-9)
    assert (np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0) > 0).all()


def test_normalised_sides_weigh_the_same():
    for side in pca_basis(tokens(0) * 100, tokens(1))[1:]:
        np.testing.assert_allclose(side.mean(axis=(0, 1, 2)), 0, atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(side, axis=-1).mean(), 1)


def test_collapsed_features_are_one_colour():
    before, after = pca_rgb(tokens(0), np.full((3, 4, 5, 12), 0.1, dtype=np.float32))
    assert np.ptp(after, axis=(0, 1, 2)).max() == 0
    assert np.ptp(before) == 1


@pytest.mark.parametrize("after", [tokens(1)[:2], tokens(1)[..., :5], tokens(1)[0]])
def test_shapes_must_match(after):
    with pytest.raises(ValueError, match=r"one shape \(n, h, w, D\)"):
        pca_rgb(tokens(0), after)


def test_too_few_channels():
    with pytest.raises(ValueError, match="D of at least 3"):
        pca_rgb(tokens(0, channels=2), tokens(1, channels=2))


def test_palette_is_distinct_also_with_red_green_blindness():
    colours = palette(32)
    assert colours.dtype == np.uint8
    # Machado et al. 2009, table 1, deuteranopia.
    deuteranopia = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    )
    void = np.array([[222, 222, 222]])
    seen = np.concatenate([colours, void]) / 255
    for view in (seen, linear_rgb(seen) @ deuteranopia.T):
        distances = np.linalg.norm(view[:, None] - view[None], axis=-1)
        np.fill_diagonal(distances, 1)
        assert distances.min() > 0.02
    assert len(np.unique(colours, axis=0)) == 32


def test_palette_begins_alike_and_repeats():
    np.testing.assert_array_equal(palette(5), palette(40)[:5])
    np.testing.assert_array_equal(palette(40)[32:], palette(8))
