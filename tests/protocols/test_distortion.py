"""Photometric distortion: what it does to pixels, how often, and that the generator alone decides."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from paka.protocols.distortion import Distortion, _scaled, _tinted

VIEW = np.random.default_rng(1).integers(0, 256, (12, 10, 3), dtype=np.uint8)
STILL = Distortion(0.0, (1.0, 1.0), (1.0, 1.0), 0.0)


def test_values_are_scaled_cut_off_and_rounded_down() -> None:
    for factor, offset in ((1.0, -31.5), (1.37, 0.0), (0.5, 20.0)):
        expected = (VIEW.astype(np.float32) * np.float32(factor) + np.float32(offset)).clip(0, 255)
        assert np.array_equal(_scaled(VIEW, factor, offset), expected.astype(np.uint8))


def test_saturation_scales_the_distance_from_grey() -> None:
    grey = VIEW.astype(float) @ np.array([0.2989, 0.587, 0.114])
    expected = (grey[..., None] + 0.5 * (VIEW - grey[..., None])).clip(0, 255)
    assert np.abs(_tinted(VIEW, 0.5, 0.0) - expected).max() <= 1.5


@pytest.mark.parametrize("turns", [-0.2, 0.5])
def test_hue_turns(turns: float) -> None:
    found = _tinted(VIEW, 1.0, turns) / 255
    for before, after in zip(VIEW.reshape(-1, 3) / 255, found.reshape(-1, 3), strict=True):
        hue, *rest = colorsys.rgb_to_hsv(*before)
        assert np.abs(np.array(colorsys.hsv_to_rgb((hue + turns) % 1, *rest)) - after).max() < 0.02


def test_each_change_is_made_half_of_the_time() -> None:
    assert np.array_equal(STILL(VIEW, np.random.default_rng(0)), VIEW)
    single = [
        Distortion(32.0, (1.0, 1.0), (1.0, 1.0), 0.0),
        Distortion(0.0, (0.5, 1.5), (1.0, 1.0), 0.0),
        Distortion(0.0, (1.0, 1.0), (0.5, 1.5), 0.0),
        Distortion(0.0, (1.0, 1.0), (1.0, 1.0), 0.5),
    ]
    for distortion in single:
        changed = [not np.array_equal(distortion(VIEW, np.random.default_rng(s)), VIEW) for s in range(300)]
        assert 0.4 < np.mean(changed) < 0.6


def test_the_generator_alone_decides() -> None:
    first, again, other = (Distortion()(VIEW, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.uint8


def test_contrast_comes_first_or_last() -> None:
    """With saturation 0 the image is grey in the end; whether contrast cut it off before shows."""
    strong = Distortion(0.0, (1.5, 1.5), (0.0, 0.0), 0.0)
    found = {strong(VIEW, np.random.default_rng(seed)).tobytes() for seed in range(60)}
    first, last = _tinted(_scaled(VIEW, 1.5, 0.0), 0.0, 0.0), _scaled(_tinted(VIEW, 0.0, 0.0), 1.5, 0.0)
    assert {first.tobytes(), last.tobytes()} <= found


@pytest.mark.parametrize("changes", [{"contrast": (1.5, 0.5)}, {"hue": 0.6}, {"brightness": -1.0}])
def test_settings_out_of_range_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="ascending factors"):
        Distortion(**changes)  # type: ignore[arg-type]
