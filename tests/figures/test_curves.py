from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread
from tests.figures.layout import check_words, figure_of

from paka.figures.curves import curves_figure, smooth

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("length", [1, 2, 300])
def test_curves(tmp_path, length):
    steps = np.arange(length)
    values = np.exp(-steps / 50)
    values[:1] = np.nan if length > 1 else 1
    validation = {"in-context": ([0, length], [40.0, 45.0])}
    curves_figure(tmp_path / "c.png", steps, {"Loss": values, "CKA": 1 - values}, validation=validation)
    assert imread(tmp_path / "c.png").shape[:2] == (405, 1485)


def test_words_of_curves_stand_apart(monkeypatch):
    steps = np.arange(100)
    several = dict.fromkeys(("in_context", "linear", "overclustering"), (steps, steps * 0.3))
    series = {"loss": np.exp(-steps / 30), "cka": steps / 100, "rankme": 90 + steps}
    check_words(figure_of(monkeypatch, curves_figure, steps, series, validation=several))


def test_curves_need_matching_series(tmp_path):
    with pytest.raises(ValueError, match="series Loss has 2 values for 3 steps"):
        curves_figure(tmp_path / "c.png", [1, 2, 3], {"Loss": [1.0, 2.0]})
    with pytest.raises(ValueError, match="at least one series"):
        curves_figure(tmp_path / "c.png", [1, 2, 3], {})


def test_smoothing_keeps_constants_and_short_series():
    np.testing.assert_allclose(smooth(np.full(50, 3.0), width=4), 3.0)
    np.testing.assert_array_equal(smooth(np.array([1.0, 5.0, 2.0]), width=0.1), [1, 5, 2])
    assert smooth(np.zeros(0), width=0).shape == (0,)


def test_smoothing_is_a_normalised_gaussian():
    values = RNG.normal(size=30)
    offsets = np.arange(30) - 11
    weights = np.where(np.abs(offsets) <= 6, np.exp(-(offsets**2) / 8), 0)
    np.testing.assert_allclose(smooth(values, width=2)[11], weights @ values / weights.sum())


def test_the_same_input_gives_the_same_file_and_leaves_settings_alone(tmp_path):
    settings = dict(mpl.rcParams)
    for name in ("a.png", "b.png"):
        curves_figure(tmp_path / name, [1, 2, 3], {"Loss": [3.0, 2.0, 1.0]})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert dict(mpl.rcParams) == settings
