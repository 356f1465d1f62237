from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread
from tests.figures.layout import check_words, figure_of

from paka.colours import overlay, palette
from paka.figures.canvas import GAIN, LOSS, NEITHER, rgb
from paka.figures.segmentation import (
    ONLY_FIRST,
    ONLY_SECOND,
    RIGHT,
    VOIDED,
    WRONG,
    agreement,
    judged,
    segmentation_figure,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
TRUTH = RNG.integers(0, 3, (2, 32, 48), dtype=np.uint8)
CLASSES = ("sky", "road", "tree")


def test_agreement_is_what_a_loop_says():
    truth = np.where(RNG.random((3, 9, 7)) < 0.2, 255, RNG.integers(0, 3, (3, 9, 7))).astype(np.uint8)
    first, second = (RNG.integers(0, 3, truth.shape, dtype=np.uint8) for _ in range(2))
    found = agreement(truth, [first, second])
    for place, label in np.ndenumerate(truth):
        hits = first[place] == label, second[place] == label
        code = {
            (True, True): RIGHT,
            (False, True): ONLY_SECOND,
            (True, False): ONLY_FIRST,
            (False, False): WRONG,
        }
        assert found[place] == (VOIDED if label == 255 else code[hits])


def test_one_prediction_is_right_or_wrong():
    truth = np.array([0, 1, 255], dtype=np.uint8)
    found = agreement(truth, [np.array([0, 0, 0], dtype=np.uint8)])
    np.testing.assert_array_equal(found, [RIGHT, WRONG, VOIDED])


def test_colours_say_which_is_right():
    codes = np.arange(5, dtype=np.uint8).reshape(1, 1, 5)
    image = np.full((1, 1, 5, 3), 100, dtype=np.uint8)
    shown = judged(image, codes)[0, 0].astype(int)
    np.testing.assert_array_equal(shown[VOIDED], 222)
    np.testing.assert_array_equal(shown[RIGHT], round(0.35 * 255 + 0.65 * 100))
    for code, colour in ((ONLY_SECOND, GAIN), (ONLY_FIRST, LOSS), (WRONG, NEITHER)):
        np.testing.assert_allclose(shown[code], 0.85 * rgb(colour) + 0.15 * 100, atol=1)


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
DEFICIENCIES = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_judgements_can_be_told_apart_by_all(kind):
    colours = np.array([rgb(GAIN), rgb(LOSS), rgb(NEITHER), [255, 255, 255]]) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(DEFICIENCIES[kind]).T, 0, 1)
    shown = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    distances = np.linalg.norm(shown[:, None] - shown[None], axis=2)
    assert distances[~np.eye(4, dtype=bool)].min() > 0.15


def test_segmentation_shows_each_class_over_the_grey_of_the_image(tmp_path):
    images = np.full((2, 32, 48, 3), 100, dtype=np.uint8)
    flat = np.stack([np.full((32, 48), fill, dtype=np.uint8) for fill in (0, 255)])
    segmentation_figure(
        tmp_path / "s.png", images, truth=flat, predictions={"Before": TRUTH, "After": TRUTH}, classes=CLASSES
    )
    pixels = (imread(tmp_path / "s.png") * 255).round().astype(int)
    expected = overlay(images, flat, palette(3))
    np.testing.assert_array_equal(pixels[140, 450], expected[0, 0, 0])
    np.testing.assert_array_equal(pixels[140 + 192 + 30, 450], expected[1, 0, 0])


@pytest.mark.parametrize("titles", [["Prediction"], ["Before", "After"]])
def test_words_stand_apart(monkeypatch, titles):
    notes = {title: ["mIoU 100.0 %", "mIoU 12.3 %"] for title in titles}
    wrong = (TRUTH + 1) % 3
    figure = figure_of(
        monkeypatch, segmentation_figure, IMAGES, truth=TRUTH, predictions=dict(zip(titles, (wrong, TRUTH), strict=False)),
        classes=CLASSES, notes=notes,
    )  # fmt: skip
    check_words(figure)
    assert len(figure.axes) == 2 * (3 + len(titles))


def test_legend_grows_with_the_classes(monkeypatch):
    many = np.arange(32, dtype=np.uint8).reshape(1, 4, 8)
    heights = []
    for ids in (many % 2, many):
        figure = figure_of(
            monkeypatch, segmentation_figure, np.zeros((1, 4, 8, 3), np.uint8), truth=ids,
            predictions={"Before": ids, "After": ids}, classes=[f"a long name {i}" for i in range(32)],
        )  # fmt: skip
        check_words(figure)
        heights.append(figure.get_figheight())
    assert heights[1] > heights[0] + 0.6


def test_class_without_a_name(tmp_path):
    with pytest.raises(ValueError, match="class id 2 has no name: there are names for 2 classes"):
        segmentation_figure(
            tmp_path / "s.png", IMAGES, truth=TRUTH, predictions={"Prediction": TRUTH}, classes=CLASSES[:2]
        )


def test_maps_must_be_of_the_images(tmp_path):
    with pytest.raises(ValueError, match="after holds 1 maps for 2 images"):
        segmentation_figure(
            tmp_path / "s.png", IMAGES, truth=TRUTH, predictions={"After": TRUTH[:1]}, classes=CLASSES
        )
