from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread
from tests.figures.layout import check_words, figure_of

from paka.colours import palette
from paka.figures.matrices import NUMBERED, confusion_figure, confusion_shares, kernels_figure

RNG = np.random.default_rng(0)


def names(count: int) -> list[str]:
    return [f"class {i}" if i % 3 else f"a longer name {i}" for i in range(count)]


def test_shares_are_rows_in_percent():
    counts = RNG.integers(0, 100, (6, 6))
    counts[4], counts[:, 4] = 0, 0  # does not occur
    counts[5], counts[2, 5] = 0, 7  # is predicted only
    shares, kept = confusion_shares(counts, names(6))
    assert kept == [name for i, name in enumerate(names(6)) if i != 4]
    rows = [i for i in range(6) if i != 4]
    for place, row in enumerate(rows[:-1]):
        expected = [100 * counts[row, column] / counts[row].sum() for column in rows]
        np.testing.assert_allclose(shares[place], expected)
    assert np.isnan(shares[-1]).all()


def test_counts_must_be_of_the_classes():
    with pytest.raises(ValueError, match=r"expected counts of 2 classes, got \(3, 3\)"):
        confusion_shares(np.ones((3, 3)), names(2))
    with pytest.raises(ValueError, match="at least one pixel"):
        confusion_shares(np.zeros((3, 3)), names(3))


@pytest.mark.parametrize("count", [2, 11, 21, 60, 150])
def test_the_words_of_confusions_stand_apart(monkeypatch, count):
    counts = RNG.integers(0, 30, (count, count)) + 500 * np.eye(count, dtype=int)
    figure = figure_of(monkeypatch, confusion_figure, counts, names(count))
    check_words(figure)
    assert bool(figure.axes[0].texts) == (count <= NUMBERED), "numbers where there is room for them"
    assert max(figure.get_size_inches()) < 16


def test_numbers_are_rounded_shares(monkeypatch):
    figure = figure_of(monkeypatch, confusion_figure, np.array([[3, 1], [0, 4]]), ["a", "b"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["75", "25", "100"]


def test_kernels(tmp_path, monkeypatch):
    classes = np.repeat(np.arange(3, dtype=np.uint8), [40, 5, 55])
    tokens = RNG.normal(size=(100, 8))
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    kernels = {"Before": unit @ unit.T, "After": unit @ unit.T}
    notes = dict.fromkeys(kernels, "mean cosine within classes 0.75, between classes 0.60")
    options = {"names": names(3), "colours": palette(3), "notes": notes}
    check_words(figure_of(monkeypatch, kernels_figure, kernels, classes, **options))
    kernels_figure(tmp_path / "k.png", kernels, classes, **options)
    assert imread(tmp_path / "k.png").shape[1] > 1200
    with pytest.raises(ValueError, match="sorted by class"):
        kernels_figure(tmp_path / "k.png", kernels, classes[::-1], **options)
    with pytest.raises(ValueError, match="kernels of the 99 tokens"):
        kernels_figure(tmp_path / "k.png", kernels, classes[1:], **options)
