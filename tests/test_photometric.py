"""Photometric augmentation: what each transform does to pixels, and that the generator alone decides."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from paka.photometric import GRAY, Photometric

PHOTOMETRIC = Photometric(0.8, 0.8, 0.8, 0.2, 0.8, 0.2, 0.5, (0.1, 2.0))
NOTHING = dataclasses.replace(PHOTOMETRIC, jitter_probability=0, gray_probability=0, blur_probability=0)
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)


def test_solarization_inverts_what_is_above_the_middle() -> None:
    solarize = dataclasses.replace(NOTHING, solarize_probability=1.0)
    np.testing.assert_array_equal(
        solarize(RAMP, np.random.default_rng(0)), np.where(RAMP > 127.5, 255 - RAMP, RAMP)
    )
    np.testing.assert_array_equal(NOTHING(RAMP, np.random.default_rng(0)), RAMP)


def test_solarization_follows_the_blur() -> None:
    blurred = dataclasses.replace(NOTHING, blur_probability=1.0)
    both = dataclasses.replace(blurred, solarize_probability=1.0)
    view = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    first, second = (photometric(view, np.random.default_rng(2)) for photometric in (blurred, both))
    np.testing.assert_array_equal(second, np.where(first > 127.5, 255 - first, first))


def test_the_generator_alone_decides_who_is_solarized() -> None:
    solarize = dataclasses.replace(NOTHING, solarize_probability=0.3)

    def solarized(seed: int) -> bool:
        return not np.array_equal(solarize(RAMP, np.random.default_rng(seed)), RAMP)

    first, again = ([solarized(seed) for seed in range(200)] for _ in range(2))
    assert first == again
    assert 0.2 < np.mean(first) < 0.4


def test_an_unused_solarization_leaves_the_stream_as_it_is() -> None:
    assert len(PHOTOMETRIC.pipeline.transforms) == 3
    assert len(dataclasses.replace(PHOTOMETRIC, solarize_probability=0.1).pipeline.transforms) == 4


@pytest.mark.parametrize("solarize", [0.0, 1.0])
def test_erasure_paints_about_its_share_of_whole_cells_grey(solarize: float) -> None:
    photometric = dataclasses.replace(NOTHING, solarize_probability=solarize, erase=0.4)
    view = np.full((60, 96, 3), 7, np.uint8)
    erased = (photometric(view, np.random.default_rng(0)) == GRAY).all(axis=2)
    cells = erased[:56].reshape(7, 8, 12, 8).mean(axis=(1, 3))
    assert set(np.unique(cells)) == {0.0, 1.0}
    assert 0.25 < cells.mean() < 0.55
    assert (view == 7).all()
