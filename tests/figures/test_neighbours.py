from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from tests.figures.layout import check_words, figure_of

from paka.figures.canvas import GAIN, LOSS
from paka.figures.neighbours import Patch, Query, neighbours_figure

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def patch(name: str) -> Patch:
    return Patch(PICTURE, (0.25, 0.5, 0.125, 0.125), name)


@pytest.mark.parametrize("sides", [["Tokens"], ["Before", "After"]])
def test_neighbours_of_the_class_are_marked_in_words_and_colour(monkeypatch, sides):
    found = {side: [patch("lizard"), patch("bicyclist"), patch("void")] for side in sides}
    figure = figure_of(monkeypatch, neighbours_figure, [Query(patch("lizard"), found)] * 3)
    check_words(figure)
    texts = [text.get_text() for text in figure.texts]
    assert texts.count("1 of 3") == 3 * len(sides)
    assert texts.count("✓ lizard") == texts.count("✗ bicyclist") == 3 * len(sides)
    boxes = [[p for p in axes.patches if isinstance(p, Rectangle)] for axes in figure.axes]
    assert [to_hex(box[-1].get_edgecolor()) for box in boxes[1:4]] == [GAIN, LOSS, LOSS]
    assert boxes[0][0].get_bbox().bounds == (9.5, 19.5, 5, 5), (
        "from the corner of the first pixel of the patch"
    )


def test_a_figure_needs_patches(tmp_path):
    with pytest.raises(ValueError, match="at least one patch"):
        neighbours_figure(tmp_path / "n.png", [])
