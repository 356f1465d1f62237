from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread
from tests.figures.layout import check_words, figure_of

from paka.figures.canvas import GAIN, LOSS, rgb
from paka.figures.depth import DEPTHS, coloured, coloured_depth, depth_figure, limits_of

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
TRUTH = np.full((2, 32, 48), 4.0)
TRUTH[:, :8] = 0.0


def test_unknown_depth_is_grey_and_the_scale_ends_at_the_limits():
    shown = coloured_depth(np.array([[0.0, 1.0, 3.0, 9.0]]), (1.0, 3.0))
    np.testing.assert_array_equal(shown[0, 0], 222)
    ends = np.rint(255 * np.array(mpl.colormaps[DEPTHS]([0.0, 1.0]))[:, :3])
    np.testing.assert_array_equal(shown[0, 1:3], ends)
    np.testing.assert_array_equal(shown[0, 3], ends[1])


def test_limits_are_percentiles_and_never_meet():
    values = RNG.normal(size=5000)
    np.testing.assert_allclose(limits_of(values), np.percentile(values, (2, 98)))
    low, high = limits_of(np.ones(7))
    assert low < high
    assert limits_of(np.zeros(0)) == (0.0, 1.0)


def test_the_last_column_is_green_where_the_second_is_closer(tmp_path):
    far, near = TRUTH + 1.0, TRUTH + 0.2
    for name, pair in (("gain", (far, near)), ("loss", (near, far))):
        predictions = dict(zip(("Before", "After"), pair, strict=True))
        depth_figure(tmp_path / f"{name}.png", IMAGES, truth=TRUTH, predictions=predictions)
    for name, colour in (("gain", GAIN), ("loss", LOSS)):
        pixels = np.rint(255 * imread(tmp_path / f"{name}.png")).astype(int)
        np.testing.assert_allclose(pixels[180, 12 + 4 * 294 + 100], rgb(colour), atol=2)
        np.testing.assert_array_equal(pixels[50, 12 + 4 * 294 + 100], 222)


@pytest.mark.parametrize("titles", [["Estimate"], ["Before", "After"]])
def test_words_stand_apart(monkeypatch, titles):
    predictions = {title: TRUTH + RNG.normal(size=TRUTH.shape) for title in titles}
    notes = {title: ["RMSE 0.51 m", "RMSE 0.49 m"] for title in titles}
    figure = figure_of(monkeypatch, depth_figure, IMAGES, truth=TRUTH, predictions=predictions, notes=notes)
    check_words(figure)


def test_nothing_known_is_drawn_all_the_same(tmp_path):
    depth_figure(tmp_path / "d.png", IMAGES, truth=0 * TRUTH, predictions={"Estimate": TRUTH})
    assert (tmp_path / "d.png").exists()


def test_values_are_clipped():
    scale = mpl.colormaps["gray"]
    np.testing.assert_array_equal(
        coloured(np.array([-5.0, 0.0, 1.0, 7.0]), (0.0, 1.0), scale)[:, 0], [0, 0, 255, 255]
    )
