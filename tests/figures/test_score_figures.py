from __future__ import annotations

import pytest
from matplotlib.image import imread
from tests.figures.layout import check_words, figure_of

from paka.figures.scores import Bar, Change, classes_figure, scores_figure

ROWS = [
    Change("in-context", 40.0, 45.0, 4.0, 6.0, "+5.00 [+4.00, +6.00]"),
    Change("linear", 50.0, 50.0, float("nan"), float("nan"), "0.00"),
]
BARS = [
    Bar(f"class {i}", 60.0 - 5 * i, 62.0 - 4 * i, 58.0 - 4 * i, 64.0 - 4 * i, "+2.00 [-10.00, +13.00]")
    for i in range(12)
]


def test_scores(tmp_path, monkeypatch):
    scores_figure(tmp_path / "s.png", ROWS)
    assert imread(tmp_path / "s.png").shape[1] == 1080
    check_words(figure_of(monkeypatch, scores_figure, ROWS))
    with pytest.raises(ValueError, match="at least one score"):
        scores_figure(tmp_path / "s.png", [])


@pytest.mark.parametrize("compared", [True, False])
def test_bars_are_as_long_as_the_scores(monkeypatch, compared):
    bars = BARS if compared else [bar._replace(after=None) for bar in BARS]
    figure = figure_of(monkeypatch, classes_figure, bars)
    check_words(figure)
    widths = [patch.get_width() for patch in figure.axes[0].patches]
    expected = [value for bar in bars for value in (bar.before, bar.after) if value is not None]
    assert widths == pytest.approx(expected)
    lines = [line.get_xdata() for line in figure.axes[0].lines[::3]]
    assert [tuple(line) for line in lines] == [(bar.low, bar.high) for bar in bars]


def test_bars_need_classes(tmp_path):
    with pytest.raises(ValueError, match="at least one class"):
        classes_figure(tmp_path / "c.png", [])
